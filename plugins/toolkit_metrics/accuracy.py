"""Accuracy and top-k accuracy: hits counted on the device, read once at the end."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor

from toolkit.api.contracts import DataSpec, Scores
from toolkit_metrics.forms import require_form


def accuracy(spec: DataSpec) -> TopK | ExactSets:
    """Share (0..1) of samples that are answered rightly: `accuracy`. Where targets are sets, the whole set counts."""
    require_form(spec, "accuracy", "index", "set")
    return ExactSets() if spec.targets == "set" else TopK(1, "accuracy")


def top_k(spec: DataSpec, *, k: Annotated[int, Field(ge=1)] = 5) -> TopK:
    """Share (0..1) of samples whose target is among the k largest logits: `top_<k>_accuracy`.

    k: how many of the largest logits count; fewer than there are classes.
    """
    require_form(spec, "top_k", "index")
    if k >= len(spec.classes):
        raise ValueError(f"k: must be below the {len(spec.classes)} classes of the data, got {k}")
    return TopK(k, f"top_{k}_accuracy")


class TopK:
    def __init__(self, k: int, key: str) -> None:
        self._k = k
        self._key = key
        self._hits: Tensor | int = 0
        self._samples = 0

    def update(self, logits: Tensor, targets: Tensor) -> None:
        best = logits.detach().topk(self._k, dim=1).indices
        self._hits = self._hits + (best == targets[:, None]).sum()
        self._samples += len(targets)

    def compute(self) -> Scores:
        return {self._key: int(self._hits) / self._samples if self._samples else math.nan}


class ExactSets:
    """Counts the samples all of whose classes are right: those with a logit of at least 0 are the target's."""

    def __init__(self) -> None:
        self._hits: Tensor | int = 0
        self._samples = 0

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self._hits = self._hits + ((logits.detach() >= 0) == (targets > 0.5)).all(1).sum()
        self._samples += len(targets)

    def compute(self) -> Scores:
        return {"accuracy": int(self._hits) / self._samples if self._samples else math.nan}
