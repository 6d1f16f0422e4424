"""Precision, recall, F1 and the confusion matrix, as scikit-learn's, from the class with the largest logit.

scikit-learn itself would take two seconds to be imported, and milliseconds of every epoch to check its arguments.

A class that never occurs among the targets has no score: NaN in the per-class list, left out of the macro mean, no
weight in the weighted one. A class that occurs but is never predicted has precision 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from toolkit.contracts import DataSpec, Scores
from toolkit_metrics.collected import Collected, Column


def precision(spec: DataSpec) -> PerClass:
    """`precision_macro`, `precision_weighted` (by a class's share of the targets) and `precision_per_class`, 0..1."""
    return PerClass("precision", _precision, len(spec.classes))


def recall(spec: DataSpec) -> PerClass:
    """`recall_macro`, `recall_weighted` (by a class's share of the targets) and `recall_per_class`, 0..1."""
    return PerClass("recall", _recall, len(spec.classes))


def f1(spec: DataSpec) -> PerClass:
    """`f1_macro`, `f1_weighted` (by a class's share of the targets) and `f1_per_class`, 0..1."""
    return PerClass("f1", _f1, len(spec.classes))


def confusion_matrix(spec: DataSpec) -> ConfusionMatrix:
    """`confusion_matrix`: how many samples of each target (row) were predicted as each class (column)."""
    return ConfusionMatrix(len(spec.classes))


class PerClass:
    """One score of every class, and its two means."""

    def __init__(self, name: str, score: Callable[[Column], Column], classes: int) -> None:
        self._name, self._score = name, score
        self._classes = classes
        self._predicted = Collected()

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self._predicted.add(logits.argmax(dim=1), targets)

    def compute(self) -> Scores:
        counts = _counts(self._predicted, self._classes)
        occurring = counts.sum(axis=1)
        present = occurring > 0
        if not present.any():
            return self._scores(math.nan, math.nan, [math.nan] * self._classes)
        per_class = np.where(present, self._score(counts), math.nan)
        weighted = np.average(per_class[present], weights=occurring[present])
        return self._scores(float(per_class[present].mean()), float(weighted), per_class.tolist())

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
        return {"confusion_matrix": _counts(self._predicted, self._classes).tolist()}


def _counts(predicted: Collected, classes: int) -> Column:
    """How many samples of each target (row) were predicted as each class (column)."""
    columns, rows = predicted.columns()
    places = (rows * classes + columns).astype(np.int64)
    return np.bincount(places, minlength=classes * classes).reshape(classes, classes)


def _precision(counts: Column) -> Column:
    return _ratio(counts.diagonal(), counts.sum(axis=0))


def _recall(counts: Column) -> Column:
    return _ratio(counts.diagonal(), counts.sum(axis=1))


def _f1(counts: Column) -> Column:
    return _ratio(2 * counts.diagonal(), counts.sum(axis=0) + counts.sum(axis=1))


def _ratio(part: Column, whole: Column) -> Column:
    """0 where the whole is."""
    return part / np.maximum(whole, 1)
