"""What a prediction comes to, in a few lines: how many inputs, which classes, how sure, how fast."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.api.answers import NONE, UNKNOWN, named_classes, number, percent
from toolkit.api.errors import counted, first_few, printable
from toolkit.serving.predict.inputs import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.serving.bundle import Bundle, Manifest

COUNTED = 8
"""Most classes whose answers are counted one by one."""
NAMED = 5
"""Most inputs that are named where they were skipped."""
SAMPLE = "the model was trained on SAMPLE data: its answers say nothing about real pictures"
_RANDOM = "random weights"
UNKNOWN_CLASS = f"({UNKNOWN})"
"""In a count of classes, of which one may have the same name."""


@dataclass
class Summary:
    """Takes in one answer after the other."""

    bundle: Bundle
    answered: int = 0
    """Inputs, of which a video may have several answers."""
    answers: int = 0
    skipped: list[str] = field(default_factory=list)
    parts_skipped: int = 0
    """Of videos that have several answers."""
    declined: int = 0
    _classes: Counter[str] = field(default_factory=Counter)
    _confidence: float = 0.0
    """Sum of the probabilities of the classes that are named."""
    _named: int = 0
    _sums: dict[str, float] = field(default_factory=dict)
    """Of each output, where answers are numbers."""
    _started: float = field(default_factory=time.perf_counter)

    @property
    def done(self) -> int:
        """Inputs."""
        return self.answered + len(self.skipped)

    def add(self, probabilities: NDArray[np.float32], *, first: bool) -> None:
        """Count the answer, one row of `Bundle.rows`; `first` is whether it is the first one of its input."""
        manifest = self.bundle.manifest
        answer, score = manifest.parted(probabilities)
        row = answer.tolist()
        self.answered += first
        self.answers += 1
        if manifest.form == "number":
            for name, value in zip(manifest.classes, row, strict=True):
                self._sums[name] = self._sums.get(name, 0.0) + value
            return
        if manifest.trust.declines(row, score):
            self.declined += 1
            self._classes.update([UNKNOWN_CLASS])
            return
        named = named_classes(row, manifest.thresholds)
        self._classes.update([printable(manifest.classes[number]) for number in named] or [NONE])
        self._confidence += sum(row[number] for number in named)
        self._named += len(named)

    def skip(self, source: Source) -> None:
        if source.moment is None:
            self.skipped.append(printable(source.name))
        else:
            self.parts_skipped += 1

    def lines(self) -> Iterator[str]:
        """The summary, a line each."""
        seconds = max(time.perf_counter() - self._started, 1e-9)
        several = f" ({counted(self.answers, 'answer')})" if self.answers != self.answered else ""
        rate = f"{self.answers / seconds:,.1f} {'answers' if several else 'inputs'}/s"
        yield f"{counted(self.answered, 'input')} answered{several} in {seconds:.1f} s, {rate}, {self.bundle.setting}"
        if self._sums:
            yield f"mean: {', '.join(f'{name} {number(total / self.answers)}' for name, total in self._sums.items())}"
        elif self.answers:
            yield f"classes: {_counts(self._classes)}"
            if self.bundle.manifest.trust.reject is not None:
                yield f"declined: {self.declined:,} of {counted(self.answers, 'answer')} count as {UNKNOWN}"
            if self._named or not self.declined:
                yield self._confidence_line()
        if self.skipped:
            yield f"skipped {len(self.skipped):,} of {counted(self.done, 'input')}: {first_few(self.skipped, NAMED)}"
        if self.parts_skipped:
            yield f"skipped {counted(self.parts_skipped, 'part')} of videos"

    def _confidence_line(self) -> str:
        """The mean probability of the classes that answers name: of a set, the probability of the whole would be
        close to 0 where there are many classes."""
        if not self._named:
            return "mean confidence: no class was present"
        per_answer = f", {self._named / self.answers:.2f} classes per answer" if self.bundle.manifest.thresholds else ""
        return f"mean confidence: {percent(self._confidence / self._named)}{per_answer}"


def labels(manifest: Manifest) -> list[str]:
    """What a reader of the answers must know of the model."""
    sample = [SAMPLE] if manifest.sample else []
    return [*sample, *(text for text in _notes(manifest.trained_on) if _RANDOM in text)]


def _notes(trained_on: Mapping[str, Any]) -> list[str]:
    notes = trained_on.get("notes")
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def _counts(classes: Counter[str]) -> str:
    """`a 3, b 2, 4 other classes 9`: the most frequent ones first."""
    ranked = classes.most_common()
    shown = [f"{name} {count:,}" for name, count in ranked[:COUNTED]]
    rest = ranked[COUNTED:]
    if rest:
        kinds = "1 other class" if len(rest) == 1 else f"{len(rest):,} other classes"
        shown.append(f"{kinds} {sum(count for _, count in rest):,}")
    return ", ".join(shown)
