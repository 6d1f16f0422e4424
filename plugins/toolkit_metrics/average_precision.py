"""Average precision of each class, by scikit-learn."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from toolkit.api.contracts import DataSpec, Scores
from toolkit_metrics.collected import Collected
from toolkit_metrics.forms import require_form


def average_precision(spec: DataSpec) -> AveragePrecision:
    """How well each class ranks the samples that show it before the others, 0..1, whatever the thresholds:
    `average_precision_per_class`, and their mean `mean_average_precision`.

    Samples are ranked by their probability of the class. A class that no sample shows has no average precision: NaN,
    not part of the mean.
    """
    require_form(spec, "average_precision", "index", "set")
    return AveragePrecision(len(spec.classes), sets=spec.targets == "set")


class AveragePrecision:
    def __init__(self, classes: int, *, sets: bool) -> None:
        self._classes = classes
        self._sets = sets
        self._ranked = Collected()

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self._ranked.add(logits if self._sets else logits.log_softmax(1), targets)

    def compute(self) -> Scores:
        from sklearn import metrics

        ranks, targets = self._ranked.columns()
        per_class = [math.nan] * self._classes
        if len(targets) and np.isfinite(ranks).all():
            shown = targets > 0.5 if self._sets else targets[:, None] == np.arange(self._classes)
            for number in np.flatnonzero(shown.any(axis=0)):
                per_class[number] = float(metrics.average_precision_score(shown[:, number], ranks[:, number]))
        defined = [value for value in per_class if not math.isnan(value)]
        mean = sum(defined) / len(defined) if defined else math.nan
        return {"mean_average_precision": mean, "average_precision_per_class": per_class}
