"""Precision, recall, F1 and the confusion matrix, by scikit-learn, from the class with the largest logit, or where
targets are sets, from all classes with a logit of at least 0.

A class that never occurs among the targets has no score: NaN in the per-class list, not part of the macro mean, no
weight in the weighted one. A class that occurs but is never predicted has precision 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from toolkit.api.contracts import DataSpec, Scores
from toolkit_metrics.collected import Collected
from toolkit_metrics.forms import require_form


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
    """One score of scikit-learn's, by its name there less `_score`."""

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
        present = np.flatnonzero(targets.any(axis=0)) if self._sets and targets.ndim == 2 else np.unique(targets)
        if not len(present):
            return self._scores(math.nan, math.nan, [math.nan] * self._classes)
        score = _score_of_sklearn(self._name)
        found = score(targets, predicted, labels=present, average=None, zero_division=0.0)
        per_class = np.full(self._classes, math.nan)
        per_class[present] = found
        # as scikit-learn averages, without counting twice more
        counts = targets.sum(axis=0)[present] if self._sets else np.unique(targets, return_counts=True)[1]
        return self._scores(float(np.average(found)), float(np.average(found, weights=counts)), per_class.tolist())

    def _scores(self, macro: float, weighted: float, per_class: list[float]) -> Scores:
        return {
            f"{self._name}_macro": macro,
            f"{self._name}_weighted": weighted,
            f"{self._name}_per_class": per_class,
        }


def _score_of_sklearn(name: str) -> Callable[..., Any]:
    from sklearn import metrics

    score: Callable[..., Any] = getattr(metrics, f"{name}_score")
    return score


class ConfusionMatrix:
    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._predicted = Collected()

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self._predicted.add(logits.argmax(dim=1), targets)

    def compute(self) -> Scores:
        from sklearn import metrics

        predicted, targets = self._predicted.columns()
        if not len(targets):
            return {"confusion_matrix": np.zeros((self._classes, self._classes), dtype=int).tolist()}
        counts = metrics.confusion_matrix(targets, predicted, labels=np.arange(self._classes))
        return {"confusion_matrix": counts.tolist()}
