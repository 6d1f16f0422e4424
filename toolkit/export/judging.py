"""How a bundle's answers are held against the trained model's, by the form of targets: here alone the form decides what
counts as a difference, as a flipped prediction, and as a worse score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from toolkit.api.answers import NONE, label, named_classes
from toolkit.api.contracts import TargetForm
from toolkit.build.assemble import Assembly
from toolkit.data.loader import target_tensor
from toolkit.recipe.tables import Limits
from toolkit.training.evaluate import Answered, Evaluation, score

LOSS = "loss"


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


class Judging(Protocol):
    """What a difference between answers means for one form of targets."""

    differing: str
    """What differs by a difference, in words."""
    unit: str
    """Of a difference, in words; empty where it has none."""
    points: str
    """Hundredths of a score, in words."""
    flips: bool
    """Whether predictions can flip."""

    def difference(self, trained: Tensor, answered: Tensor, assembly: Assembly) -> float:
        """The largest of one answer; NaN where one is not a number."""

    def hundredths(self, answered: Answered, scores: Mapping[str, float], assembly: Assembly) -> float:
        """The score that decides, `train.metric`, in hundredths of what it is measured in."""

    def flipped(
        self, evaluation: Evaluation, answered: Tensor, thresholds: Sequence[float] | None, asked: Sequence[str]
    ) -> Iterator[tuple[int, str, str, float]]:
        """Row, trained and exported answer, and margin of each prediction that flipped; `asked` names the classes."""


class _OfClasses:
    differing, unit, points, flips = "a probability", "", "points", True

    def difference(self, trained: Tensor, answered: Tensor, assembly: Assembly) -> float:  # noqa: ARG002
        return float((trained - answered).abs().max())

    def hundredths(self, answered: Answered, scores: Mapping[str, float], assembly: Assembly) -> float:  # noqa: ARG002
        return 100 * scores[assembly.recipe.train.metric]

    def flipped(
        self, evaluation: Evaluation, answered: Tensor, thresholds: Sequence[float] | None, asked: Sequence[str]
    ) -> Iterator[tuple[int, str, str, float]]:
        limit = None if evaluation.thresholds is None else evaluation.thresholds.tolist()
        for row, (before, after) in enumerate(zip(evaluation.answers.tolist(), answered.tolist(), strict=True)):
            first, other = named_classes(before, limit), named_classes(after, thresholds)
            if first == other:
                continue
            if limit is None:
                margin = before[first[0]] - before[other[0]]
            else:
                margin = max(abs(before[number] - limit[number]) for number in {*first} ^ {*other})
            yield row, *(label(asked, numbers) or NONE for numbers in (first, other)), margin


class _OfNumbers:
    """Numbers have any unit, so what counts is the spread of the training targets: their standard deviation."""

    differing, unit, flips = "a number", " spreads of the targets", False
    points = "hundredths of the spread of the targets"

    def difference(self, trained: Tensor, answered: Tensor, assembly: Assembly) -> float:
        return float(((trained - answered) / spread(assembly)).abs().max())

    def hundredths(self, answered: Answered, scores: Mapping[str, float], assembly: Assembly) -> float:
        """Of the score of answers and targets that are divided by the spread: an error becomes a share of it, and a
        score that has no unit stays as it is. The loss is the task's own."""
        metric = assembly.recipe.train.metric
        if metric == LOSS:
            return 100 * scores[LOSS]
        scale = spread(assembly)
        divided = replace(answered, logits=answered.logits / scale, targets=answered.targets / scale)
        found = score(assembly.objective, divided.logits, divided.targets, assembly.metrics(), None)[metric]
        return 100 * found if isinstance(found, float) else float("nan")

    def flipped(
        self,
        evaluation: Evaluation,  # noqa: ARG002
        answered: Tensor,  # noqa: ARG002
        thresholds: Sequence[float] | None,  # noqa: ARG002
        asked: Sequence[str],  # noqa: ARG002
    ) -> Iterator[tuple[int, str, str, float]]:
        yield from ()


def spread(assembly: Assembly) -> Tensor:
    """float32 `[C]`: the standard deviation of the training targets; 1 where it is 0."""
    targets = target_tensor(assembly.data.train.targets, assembly.spec)
    found = targets.double().std(0, correction=0).float()
    return torch.where(found > 0, found, 1.0)


JUDGING: Mapping[TargetForm, Judging] = {"index": _OfClasses(), "set": _OfClasses(), "number": _OfNumbers()}


def flips_of(
    evaluation: Evaluation,
    answered: Tensor,
    thresholds: Sequence[float] | None,
    *,
    assembly: Assembly,
    ids: Sequence[str],
    finite: Tensor,
    limits: Limits,
) -> Iterator[Flip]:
    """Every prediction that flipped, but for items whose answer is not finite."""
    found = JUDGING[assembly.spec.targets].flipped(evaluation, answered, thresholds, assembly.spec.classes)
    for row, trained, exported, margin in found:
        if finite[row]:
            yield Flip(ids[row], trained, exported, margin, margin <= limits.tie)
