"""Precision, recall, F1 and the confusion matrix. An answer is the class with the largest logit, or where targets are
sets, all classes with a logit of at least 0.

A class that never occurs among the targets has no score: NaN in the per-class list, not part of the macro mean, no
weight in the weighted one. A class that occurs but is never predicted has precision 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from torch import Tensor

from toolkit.api.contracts import DataSpec, Scores
from toolkit_metrics.collected import Collected
from toolkit_metrics.forms import require_form

Counts = np.ndarray[Any, np.dtype[np.integer[Any]]]
RATIOS: Mapping[str, Callable[[Counts, Counts, Counts], tuple[Counts, Counts]]] = {
    "precision": lambda right, predicted, _: (right, predicted),
    "recall": lambda right, _, true: (right, true),
    "f1": lambda right, predicted, true: (2 * right, predicted + true),
}
"""Numerator and denominator of each score. scikit-learn gives the same numbers, but takes milliseconds to check its
input, and an interval needs a score twenty times."""


def precision(spec: DataSpec) -> PerClass:
    """`precision_macro`, `precision_weighted` (by a class's share of the targets) and `precision_per_class`, 0..1."""
    return PerClass("precision", spec)


def recall(spec: DataSpec) -> PerClass:
    """`recall_macro`, `recall_weighted` (by a class's share of the targets) and `recall_per_class`, 0..1."""
    return PerClass("recall", spec)


def f1(spec: DataSpec) -> PerClass:
    """`f1_macro`, `f1_weighted` (by a class's share of the targets) and `f1_per_class`, 0..1."""
    return PerClass("f1", spec)


def confusion_matrix(spec: DataSpec) -> ConfusionMatrix:
    """`confusion_matrix`: how many samples of each target (row) were predicted as each class (column)."""
    require_form(spec, "confusion_matrix", "index")
    return ConfusionMatrix(len(spec.classes))


class PerClass:
    """One score of each class, from how often it is right, is predicted and is true."""

    def __init__(self, name: str, spec: DataSpec) -> None:
        require_form(spec, name, "index", "set")
        self._name = name
        self._classes = len(spec.classes)
        self._sets = spec.targets == "set"
        self._predicted = Collected()

    def update(self, logits: Tensor, targets: Tensor) -> None:
        if self._sets:
            self._predicted.add((logits >= 0).byte(), (targets > 0.5).byte())
        else:
            self._predicted.add(logits.argmax(dim=1), targets)

    def compute(self) -> Scores:
        predicted, targets = self._predicted.columns()
        if not len(targets):
            return self._scores(math.nan, math.nan, [math.nan] * self._classes)
        right, predicted, true = self._counts(predicted, targets)
        present = true > 0
        if not present.any():
            return self._scores(math.nan, math.nan, [math.nan] * self._classes)
        hits, possible = RATIOS[self._name](right[present], predicted[present], true[present])
        found = np.divide(hits, possible, out=np.zeros(len(hits)), where=possible > 0)
        per_class = np.full(self._classes, math.nan)
        per_class[present] = found
        weighted = float(np.average(found, weights=true[present]))
        return self._scores(float(np.average(found)), weighted, per_class.tolist())

    def _counts(self, predicted: Counts, targets: Counts) -> list[Counts]:
        """For each class: items that are predicted and are it, that are predicted, that are it."""
        if self._sets:
            return [column.sum(axis=0, dtype=np.int64) for column in (predicted & targets, predicted, targets)]
        right = targets[predicted == targets]
        return [np.bincount(column, minlength=self._classes) for column in (right, predicted, targets)]

    def _scores(self, macro: float, weighted: float, per_class: list[float]) -> Scores:
        return {
            f"{self._name}_macro": macro,
            f"{self._name}_weighted": weighted,
            f"{self._name}_per_class": per_class,
        }


class ConfusionMatrix:
    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._predicted = Collected()

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self._predicted.add(logits.argmax(dim=1), targets)

    def compute(self) -> Scores:
        predicted, targets = self._predicted.columns()
        places = targets.astype(np.int64) * self._classes + predicted.astype(np.int64)
        counts = np.bincount(places, minlength=self._classes**2).reshape(self._classes, self._classes)
        return {"confusion_matrix": cast("list[list[float]]", counts.tolist())}
