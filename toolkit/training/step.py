"""The training step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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
    forward = Asked(state.network, setup.autocast)
    loss = torch.zeros((), device=batch.pixels.device)
    # Each part is divided by what the whole batch weighs, so the number of parts changes nothing but sums of floats.
    parts = min(setup.accumulate, len(batch.pixels))
    weight = state.objective.weight(batch.targets)
    for pixels, targets in zip(batch.pixels.tensor_split(parts), batch.targets.tensor_split(parts), strict=True):
        part = state.objective.loss(forward, pixels, targets) / weight
        state.scaler.scale(part).backward()
        loss += part.detach()
    state.totals.flag(loss, state.step)
    if state.checked_late:
        state.optimizer.found_inf = (state.totals.failed_at >= 0).float()  # type: ignore[attr-defined]
    if not state.checked_late or (state.step + 1) % CHECKS_EVERY == 0:
        require_finite(state, setup)
    if setup.clip_norm is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.parameters(), setup.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average:
        state.average.update()
    state.totals.add(loss, len(batch.index))
    return loss


@dataclass(frozen=True)
class Asked:
    """The network in training, asked by its objective: `toolkit.api.contracts.Forward`."""

    trained: nn.Module
    autocast: Callable[[], AbstractContextManager[None]]

    def __call__(self, pixels: Tensor, network: nn.Module | None = None) -> Tensor:
        try:
            with self.autocast():
                logits: Tensor = (network or self.trained)(pixels)
        except ValueError as error:
            if len(pixels) > 1:
                raise
            # Batch norm has no spread to divide by.
            raise RunFailed(
                f"the model cannot be trained on one item at a time: {error}",
                next_step="use larger batches (--set train.batch=...) or fewer parts (--set train.accumulate=...)",
            ) from error
        return logits.float()
