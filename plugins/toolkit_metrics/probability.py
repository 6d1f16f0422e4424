"""How good the probabilities are: log loss and calibration. Both are NaN where a logit is not finite."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor

from toolkit.api.contracts import DataSpec, Scores
from toolkit_metrics.collected import Collected, Column
from toolkit_metrics.forms import require_form


def log_loss(spec: DataSpec) -> LogLoss:
    """`log_loss`: mean over samples of -ln(probability of the target), in nats.

    A probability below 2.2e-16 counts as that, as scikit-learn has it.
    """
    require_form(spec, "log_loss", "index")
    if len(spec.classes) < 2:
        raise ValueError(f"log_loss: needs at least 2 classes, the data has {len(spec.classes)}")
    return LogLoss()


def calibration(spec: DataSpec, *, bins: Annotated[int, Field(ge=1)] = 15) -> Calibration:
    """How far confidence (the largest probability) can be taken for the chance of being right (arXiv 1706.04599).

    `ece` is the expected calibration error, 0..1: the mean gap between confidence and accuracy over bins of
    confidence, weighted by share. `calibration_confidence`, `calibration_accuracy` and `calibration_share` give the
    reliability curve, one number a bin; mean confidence and accuracy of an empty bin are NaN.

    bins: how many equal intervals, each open on the left, cut confidence 0..1.
    """
    require_form(spec, "calibration", "index")
    return Calibration(bins)


class LogLoss:
    def __init__(self) -> None:
        self._logits = Collected()

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self._logits.add(logits, targets)

    def compute(self) -> Scores:
        logits, targets = self._logits.columns()
        if not len(targets) or not np.isfinite(logits).all():
            return {"log_loss": math.nan}
        found = _softmax(logits.astype(np.float64))[np.arange(len(targets)), targets]
        return {"log_loss": float(-np.log(np.maximum(found, np.finfo(np.float64).eps)).mean())}


def _softmax(logits: Column) -> Column:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Column = powers / powers.sum(axis=1, keepdims=True)
    return shares


class Calibration:
    def __init__(self, bins: int) -> None:
        self._bins = bins
        self._confidence = Collected()

    def update(self, logits: Tensor, targets: Tensor) -> None:
        confidence, predicted = logits.detach().softmax(dim=1).max(dim=1)
        self._confidence.add(confidence, predicted == targets)

    def compute(self) -> Scores:
        confidence, right = self._confidence.columns()
        if not np.isfinite(confidence).all():
            confidence, right = confidence[:0], right[:0]
        place = np.clip(np.ceil(confidence * self._bins).astype(int) - 1, 0, self._bins - 1)
        count = np.bincount(place, minlength=self._bins)
        filled = np.where(count, count, math.nan)
        mean_confidence = np.bincount(place, confidence, self._bins) / filled
        mean_accuracy = np.bincount(place, right, self._bins) / filled
        share = count / max(1, len(place))
        gap = np.nansum(share * np.abs(mean_accuracy - mean_confidence))
        return {
            "ece": float(gap) if len(place) else math.nan,
            "calibration_confidence": mean_confidence.tolist(),
            "calibration_accuracy": mean_accuracy.tolist(),
            "calibration_share": share.tolist(),
        }
