"""Losses and weights that are not finite: when it happened, at which rate, on which items."""

from __future__ import annotations

import torch

from toolkit.api.errors import RunFailed
from toolkit.training.state import Setup, State


def require_finite(state: State, setup: Setup) -> None:
    """Raise RunFailed if a loss of the epoch under way was not finite. Waits for the device."""
    step = int(state.totals.failed_at)
    if step < 0:
        return
    places = setup.train.places(setup.batch, seed=setup.seed, epoch=state.epoch, step=step)
    ids = setup.train.store.split.ids
    groups = zip(state.optimizer.param_groups, state.rates(setup, step), strict=True)
    rates = ", ".join(f"{group['name']} {rate:.3g}" for group, rate in groups)
    raise RunFailed(
        f"the loss is not finite at epoch {state.epoch + 1}, step {step + 1} of {setup.steps} (learning rate {rates}); "
        f"the batch: {', '.join(ids[place] for place in places.tolist())}",
        next_step="lower the rate (--set train.optimizer.lr=...), clip (--set train.clip_norm=1.0), or look at these "
        "items; the last checkpoint is untouched",
    )


def require_worth(state: State, setup: Setup) -> None:
    """Raise RunFailed unless `state` is worth saving. Waits for the device.

    A finite loss may have gradients that are not: then the weights become non-finite before any loss does.
    """
    require_finite(state, setup)
    if not torch.stack([parameter.isfinite().all() for parameter in state.parameters()]).all():
        raise RunFailed(
            f"weights became non-finite at epoch {state.epoch + 1}, step {state.step} of {setup.steps} (the loss was "
            "finite, a gradient was not)",
            next_step="lower the rate (--set train.optimizer.lr=...) or compute in full precision (--set "
            "train.precision=fp32); the last checkpoint is untouched",
        )
