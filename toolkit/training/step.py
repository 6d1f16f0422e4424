"""The training step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolkit.api.errors import RunFailed
from toolkit.data.loader import Share
from toolkit.training.finite import require_finite
from toolkit.training.state import Setup, State

CHECKS_EVERY = 50
"""Steps between two looks at a CUDA device's non-finite flag: a look waits for the device."""


def train_step(state: State, setup: Setup, share: Share) -> Tensor:
    """Take one optimizer step on a batch, of which this rank computes `share`, and return the batch's mean loss, a
    scalar on the device.

    Raises RunFailed, before the weights change, where the loss is not finite. On CUDA nothing here waits for the
    device: a flag there is set, which fused optimizers obey, and the host looks at it every `CHECKS_EVERY` steps.
    """
    state.optimizer.zero_grad(set_to_none=True)
    parallel = state.parallel
    forward = Asked(parallel.network(share), setup.autocast)
    loss = torch.zeros((), device=state.device)
    # Each part is divided by what the whole batch weighs, so the number of parts changes nothing but sums of floats.
    weight = parallel.weight(share)
    for pixels, targets in parallel.parts(share, setup.accumulate, (setup.seed, state.epoch, state.step)):
        part = state.objective.loss(forward, pixels, targets) / weight
        state.scaler.scale(part * parallel.scale).backward()
        loss += part.detach()
    loss = parallel.ranks.sum(loss)
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
    state.totals.add(loss, share.items)
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
