"""The gate: an exported model must answer as the trained one does, or no bundle is put in place.

Two comparisons on the same split. *Squares*: both sides see the very same pixels, so only the exported arithmetic can
differ. *Raw files*: the exported graph gets every file as it was decoded, of any size and alone or in batches, and
resamples by itself, which also proves what lies in front of the model. It resamples to the bit: the same limits hold.

A prediction that flips may be a tie: the two answers were closer than the numerical difference that was measured. It
says nothing of either model. A score that drops may be chance: it counts where the items that became worse outnumber
those that became better beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.api.errors import DataError, counted, first_few
from toolkit.build.assemble import Assembly
from toolkit.data.loader import Loader
from toolkit.export.asking import ask_raw
from toolkit.export.judging import JUDGING, Asked, Flip, Judging, Paired
from toolkit.export.trust import (
    NOTHING_DECIDED,
    Decisions,
    Worsened,
    asks_for_trust,
    calibrated,
    decided,
    worsened,
)
from toolkit.recipe.tables import Limits
from toolkit.runs.scores import score_text
from toolkit.serving.bundle import UNTOUCHED, Bundle, Trust
from toolkit.serving.bundle.views import average_views
from toolkit.system import device as devices
from toolkit.training.answers import logits_of
from toolkit.training.evaluate import Answered, Evaluation, evaluate

SQUARE_BATCHES = (1, 5, 32)
RAW_BATCHES = (1, 3, 7)
"""Images in the batches that the exported model is asked in, in turn; none is the size it was traced with."""
CLIP_BATCHES = (1, 2, 3)
"""Clips in those batches, and videos, all of whose views share one: 2 is the size that it was traced with."""
LISTED = 20

Ask: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Asks a model: uint8 `[N, S, S, 3]` or `[N, T, S, S, 3]` to the rows of `Session.run`."""


@dataclass(frozen=True)
class Parity:
    """How far the exported model answers as the trained one, on N items."""

    what: str
    batches: tuple[int, ...]
    difference: float
    """Largest difference of an answer, in the unit of `Judging`; NaN where one is not a number."""
    flips: tuple[Flip, ...]
    paired: Paired
    unanswered: tuple[str, ...]
    """Ids of the items to which the exported model's answer is not finite; no flips."""
    scores: dict[str, float]
    """All NaN where an item is unanswered."""
    hundredths: float
    """The score that decides, as `Judging` measures it; ties count as the trained model answers them."""
    decisions: Decisions = NOTHING_DECIDED
    worsened: tuple[Worsened, ...] = ()
    """Decisions that differ."""

    @property
    def changed(self) -> int:
        """Predictions that changed, without ties."""
        return sum(not flip.tie for flip in self.flips)

    def summary(self, judging: Judging, metric: str) -> dict[str, Any]:
        """For bundle.json: plain values."""
        flips = {"flips": [str(flip) for flip in self.flips], "ties": len(self.flips) - self.changed}
        return {
            "batch_sizes": list(self.batches),
            "largest_difference": self.difference,
            **(flips if judging.flips else {}),
            "items_worse": self.paired.worse,
            "items_better": self.paired.better,
            "p_value": self.paired.p_value,
            "exported": self.scores[metric],
            **self.decisions.shares(),
        }


@dataclass(frozen=True)
class Verdict:
    """What the gate found for one precision; the bundle passes where `problems` is empty."""

    precision: str
    split: str
    items: int
    metric: str
    trained: float
    squares: Parity
    raw: Parity
    judging: Judging
    problems: tuple[str, ...]
    accepting: Mapping[str, float]
    """The limits by which this verdict would pass, where it does not; empty where no limit would do."""

    def findings(self) -> list[str]:
        """Every problem, then the flipped items by name."""
        flips = self.squares.flips if len(self.squares.flips) > len(self.raw.flips) else self.raw.flips
        more = [f"and {len(flips) - LISTED} more"] if len(flips) > LISTED else []
        return [*self.problems, *(f"flipped {flip}" for flip in flips[:LISTED]), *more]

    def summary(self) -> dict[str, Any]:
        """For bundle.json: plain values."""
        return {
            "split": self.split,
            "items": self.items,
            "metric": self.metric,
            "trained": self.trained,
            **{side.what: side.summary(self.judging, self.metric) for side in (self.squares, self.raw)},
        }


