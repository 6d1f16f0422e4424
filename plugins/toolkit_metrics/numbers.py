"""How far numbers are from their targets: in the unit of the targets, and as a share of their variance."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from toolkit.api.contracts import DataSpec, Scores
from toolkit_metrics.collected import Collected, Column
from toolkit_metrics.forms import require_form

Score = Callable[[Column, Column], Column]
"""One number for each output `[C]`, of answers and targets `[N, C]`."""


def mae(spec: DataSpec) -> OfNumbers:
    """Mean absolute error, in the unit of the targets: `mae`, the mean over outputs, and `mae_per_output`."""
    return OfNumbers("mae", spec, lambda answers, targets: np.abs(answers - targets).mean(axis=0))


def rmse(spec: DataSpec) -> OfNumbers:
    """Root of the mean squared error, in the unit of the targets: `rmse`, the mean over outputs, and
    `rmse_per_output`."""
    return OfNumbers("rmse", spec, lambda answers, targets: np.sqrt(((answers - targets) ** 2).mean(axis=0)))


def median_absolute_error(spec: DataSpec) -> OfNumbers:
    """Median absolute error, in the unit of the targets, which a few bad answers do not change:
    `median_absolute_error`, the mean over outputs, and `median_absolute_error_per_output`."""
    return OfNumbers(
        "median_absolute_error", spec, lambda answers, targets: np.median(np.abs(answers - targets), axis=0)
    )


def r2(spec: DataSpec) -> OfNumbers:
    """Share of the variance of the targets that answers explain: `r2`, the mean over outputs, and `r2_per_output`.

    1 is perfect, 0 as good as always answering the mean of these targets, below 0 worse. NaN where all targets of an
    output are the same.
    """
    return OfNumbers("r2", spec, _explained)


def _explained(answers: Column, targets: Column) -> Column:
    missed = ((answers - targets) ** 2).sum(axis=0)
    varied = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
    explained: Column = np.where(varied > 0, 1 - missed / np.where(varied > 0, varied, 1), math.nan)
    return explained


class OfNumbers:
    """One score for each output, and their mean."""

    def __init__(self, name: str, spec: DataSpec, score: Score) -> None:
        require_form(spec, name, "number")
        self._name = name
        self._outputs = len(spec.classes)
        self._score = score
        self._answers = Collected()

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self._answers.add(logits, targets)

    def compute(self) -> Scores:
        answers, targets = (column.astype(np.float64) for column in self._answers.columns())
        per_output = self._score(answers, targets) if len(targets) else np.full(self._outputs, math.nan)
        return {self._name: float(per_output.mean()), f"{self._name}_per_output": per_output.tolist()}
