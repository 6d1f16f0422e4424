"""The gate: an exported model must answer as the trained one does, or no bundle is put in place.

Two comparisons on the same split. *Squares*: both sides see the very same pixels, so only the exported arithmetic can
differ. *Raw files*: the exported graph gets every file as it was decoded, of any size and alone or in batches, and
resamples by itself, which also proves what lies in front of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.api.answers import NONE, label, named_classes
from toolkit.api.errors import DataError, counted
from toolkit.build.assemble import Assembly
from toolkit.data.loader import Loader
from toolkit.export.asking import ask_raw
from toolkit.recipe.tables import Limits
from toolkit.serving.bundle import Bundle
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


@dataclass(frozen=True)
class Flip:
    """An item that the exported model answers otherwise than the trained one."""

    id: str
    trained: str
    exported: str
    margin: float
    """How much more probable the trained model holds its answer than the other; of a set of classes, how far its
    probability of a class that came or went is from the threshold, at most."""
    tie: bool
    """Whether that margin is one that the limits call a tie."""

    def __str__(self) -> str:
        kind = " (a tie)" if self.tie else ""
        return f'{self.id}: "{self.trained}" became "{self.exported}", margin {self.margin:.4f}{kind}'


@dataclass(frozen=True)
class Parity:
    """How far the exported model answers as the trained one, on N items."""

    what: str
    batches: tuple[int, ...]
    difference: float
    """Largest difference of a probability; NaN where one is NaN."""
    flips: tuple[Flip, ...]
    unanswered: tuple[str, ...]
    """Ids of the items to which the exported model's answer is not finite; no flips."""
    scores: dict[str, float]
    """All NaN where an item is unanswered."""


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
            **{
                side.what: {
                    "batch_sizes": list(side.batches),
                    "largest_difference": side.difference,
                    "flips": [str(flip) for flip in side.flips],
                    "exported": side.scores[self.metric],
                }
                for side in (self.squares, self.raw)
            },
        }


@dataclass(frozen=True)
class Reference:
    """The trained model's answers in float32, which every precision is held against."""

    assembly: Assembly
    split: str
    evaluation: Evaluation

    @property
    def loader(self) -> Loader:
        return self.assembly.loaders()[self.split]

    @property
    def square_batches(self) -> tuple[int, ...]:
        return SQUARE_BATCHES if self.assembly.spec.clip is None else CLIP_BATCHES

    @property
    def raw_batches(self) -> tuple[int, ...]:
        return RAW_BATCHES if self.assembly.spec.clip is None else CLIP_BATCHES

    @property
    def ids(self) -> list[str]:
        ids = self.loader.pixels.split.ids
        return [ids[index] for index in self.evaluation.index.tolist()]


def reference(assembly: Assembly) -> Reference:
    """Ask the trained model: on the validation split, or without one on the test split. Raises DataError where
    neither has an item."""
    names = [name for name in ("valid", "test") if len(assembly.loaders()[name].pixels)]
    if not names:
        raise DataError(
            "nothing to compare the exported model on: the data has neither a validation nor a test split",
            next_step="use data that has one: --set data.KEY=VALUE; list the keys: "
            f"python -m toolkit plugins show {assembly.recipe.data.name}",
        )
    loader = assembly.loaders()[names[0]]
    batch = assembly.recipe.train.eval_batch or assembly.recipe.train.batch
    exact = torch.inference_mode  # no autocast
    devices.use_full_float32()
    batches, metrics = loader.evaluation(batch), assembly.metrics()
    evaluation = evaluate(assembly.network, assembly.objective, batches, metrics, exact, average=loader.average)
    return Reference(assembly, names[0], evaluation)


def judge(bundle: Bundle, expected: Reference, limits: Limits, *, progress: Callable[[int], None]) -> Verdict:
    """Compare the bundle's model with the trained one; `progress` gets the number of items answered."""
    own = bundle.manifest.thresholds  # the bundle's decisions are part of what is compared
    on_squares, on_raw = (asked(bundle, expected, progress) for asked in (_on_squares, _on_raw_files))
    squares = _compare("squares", expected.square_batches, on_squares, own, expected, limits)
    raw = _compare("raw_files", expected.raw_batches, on_raw, own, expected, limits)
    metric = expected.assembly.recipe.train.metric
    trained = float(expected.evaluation.scalars()[metric])
    sides = squares, raw
    problems = [*_not_finite(sides), *_too_different(squares, limits), *_too_many_flips(sides, limits)]
    worse = expected.assembly.recipe.train.direction == "minimize"
    drops = [100 * (side.scores[metric] - trained) * (1 if worse else -1) for side in sides]
    for side, drop in zip(sides, drops, strict=True):
        if _beyond(drop, limits.max_drop):
            problems.append(
                f"{side.what}: {metric} {side.scores[metric]:.4f} where the trained model has {trained:.4f}: worse by "
                f"{drop:.2f} points; max_drop is {limits.max_drop:g}"
            )
    items = len(expected.evaluation.index)
    accepting = _accepting(sides, drops, limits) if problems else {}
    return Verdict(bundle.precision, expected.split, items, metric, trained, squares, raw, tuple(problems), accepting)


