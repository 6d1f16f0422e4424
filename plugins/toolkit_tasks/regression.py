"""Numbers an item: the distance between an answer and its target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.contracts import DataSpec, Forward, TargetForm

Loss = Literal["mse", "l1", "smooth_l1", "huber"]


def regression(
    spec: DataSpec,
    *,
    targets: Sequence[Sequence[float]] = (),
    loss: Loss = "mse",
    delta: Annotated[float, Field(gt=0)] = 1.0,
    standardise: bool = True,
) -> Regression:
    """Each item has numbers, one for each output: the network learns the numbers themselves.

    loss: `mse`: squared difference, answers near the mean; `l1`: absolute difference, answers near the median, robust
      to outliers; `huber`: squared up to `delta`, absolute beyond; `smooth_l1`: the same, divided by `delta`.
    delta: where `huber` and `smooth_l1` change from squared to absolute, in units of the loss.
    standardise: whether the network learns each output in standard deviations from the mean of the training split, so
      that a learning rate suits any unit; losses are then in standard deviations. Answers are in the unit of the data.
    """
    outputs = len(spec.classes)
    known = torch.tensor(targets, dtype=torch.float64).reshape(-1, outputs)
    if not standardise or not len(known):
        return Regression(torch.zeros(outputs), torch.ones(outputs), loss, delta)
    spread = known.std(0, correction=0)
    # A constant output has no spread to divide by.
    return Regression(known.mean(0).float(), torch.where(spread > 0, spread, 1.0).float(), loss, delta)


class Regression(nn.Module):
    """A loss of differences, the mean over outputs; targets are float32 `[B, C]`."""

    targets: TargetForm = "number"
    thresholds = None
    mean: Tensor
    spread: Tensor

    def __init__(self, mean: Tensor, spread: Tensor, loss: Loss, delta: float) -> None:
        super().__init__()
        self.kind = loss
        self.delta = delta
        # Saved with the weights, which mean nothing in another unit.
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)

    def loss(self, forward: Forward, pixels: Tensor, targets: Tensor) -> Tensor:
        return self._losses(forward(pixels), (targets - self.mean) / self.spread).mean(1).sum()

    def weight(self, targets: Tensor) -> int:
        return len(targets)

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self._losses((logits - self.mean) / self.spread, (targets - self.mean) / self.spread).mean()

    def logits(self, outputs: Tensor) -> Tensor:
        return outputs * self.spread + self.mean

    def settle(self, logits: Tensor, targets: Tensor) -> None:
        """Nothing to choose: the number is the answer."""

    def _losses(self, answers: Tensor, targets: Tensor) -> Tensor:
        """float32 `[B, C]`."""
        match self.kind:
            case "mse":
                return functional.mse_loss(answers, targets, reduction="none")
            case "l1":
                return functional.l1_loss(answers, targets, reduction="none")
            case "huber":
                return functional.huber_loss(answers, targets, reduction="none", delta=self.delta)
        return functional.smooth_l1_loss(answers, targets, reduction="none", beta=self.delta)
