"""Pretraining without labels: two views of an item have one representation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.contracts import DataSpec, Forward, TargetForm
from toolkit.api.errors import RunFailed
from toolkit.transfer.vectors import vectors

Width = Annotated[int, Field(ge=1)]
SCORES: Mapping[TargetForm, Callable[[Tensor, Tensor], Tensor]] = {
    "index": functional.cross_entropy,
    "set": functional.binary_cross_entropy_with_logits,
    "number": functional.mse_loss,
}


def simsiam(
    spec: DataSpec,
    *,
    feature_size: int,
    width: Width = 2048,
    bottleneck: Width = 512,
    layers: Literal[2, 3] = 3,
) -> SimSiam:
    """No label is learned: augmented views of an item are to have one representation (X. Chen and K. He, arXiv
    2011.10566). The trained backbone is where another run starts.

    width: values of a representation, and of each hidden layer of the projector
    bottleneck: values of the hidden layer of the predictor
    layers: of the projector; the paper has 3 for ImageNet and 2 for CIFAR-10.
    """
    return SimSiam(spec, feature_size, width, bottleneck, layers)


class SimSiam(nn.Module):
    """Pixels are `[B, 2, 3, H, W]` or `[B, 2, T, 3, H, W]`. The loss of an item is 1 less the mean cosine between what
    is predicted of one view and the representation of the other, through which no gradient flows."""

    views = 2
    thresholds: Tensor | None

    def __init__(self, spec: DataSpec, feature_size: int, width: int, bottleneck: int, layers: int) -> None:
        super().__init__()
        self.targets: TargetForm = spec.targets
        self.classes = len(spec.classes)
        self.register_buffer("thresholds", torch.full((self.classes,), 0.5) if spec.targets == "set" else None)
        inputs = [feature_size, *[width] * (layers - 1)]
        hidden = [layer for size in inputs[:-1] for layer in (*_normed(size, width), nn.ReLU())]
        self.projector = nn.Sequential(*hidden, *_normed(inputs[-1], width, affine=False))
        self.predictor = nn.Sequential(*_normed(width, bottleneck), nn.ReLU(), nn.Linear(bottleneck, width))

    def loss(self, forward: Forward, pixels: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002 - no label is learned
        if len(pixels) == 1:
            raise RunFailed(
                "the task cannot learn from one item at a time, because batch norm compares items",
                next_step="use larger batches (--set train.batch=...) or fewer parts (--set train.accumulate=...)",
            )
        views = [pixels.select(1, view) for view in range(self.views)]
        shown = [forward(vectors(forward.features(view), len(view)), self.projector) for view in views]
        first, second = (forward(one, self.predictor) for one in shown)
        return (_distance(first, shown[1].detach()) + _distance(second, shown[0].detach())) / 2

    def weight(self, targets: Tensor) -> int:
        return len(targets)

    def projected(self, features: Tensor) -> Tensor:
        projected: Tensor = self.projector(features)
        return projected

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of the answers of neighbours: cross-entropy, or where targets are numbers the mean squared error."""
        return SCORES[self.targets](logits, targets)

    def logits(self, outputs: Tensor) -> Tensor:
        return outputs

    def settle(self, logits: Tensor, targets: Tensor) -> None:
        """Nothing to choose."""


def _normed(inputs: int, outputs: int, *, affine: bool = True) -> tuple[nn.Module, nn.Module]:
    """A linear layer and a batch norm, which always knows the batch at hand alone."""
    norm = nn.BatchNorm1d(outputs, affine=affine, track_running_stats=False)
    return nn.Linear(inputs, outputs, bias=False), norm


def _distance(predicted: Tensor, shown: Tensor) -> Tensor:
    """1 less the cosine, summed over the items."""
    return (1 - functional.cosine_similarity(predicted, shown, dim=1)).sum()
