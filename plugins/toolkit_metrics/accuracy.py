"""Accuracy and top-k accuracy: hits counted on the device, read once at the end."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor

from toolkit.api.contracts import DataSpec, Scores


def accuracy(spec: DataSpec) -> TopK:  # noqa: ARG001 - every factory takes the spec
    """Share (0..1) of samples whose largest logit is the target's: `accuracy`."""
    return TopK(1, "accuracy")


def top_k(spec: DataSpec, *, k: Annotated[int, Field(ge=1)] = 5) -> TopK:
    """Share (0..1) of samples whose target is among the k largest logits: `top_<k>_accuracy`.

    k: how many of the largest logits count; fewer than there are classes.
    """
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
