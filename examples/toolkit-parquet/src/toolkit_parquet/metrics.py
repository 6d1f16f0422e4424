"""Metrics of torchmetrics. Answers are gathered and scored at once, so batches and their order change nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from toolkit.api.contracts import DataSpec, Scores
from torch import Tensor
from torchmetrics.functional import classification

Score: TypeAlias = Callable[[Tensor, Tensor], Scores]
"""Scores of N >= 1 answers: probabilities float `[N, C]` and targets int64 `[N]`, on the CPU."""


def cohen_kappa(spec: DataSpec, *, weights: Literal["linear", "quadratic"] | None = None) -> Gathered:
    """`cohen_kappa`: how far answers and targets agree beyond chance, 1 at most, 0 where they agree by chance.

    weights: let an error count by how far apart the two classes stand, or by the square of that, for classes that are
        in order; unset: all errors count alike
    """
    count = _several(spec, "cohen_kappa")

    def score(probabilities: Tensor, targets: Tensor) -> Scores:
        found = classification.multiclass_cohen_kappa(probabilities, targets, count, weights=weights)
        return {"cohen_kappa": float(found)}

    return Gathered(score, {"cohen_kappa": math.nan})


def matthews_corrcoef(spec: DataSpec) -> Gathered:
    """`matthews_corrcoef`: correlation of answers and targets over all classes, 1 at most, 0 if unrelated."""
    count = _several(spec, "matthews_corrcoef")

    def score(probabilities: Tensor, targets: Tensor) -> Scores:
        found = classification.multiclass_matthews_corrcoef(probabilities, targets, count)
        return {"matthews_corrcoef": float(found)}

    return Gathered(score, {"matthews_corrcoef": math.nan})


def auroc(spec: DataSpec) -> Gathered:
    """`auroc_macro` and `auroc_per_class`: the chance that an item of a class is given a greater probability of it than
    an item of the others is, 0..1. A class that has no item, or all of them, has no score and does not count."""
    count = _several(spec, "auroc")

    def score(probabilities: Tensor, targets: Tensor) -> Scores:
        per_class = [_one_against_rest(probabilities[:, target], targets == target) for target in range(count)]
        defined = [one for one in per_class if not math.isnan(one)]
        return {
            "auroc_macro": sum(defined) / len(defined) if defined else math.nan,
            "auroc_per_class": per_class,
        }

    return Gathered(score, {"auroc_macro": math.nan, "auroc_per_class": [math.nan] * count})


class Gathered:
    """Probabilities and targets, kept on the device they came from until a score is asked for."""

    def __init__(self, score: Score, of_nothing: Scores) -> None:
        self._score = score
        self._of_nothing = of_nothing
        self._answers: list[tuple[Tensor, Tensor]] = []

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Take logits `[B, C]` and targets `[B]`."""
        self._answers.append((logits.detach().softmax(dim=1), targets.clone()))

    def compute(self) -> Scores:
        """The scores over all that was taken."""
        if not self._answers:
            return self._of_nothing
        probabilities, targets = (torch.cat(column).cpu() for column in zip(*self._answers, strict=True))
        return self._score(probabilities, targets)


def _one_against_rest(probabilities: Tensor, belongs: Tensor) -> float:
    if belongs.all() or not belongs.any():
        return math.nan
    return float(classification.binary_auroc(probabilities, belongs.long()))


def _several(spec: DataSpec, name: str) -> int:
    if len(spec.classes) < 2:
        raise ValueError(f"{name}: needs at least 2 classes, the data has {len(spec.classes)}")
    return len(spec.classes)