def _accepting(sides: tuple[Parity, Parity], drops: Sequence[float], limits: Limits) -> dict[str, float]:
    squares, _ = sides
    if not all(map(math.isfinite, (squares.difference, *drops))):
        return {}
    beyond = max(_changed(side) for side in sides)
    needed = {
        "max_difference": (min(float(f"{1.05 * squares.difference:.2g}"), 1.0), limits.max_difference),
        "max_flips": (beyond, beyond if limits.max_flips is None else limits.max_flips),
        "max_drop": (math.ceil(10 * max(drops)) / 10, limits.max_drop),
    }
    return {key: value for key, (value, limit) in needed.items() if value > limit}


def _changed(side: Parity) -> int:
    """Predictions that changed, without ties."""
    return sum(not flip.tie for flip in side.flips)


def _beyond(value: float, limit: float) -> bool:
    """Whether `value` is above `limit`, or no number."""
    return math.isnan(value) or value > limit


def _not_finite(sides: Sequence[Parity]) -> Iterator[str]:
    for side in sides:
        if ids := side.unanswered:
            more = f", and {len(ids) - LISTED} more" if len(ids) > LISTED else ""
            yield f"{side.what}: {len(ids)} answers are not finite numbers, to {', '.join(ids[:LISTED])}{more}"


def _too_different(squares: Parity, limits: Limits) -> Iterator[str]:
    if _beyond(squares.difference, limits.max_difference):
        yield (
            f"{squares.what}: a probability differs by {squares.difference:.2g}; max_difference is "
            f"{limits.max_difference:g}"
        )


def _too_many_flips(sides: Sequence[Parity], limits: Limits) -> Iterator[str]:
    for side in sides:
        beyond = _changed(side)
        if limits.max_flips is not None and beyond > limits.max_flips:
            changed = f"{counted(beyond, 'prediction')} changed (ties excluded)"
            yield f"{side.what}: {changed}; max_flips is {limits.max_flips}"


def _compare(
    what: str,
    batches: tuple[int, ...],
    probabilities: NDArray[np.float32],
    thresholds: tuple[float, ...] | None,
    expected: Reference,
    limits: Limits,
) -> Parity:
    trained, answered = expected.evaluation.answers, torch.from_numpy(probabilities)
    finite = answered.isfinite().all(1)
    return Parity(
        what,
        batches,
        float((trained - answered).abs().max()),
        tuple(_flips(trained, answered, thresholds, finite, expected, limits)),
        tuple(expected.ids[row] for row in (~finite).nonzero().flatten().tolist()),
        _scores(answered, thresholds, finite, expected),
    )


def _scores(
    answered: Tensor, thresholds: tuple[float, ...] | None, finite: Tensor, expected: Reference
) -> dict[str, float]:
    if not finite.all():
        return dict.fromkeys(expected.evaluation.scalars(), math.nan)
    evaluation, assembly = expected.evaluation, expected.assembly
    logits = logits_of(answered, assembly.spec.targets)
    given = None if thresholds is None else torch.tensor(thresholds)
    found = Answered(evaluation.index, logits, evaluation.targets).scored(assembly.objective, assembly.metrics(), given)
    return found.scalars()


def _flips(
    trained: Tensor,
    answered: Tensor,
    thresholds: tuple[float, ...] | None,
    finite: Tensor,
    expected: Reference,
    limits: Limits,
) -> Iterator[Flip]:
    classes, chosen = expected.assembly.spec.classes, expected.evaluation.thresholds
    limit = None if chosen is None else chosen.tolist()
    rows = zip(expected.ids, trained.tolist(), answered.tolist(), finite.tolist(), strict=True)
    for name, before, after, is_finite in rows:
        first, other = named_classes(before, limit), named_classes(after, thresholds)
        if first == other or not is_finite:
            continue
        if limit is None:
            margin = before[first[0]] - before[other[0]]
        else:
            margin = max(abs(before[number] - limit[number]) for number in {*first} ^ {*other})
        trained_as, exported_as = (label(classes, numbers) or NONE for numbers in (first, other))
        yield Flip(name, trained_as, exported_as, margin, margin <= limits.tie)


def _on_squares(bundle: Bundle, expected: Reference, progress: Callable[[int], None]) -> NDArray[np.float32]:
    index = expected.evaluation.index
    answers = []
    for part in _in_turn(index.tolist(), expected.square_batches):
        pixels = expected.loader.views(part).pixels.movedim(-3, -1)
        probabilities = bundle.session.run(np.ascontiguousarray(pixels.cpu().numpy()))
        views = probabilities.reshape(len(part), -1, probabilities.shape[1])
        answers.append(average_views(views, expected.loader.average, expected.assembly.spec.targets))
        progress(len(part))
    return np.concatenate(answers)


def _on_raw_files(bundle: Bundle, expected: Reference, progress: Callable[[int], None]) -> NDArray[np.float32]:
    split, index = expected.loader.pixels.split, expected.evaluation.index.tolist()
    return ask_raw(bundle, split, index, expected.raw_batches, progress=progress)


def _in_turn(items: Sequence[int], sizes: Sequence[int]) -> Iterator[Sequence[int]]:
    """`items` in parts of these sizes, over and over."""
    start = 0
    for size in cycle(sizes):
        if start >= len(items):
            return
        yield items[start : start + size]
        start += size
