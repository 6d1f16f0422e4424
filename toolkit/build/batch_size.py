"""`train.batch = "auto"`: the largest batch that fits, chosen before a run is built and recorded as a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from toolkit.build.assemble import Assembly, assemble, training, training_noise
from toolkit.build.kept import Kept
from toolkit.build.plan import Plan
from toolkit.system.device import choose_device, synchronize
from toolkit.system.draws import GROUP
from toolkit.system.machine import memory_available
from toolkit.system.ranks import ALONE, Ranks
from toolkit.training.asked import Asked
from toolkit.training.state import Setup, State
from toolkit.training.step import train_step

MOST: Mapping[str, int] = {"cuda": 1024, "cpu": 128}
"""Items of the largest batch that is chosen. A CPU computes no faster with more; a larger batch trains worse unless the
learning rate is tuned to it."""
STEPS = 16
"""Steps that an epoch keeps at least: few steps learn little."""
SHARE_OF_GPU = 0.9
"""Of its memory, which validation and augmentations need as well."""
TRANSIENT = 2
"""What a step takes on a CPU, as a multiple of the values that it keeps for the backward pass."""


def settled(planned: Plan, kept: Kept, ranks: Ranks = ALONE) -> Plan:
    """`planned` with a number as its batch. A power of two, chosen by trying steps on a GPU and by the memory that a
    small step takes on a CPU. Each of several ranks tries its share by itself; they agree on what all of them take.
    `kept` keeps the data for the run that follows."""
    if planned.resolved.train.batch != "auto":
        return planned
    least = 2 * planned.resolved.train.accumulate
    tried = with_batch(planned, least)
    if ranks.together:  # on the rank's own device, with data of its own: later batches are shared
        tried, kept = _on_device(tried, str(choose_device(planned.resolved.train.device, ranks))), Kept()
    assembly = assemble(tried, kept, notes=())
    state, setup = training(assembly)
    size = _power_of_two(min(MOST[assembly.device.type], assembly.train.training_items // STEPS))
    smallest = max(least, GROUP) * ranks.count if ranks.together else least
    if assembly.device.type == "cpu":
        free = memory_available() // 2 // ranks.local_count
        fitting = ranks.least(free // max(_bytes_of_one(assembly, state, setup), 1))
        size = min(size, _power_of_two(int(fitting) * ranks.count))
    else:
        size = halved_until(partial(_fits_all, assembly, state, setup, ranks), size, smallest)
    return with_batch(planned, max(size, smallest))


def _fits_all(assembly: Assembly, state: State, setup: Setup, ranks: Ranks, size: int) -> bool:
    """Whether each rank's device takes its share of a batch of `size` items."""
    return bool(ranks.least(_fits(assembly, state, setup, -(-size // ranks.count))))


def halved_until(fits: Callable[[int], bool], size: int, smallest: int) -> int:
    """The first of `size`, its half, and so on that fits; `smallest` is not tried."""
    while size > smallest and not fits(size):
        size //= 2
    return max(size, smallest)


def with_batch(planned: Plan, size: int) -> Plan:
    """`planned` with this batch, which a run records as changed from the recipe's file."""
    return replace(_with(planned, batch=size), changed={**planned.changed, "train.batch": str(size)})


def _on_device(planned: Plan, device: str) -> Plan:
    return _with(planned, device=device)


def _with(planned: Plan, **changes: Any) -> Plan:
    """`planned` with other values in its table `train`."""
    recipe = planned.resolved
    train = recipe.train.model_copy(update=changes)
    return replace(planned, resolved=recipe.model_copy(update={"train": train}))


def _power_of_two(limit: int) -> int:
    """The largest one that is at most `limit`; 1 for a limit below 2."""
    return 1 << max(limit.bit_length() - 1, 0)


def _fits(assembly: Assembly, state: State, setup: Setup, size: int) -> bool:
    """Whether a GPU takes a training step of `size` items."""
    device = assembly.device
    torch.cuda.reset_peak_memory_stats(device)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        train_step(state, setup, training_noise(assembly, size))
        synchronize(device)
        return torch.cuda.max_memory_reserved(device) <= SHARE_OF_GPU * free
    except torch.OutOfMemoryError:
        return False
    finally:
        state.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()


def _bytes_of_one(assembly: Assembly, state: State, setup: Setup) -> int:
    """Bytes that one more item of a batch takes in a training step."""
    weights = {one.untyped_storage().data_ptr() for one in state.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = training_noise(assembly, 2)
    state.network.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = state.objective.loss(Asked(state.network, setup.autocast), batch.pixels, batch.targets)
    del loss  # which held what was counted, so that no storage was counted twice
    return TRANSIENT * sum(found.values()) // 2 // setup.accumulate