@dataclass(frozen=True)
class Reference:
    """The trained model's answers in float32, which every precision is held against."""

    assembly: Assembly
    split: str
    evaluation: Evaluation
    """Calibrated, where the exported model is."""
    trust: Trust = UNTOUCHED
    decisions: Decisions = NOTHING_DECIDED

    def trusting(self, trust: Trust) -> Reference:
        """The same answers, as a graph with this temperature gives them, and what is decided of them."""
        average, assembly = self.loader.average, self.assembly
        after = calibrated(self.evaluation, trust, average)
        evaluation = after if isinstance(after, Evaluation) else after.scored(assembly.objective, assembly.metrics())
        return Reference(assembly, self.split, evaluation, trust, decided(trust, self.evaluation, average))

    @property
    def judging(self) -> Judging:
        return JUDGING[self.assembly.spec.targets]

    @property
    def hundredths(self) -> float:
        return self.judging.hundredths(self.evaluation, self.evaluation.scalars(), self.assembly)

    @property
    def loader(self) -> Loader:
        return self.assembly.loaders()[self.split]

    @property
    def square_batches(self) -> tuple[int, ...]:
        return SQUARE_BATCHES if self.assembly.spec.clip is None else CLIP_BATCHES

    @property
    def raw_batches(self) -> tuple[int, ...]:
        return RAW_BATCHES if self.assembly.spec.clip is None else CLIP_BATCHES

    def squares(self, items: Sequence[int]) -> NDArray[np.uint8]:
        """The views of the items at these positions in the split, as the graph takes them: uint8 `[N, S, S, 3]` or
        `[N, T, S, S, 3]`."""
        pixels = self.loader.views(items).pixels.movedim(-3, -1)
        return np.ascontiguousarray(pixels.cpu().numpy())

    def part(self, most: int) -> Reference:
        """At most so many of the answers, evenly spaced."""
        evaluation, assembly = self.evaluation, self.assembly
        if len(evaluation.index) <= most:
            return self
        rows = torch.linspace(0, len(evaluation.index) - 1, most).long()
        answered = Answered(evaluation.index[rows], evaluation.logits[rows], evaluation.targets[rows])
        scored = answered.scored(assembly.objective, assembly.metrics(), evaluation.thresholds)
        decisions = Decisions(*(None if one is None else one[rows] for one in self.decisions))
        return Reference(assembly, self.split, scored, self.trust, decisions)

    @property
    def ids(self) -> list[str]:
        ids = self.loader.store.split.ids
        return [ids[index] for index in self.evaluation.index.tolist()]


def reference(assembly: Assembly) -> Reference:
    """Ask the trained model: on the validation split, or without one on the test split. Raises DataError where
    neither has an item."""
    names = [name for name in ("valid", "test") if len(assembly.loaders()[name].store)]
    if not names:
        raise DataError(
            "nothing to compare the exported model on: the data has neither a validation nor a test split",
            next_step="use data that has one: --set data.KEY=VALUE; list the keys: "
            f"python -m toolkit plugins show {assembly.recipe.data.name}",
        )
    loader = assembly.loaders()[names[0]]
    batch = assembly.recipe.train.eval_batch or assembly.recipe.train.batch_size
    exact = torch.inference_mode  # no autocast
    devices.use_full_float32()
    batches, metrics = loader.evaluation(batch), assembly.metrics()
    evaluation = evaluate(
        assembly.network,
        assembly.objective,
        batches,
        metrics,
        exact,
        average=loader.average,
        keep_views=asks_for_trust(assembly.recipe.export),
    )
    return Reference(assembly, names[0], evaluation)


