"""How a bundle's answers are held against the trained model's, by the form of targets: here alone the form decides what
counts as a difference, as a flipped prediction, and as a worse score."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from toolkit.api.answers import NONE, label, named_classes
from toolkit.api.contracts import TargetForm
from toolkit.api.errors import counted
from toolkit.build.assemble import Assembly
from toolkit.data.loader import target_tensor
from toolkit.runs.significance import SIGNIFICANT, mcnemar
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
    """Whether that margin is one that the models' numerical difference explains."""
    worse: int
    """1 where the exported answer has more wrong, -1 where it has less."""

    def __str__(self) -> str:
        kind = " (a tie)" if self.tie else ""
        return f'{self.id}: "{self.trained}" became "{self.exported}", margin {self.margin:.4f}{kind}'


@dataclass(frozen=True)
class Paired:
    """The items that both models answered, pair by pair: how many the exported model answers worse, how many better.
    Where predictions can flip, these are the flips that are no ties."""

    worse: int
    better: int

    def __str__(self) -> str:
        return f"{counted(self.worse, 'item')} worse, {self.better} better, p = {self.p_value:.2g}"

    @property
    def p_value(self) -> float:
        """By the exact McNemar test: see `mcnemar`."""
        return mcnemar(self.worse, self.better)

    @property
    def significant(self) -> bool:
        """Whether the exported model is worse, beyond chance. One that no item shows to be worse or better is not
        judged by chance."""
        return self.worse + self.better == 0 or (self.worse > self.better and self.p_value < SIGNIFICANT)


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

    def flipped(self, asked: Asked) -> Iterator[tuple[int, Flip]]:
        """Each prediction that flipped, with its row."""

    def paired(self, asked: Asked, flips: Iterable[Flip]) -> Paired:
        """The items, pair by pair."""


@dataclass(frozen=True)
class Asked:
    """An exported model that was asked about the items of an evaluation."""

    evaluation: Evaluation
    answers: Tensor
    """float32 `[N, C]`: those of the exported model."""
    thresholds: Sequence[float] | None
    """The exported model's, where answers are sets of classes."""
    assembly: Assembly
    ids: Sequence[str]
    tie: float
    """Margin up to which a flip is a tie: not above the limit, and not above what numerical differences explain."""


class _OfClasses:
    differing, unit, points, flips = "a probability", "", "points", True

    def difference(self, trained: Tensor, answered: Tensor, assembly: Assembly) -> float:  # noqa: ARG002
        return float((trained - answered).abs().max())

    def hundredths(self, answered: Answered, scores: Mapping[str, float], assembly: Assembly) -> float:  # noqa: ARG002
        return 100 * scores[assembly.recipe.train.metric]

    def flipped(self, asked: Asked) -> Iterator[tuple[int, Flip]]:
        evaluation, names = asked.evaluation, asked.assembly.spec.classes
        limit = None if evaluation.thresholds is None else evaluation.thresholds.tolist()
        for row, (before, after) in enumerate(zip(evaluation.answers.tolist(), asked.answers.tolist(), strict=True)):
            first, other = named_classes(before, limit), named_classes(after, asked.thresholds)
            if first == other or not all(map(math.isfinite, after)):
                continue
            if limit is None:
                margin = before[first[0]] - before[other[0]]
            else:
                margin = max(abs(before[number] - limit[number]) for number in {*first} ^ {*other})
            right = _classes_of(evaluation.targets[row])
            worse = len({*other} ^ right) - len({*first} ^ right)
            trained, exported = (label(names, numbers) or NONE for numbers in (first, other))
            effect = (worse > 0) - (worse < 0)
            yield row, Flip(asked.ids[row], trained, exported, margin, margin <= asked.tie, effect)

    def paired(self, asked: Asked, flips: Iterable[Flip]) -> Paired:
        """By the flips that are no ties; for the loss, which no flip explains, by how far probabilities are from 1 and
        0."""
        if asked.assembly.recipe.train.metric == LOSS:
            targets = asked.evaluation.targets
            wanted = one_hot(targets, asked.answers.shape[1]) if targets.ndim == 1 else targets
            return _paired_by_error(asked, wanted, torch.tensor(1.0))
        effects = [flip.worse for flip in flips if not flip.tie]
        return Paired(effects.count(1), effects.count(-1))


def _classes_of(target: Tensor) -> set[int]:
    return {int(target)} if target.ndim == 0 else {*target.nonzero().flatten().tolist()}


def _paired_by_error(asked: Asked, targets: Tensor, scale: Tensor) -> Paired:
    before, after = (((one - targets) / scale).abs().mean(1) for one in (asked.evaluation.answers, asked.answers))
    return Paired(int((after > before).sum()), int((after < before).sum()))


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

    def flipped(self, asked: Asked) -> Iterator[tuple[int, Flip]]:  # noqa: ARG002
        yield from ()

    def paired(self, asked: Asked, flips: Iterable[Flip]) -> Paired:  # noqa: ARG002
        """By the mean error of an item's numbers, in spreads."""
        return _paired_by_error(asked, asked.evaluation.targets, spread(asked.assembly))


def spread(assembly: Assembly) -> Tensor:
    """float32 `[C]`: the standard deviation of the training targets; 1 where it is 0."""
    targets = target_tensor(assembly.data.train.targets, assembly.spec)
    found = targets.double().std(0, correction=0).float()
    return torch.where(found > 0, found, 1.0)


JUDGING: Mapping[TargetForm, Judging] = {"index": _OfClasses(), "set": _OfClasses(), "number": _OfNumbers()}
