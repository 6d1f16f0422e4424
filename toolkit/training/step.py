"""The training step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.contracts import Batch
from toolkit.api.errors import RunFailed
from toolkit.training.finite import require_finite
from toolkit.training.state import Setup, State

CHECKS_EVERY = 50
"""Steps between two looks at a CUDA device's non-finite flag: a look waits for the device."""


def train_step(state: State, setup: Setup, batch: Batch) -> Tensor:
    """Take one optimizer step on a batch and return its mean loss, a scalar on the device.

    Raises RunFailed, before the weights change, where the loss is not finite. On CUDA nothing here waits for the
    device: a flag there is set, which fused optimizers obey, and the host looks at it every `CHECKS_EVERY` steps.
    """
    state.optimizer.zero_grad(set_to_none=True)
    forward = Forward(state.network, setup.autocast)
    loss = torch.zeros((), device=batch.pixels.device)
    # Each part is divided by what the whole batch weighs, so the number of parts changes nothing but sums of floats.
    parts = min(setup.accumulate, len(batch.pixels))
    weight = loss_weight(setup, batch.targets)
    for pixels, targets in zip(batch.pixels.tensor_split(parts), batch.targets.tensor_split(parts), strict=True):
        part = summed_loss(setup, forward(pixels), targets) / weight
        state.scaler.scale(part).backward()
        loss += part.detach()
    state.totals.flag(loss, state.step)
    if state.checked_late:
        state.optimizer.found_inf = (state.totals.failed_at >= 0).float()  # type: ignore[attr-defined]
    if not state.checked_late or (state.step + 1) % CHECKS_EVERY == 0:
        require_finite(state, setup)
    if setup.clip_norm is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.network.parameters(), setup.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average:
        state.average.update()
    state.totals.add(loss, len(batch.index))
    return loss


@dataclass(frozen=True)
class Forward:
    """Asks a network for float32 logits, in the precision of the run."""

    network: nn.Module
    autocast: Callable[[], AbstractContextManager[None]]

    def __call__(self, pixels: Tensor) -> Tensor:
        try:
            with self.autocast():
                logits: Tensor = self.network(pixels)
        except ValueError as error:
            if len(pixels) > 1:
                raise
            # Batch norm has no spread to divide by.
            raise RunFailed(
                f"the model cannot be trained on one item at a time: {error}",
                next_step="use larger batches (--set train.batch=...) or fewer parts (--set train.accumulate=...)",
            ) from error
        return logits.float()


def loss_weight(setup: Setup, targets: Tensor) -> Tensor | int:
    """What a sum of losses is divided by: the weights of the items' classes, or where targets are shares of classes
    the number of items, as in torch's own mean. No weight at all makes the loss 0."""
    weights = setup.class_weights
    if weights is None or targets.is_floating_point():
        return len(targets)
    return weights[targets].sum().clamp(min=torch.finfo(weights.dtype).tiny)


def summed_loss(setup: Setup, logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(
        logits, targets, weight=setup.class_weights, reduction="sum", label_smoothing=setup.label_smoothing
    )