def judge(bundle: Bundle, expected: Reference, limits: Limits, *, progress: Callable[[int], None]) -> Verdict:
    """Compare the bundle's model with the trained one; `progress` gets the number of items answered."""
    own = bundle.manifest.thresholds  # the bundle's decisions are part of what is compared
    on_squares, on_raw = _on_squares(bundle.session.run, expected, progress), _on_raw_files(bundle, expected, progress)
    squares = _compare("squares", expected.square_batches, on_squares, own, expected, limits)
    raw = _compare("raw_files", expected.raw_batches, on_raw, own, expected, limits)
    metric = expected.assembly.recipe.train.metric
    trained = float(expected.evaluation.scalars()[metric])
    sides = squares, raw
    problems, drops = _judged(sides, expected, limits)
    items = len(expected.evaluation.index)
    accepting = _accepting(sides, drops, limits) if problems else {}
    compared = squares, raw, expected.judging
    return Verdict(bundle.precision, expected.split, items, metric, trained, *compared, tuple(problems), accepting)


class Held(NamedTuple):
    """Whether a model is within its limits."""

    outright: bool
    """Also if no drop is excused as chance."""
    by_the_gate: bool


def held_on_squares(ask: Ask, expected: Reference, limits: Limits) -> Held:
    """Ask a model about the squares alone, and judge it as the gate does."""
    own = expected.evaluation.thresholds
    thresholds = None if own is None else tuple(own.tolist())
    answers = _on_squares(ask, expected, lambda _: None)
    squares = _compare("squares", expected.square_batches, answers, thresholds, expected, limits)
    problems, drops = _judged((squares,), expected, limits)
    return Held(not problems and max(drops) <= limits.max_drop, not problems)


def _judged(sides: Sequence[Parity], expected: Reference, limits: Limits) -> tuple[list[str], list[float]]:
    """Every problem, and by how many points each side is worse."""
    judging, before = expected.judging, expected.hundredths
    metric = expected.assembly.recipe.train.metric
    trained = float(expected.evaluation.scalars()[metric])
    problems = [*_not_finite(sides), *_too_different(sides, limits, judging), *_too_many_flips(sides, limits)]
    sign = 1 if expected.assembly.recipe.train.direction == "minimize" else -1
    drops = [sign * (side.hundredths - before) for side in sides]
    for side, drop in zip(sides, drops, strict=True):
        if math.isnan(drop) or (drop > limits.max_drop and side.paired.significant):
            found = f"{side.what}: {metric} {score_text(metric, side.scores[metric])}"
            found += f" where the trained model has {score_text(metric, trained)}"
            without = " without ties" if len(side.flips) > side.changed else ""
            worse_by = f"worse by {drop:.2f} {judging.points}{without} ({side.paired})"
            problems.append(f"{found}: {worse_by}; max_drop is {limits.max_drop:g}")
    decided_worse = [(side, one) for side in sides for one in side.worsened]
    problems += _worse_decided(decided_worse, limits)
    return problems, [*drops, *(one.points for _, one in decided_worse)]


def _accepting(sides: Sequence[Parity], drops: Sequence[float], limits: Limits) -> dict[str, float]:
    if not all(map(math.isfinite, (*(side.difference for side in sides), *drops))):
        return {}
    changed = max(side.changed for side in sides)
    largest = max(side.difference for side in sides)
    needed = {
        "max_difference": (min(float(f"{1.05 * largest:.2g}"), 1.0), limits.max_difference),
        "max_flips": (changed, changed if limits.max_flips is None else limits.max_flips),
        "max_drop": (math.ceil(10 * max(drops)) / 10, limits.max_drop),
    }
    return {key: value for key, (value, limit) in needed.items() if value > limit}


def _beyond(value: float, limit: float) -> bool:
    """Whether `value` is above `limit`, or no number."""
    return math.isnan(value) or value > limit


def _not_finite(sides: Sequence[Parity]) -> Iterator[str]:
    for side in sides:
        if ids := side.unanswered:
            yield f"{side.what}: {len(ids)} answers are not finite numbers, to {first_few(ids, LISTED)}"


def _too_different(sides: Sequence[Parity], limits: Limits, judging: Judging) -> Iterator[str]:
    for side in sides:
        if _beyond(side.difference, limits.max_difference):
            yield (
                f"{side.what}: {judging.differing} differs by {side.difference:.2g}{judging.unit}; max_difference is "
                f"{limits.max_difference:g}"
            )


