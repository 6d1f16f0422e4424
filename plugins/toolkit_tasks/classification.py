"""One class an item: softmax and cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.contracts import DataSpec, Forward, TargetForm

NonNegative = Annotated[float, Field(ge=0)]


def classification(
    spec: DataSpec,
    *,
    targets: Sequence[int] = (),
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    class_weights: Literal["none", "balanced"] | Sequence[NonNegative] = "none",
) -> Classification:
    """Each item shows one class: softmax, cross-entropy.

    label_smoothing: share of a target that is spread over all classes.
    class_weights: how much an item counts in the loss, by its class; `balanced`: inverse to the class's share of items.
    """
    weights: Tensor | None = None
    if class_weights == "balanced":
        weights = balanced(targets, len(spec.classes))
    elif not isinstance(class_weights, str):
        weights = torch.tensor(class_weights)
        if len(weights) != len(spec.classes):
            raise ValueError(f"class_weights: has {len(weights)} weights for {len(spec.classes)} classes")
    return Classification(label_smoothing, weights)


def balanced(targets: Sequence[int], classes: int) -> Tensor:
    """float32 `[C]`: a weight for each class, inverse to its number of items; 0 for one without."""
    counts = torch.bincount(torch.from_numpy(np.array(targets, dtype=np.int64)), minlength=classes)
    return torch.where(counts > 0, len(targets) / (classes * counts), 0)


class Classification(nn.Module):
    """Cross-entropy of softmax; targets are int64 `[B]`, or float32 `[B, C]` of shares of classes."""

    targets: TargetForm = "index"
    thresholds = None
    class_weights: Tensor | None

    def __init__(self, label_smoothing: float, class_weights: Tensor | None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        # Made of the recipe and the data, so there is nothing to save.
        self.register_buffer("class_weights", class_weights, persistent=False)

    def loss(self, forward: Forward, pixels: Tensor, targets: Tensor) -> Tensor:
        return self.of_logits(forward(pixels), targets)

    def of_logits(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits `[B, C]`, summed over the items."""
        return functional.cross_entropy(
            logits,
            targets,
            weight=self.class_weights,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )

    def weight(self, targets: Tensor) -> Tensor | int:
        """The weights of the items' classes, or where targets are shares of classes the number of items, as in torch's
        own mean. No weight at all makes the loss 0."""
        if self.class_weights is None or targets.is_floating_point():
            return len(targets)
        return self.class_weights[targets].sum().clamp(min=torch.finfo(self.class_weights.dtype).tiny)

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets)

    def logits(self, outputs: Tensor) -> Tensor:
        return outputs

    def settle(self, logits: Tensor, targets: Tensor) -> None:
        """Nothing to choose: the likeliest class is the answer."""
