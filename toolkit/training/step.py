"""The training step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toolkit.api.contracts import Batch
from toolkit.data.loader import Share
from toolkit.training.asked import Asked
from toolkit.training.finite import require_finite
from toolkit.training.parallel import Summed
from toolkit.training.state import Setup, State
from toolkit.training.taught import Taught

CHECKS_EVERY = 50
"""Steps between two looks at a CUDA device's non-finite flag: a look waits for the device."""


def train_step(state: State, setup: Setup, share: Share) -> Tensor:
    """Take one optimizer step on a batch, of which this rank computes `share`, and return the batch's mean loss, a
    float64 scalar on the device.

    Raises RunFailed, before the weights change, where the loss is not finite. On CUDA nothing here waits for the
    device: a flag there is set, which fused optimizers obey, and the host looks at it every `CHECKS_EVERY` steps.
    """
    state.optimizer.zero_grad(set_to_none=True)
    parallel = state.parallel
    computed = parallel.computed(share)
    loss = torch.zeros((), dtype=torch.float64, device=state.device)
    # Each part is divided by what the whole batch weighs, so the number of parts changes nothing but sums of floats.
    weight = parallel.weight(share)
    for part in parallel.parts(share, setup.accumulate, (setup.seed, state.epoch, state.step)):
        mean: Tensor = computed(summed_loss(state, setup, part)) / weight
        state.scaler.scale(mean * parallel.scale).backward()
        loss += mean.detach()
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


def summed_loss(state: State, setup: Setup, part: Batch) -> Summed:
    """From a network to its loss on a part of a batch, summed over the items."""
    known = setup.taught.known(part, state.epoch) if isinstance(setup.taught, Taught) else None
    return lambda network: state.objective.loss(Asked(network, setup.autocast, known), part.pixels, part.targets)