def _too_many_flips(sides: Sequence[Parity], limits: Limits) -> Iterator[str]:
    for side in sides:
        if limits.max_flips is not None and side.changed > limits.max_flips:
            changed = f"{counted(side.changed, 'prediction')} changed (ties excluded)"
            yield f"{side.what}: {changed}; max_flips is {limits.max_flips}"


def _worse_decided(worsened: Sequence[tuple[Parity, Worsened]], limits: Limits) -> Iterator[str]:
    for side, one in worsened:
        if one.points > limits.max_drop and one.paired.significant:
            yield (
                f"{side.what}: {one.points:.2f} points more {one.what} than of the trained model ({one.paired}); "
                f"max_drop is {limits.max_drop:g}"
            )


def _compare(
    what: str,
    batches: tuple[int, ...],
    answers: NDArray[np.float32],
    thresholds: tuple[float, ...] | None,
    expected: Reference,
    limits: Limits,
) -> Parity:
    evaluation, assembly, rows = expected.evaluation, expected.assembly, torch.from_numpy(answers)
    answered, trust = rows[:, : evaluation.answers.shape[1]], expected.trust
    scores = rows[:, -1] if trust.scored else None
    judging, finite = expected.judging, answered.isfinite().all(1)
    difference = judging.difference(evaluation.answers, answered, assembly)
    # Where one probability falls and another rises by that, a margin of twice as much is gone.
    explained = difference if evaluation.thresholds is not None else 2 * difference
    asked = Asked(evaluation, answered, thresholds, assembly, expected.ids, min(explained, limits.tie))
    flips = dict(judging.flipped(asked))
    decisions = Decisions.of(trust, answered, scores, evaluation.targets)
    right = evaluation.answers.argmax(1) == evaluation.targets if trust.outputs else torch.empty(0)
    scored, hundredths = _scores(asked, finite, [row for row, flip in flips.items() if flip.tie], expected)
    return Parity(
        what,
        batches,
        difference,
        tuple(flips.values()),
        judging.paired(asked, flips.values()),
        tuple(expected.ids[row] for row in (~finite).nonzero().flatten().tolist()),
        scored,
        hundredths,
        decisions,
        tuple(worsened(expected.decisions, decisions, right)),
    )


def _scores(asked: Asked, finite: Tensor, ties: list[int], expected: Reference) -> tuple[dict[str, float], float]:
    """The scores, and the one that decides as it is judged: without `ties`."""
    evaluation, assembly = asked.evaluation, asked.assembly
    if not finite.all():
        return dict.fromkeys(evaluation.scalars(), math.nan), math.nan
    logits = logits_of(asked.answers, assembly.spec.targets)
    given = None if asked.thresholds is None else torch.tensor(asked.thresholds)

    def scored(logits: Tensor) -> Evaluation:
        answered = Answered(evaluation.index, logits, evaluation.targets)
        return answered.scored(assembly.objective, assembly.metrics(), given)

    found = scored(logits)
    without_ties = logits.clone()
    without_ties[ties] = logits_of(evaluation.answers, assembly.spec.targets)[ties]
    judged = scored(without_ties) if ties else found
    return found.scalars(), expected.judging.hundredths(judged, judged.scalars(), assembly)


def _on_squares(ask: Ask, expected: Reference, progress: Callable[[int], None]) -> NDArray[np.float32]:
    index = expected.evaluation.index
    answers = []
    for part in _in_turn(index.tolist(), expected.square_batches):
        found = ask(expected.squares(part))
        views = found.reshape(len(part), -1, found.shape[1])
        form, scores = expected.assembly.spec.targets, expected.trust.score_columns
        answers.append(average_views(views, expected.loader.average, form, scores=scores))
        progress(len(part))
    return np.concatenate(answers)


def _on_raw_files(bundle: Bundle, expected: Reference, progress: Callable[[int], None]) -> NDArray[np.float32]:
    split, index = expected.loader.store.split, expected.evaluation.index.tolist()
    return ask_raw(bundle, split, index, expected.raw_batches, progress=progress)


def _in_turn(items: Sequence[int], sizes: Sequence[int]) -> Iterator[Sequence[int]]:
    """`items` in parts of these sizes, over and over."""
    start = 0
    for size in cycle(sizes):
        if start >= len(items):
            return
        yield items[start : start + size]
        start += size
