"""`train.batch = "auto"`: the largest batch that fits, chosen before a run is built and recorded as a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from toolkit.build.assemble import Assembly, assemble, training
from toolkit.build.kept import Kept
from toolkit.build.plan import Plan
from toolkit.data.loader import Share, target_tensor
from toolkit.system.device import synchronize
from toolkit.system.machine import memory_available
from toolkit.training.state import Setup, State
from toolkit.training.step import Asked, train_step

MOST: Mapping[str, int] = {"cuda": 1024, "cpu": 128}
"""Items of the largest batch that is chosen. A CPU computes no faster with more; a larger batch trains worse unless the
learning rate is tuned to it."""
STEPS = 16
"""Steps that an epoch keeps at least: few steps learn little."""
SHARE_OF_GPU = 0.9
"""Of its memory, which validation and augmentations need as well."""
TRANSIENT = 2
"""What a step takes on a CPU, as a multiple of the values that it keeps for the backward pass."""


def settled(planned: Plan, kept: Kept) -> Plan:
    """`planned` with a number as its batch. A power of two, chosen by trying steps on a GPU and by the memory that a
    small step takes on a CPU. `kept` keeps the data for the run that follows."""
    if planned.resolved.train.batch != "auto":
        return planned
    smallest = 2 * planned.resolved.train.accumulate
    assembly = assemble(with_batch(planned, smallest), kept, notes=())
    state, setup = training(assembly)
    size = _power_of_two(min(MOST[assembly.device.type], assembly.train.training_items // STEPS))
    if assembly.device.type == "cpu":
        size = min(size, _power_of_two(memory_available() // 2 // max(_bytes_of_one(assembly, state, setup), 1)))
    else:
        size = halved_until(partial(_fits, assembly, state, setup), size, smallest)
    return with_batch(planned, max(size, smallest))


def halved_until(fits: Callable[[int], bool], size: int, smallest: int) -> int:
    """The first of `size`, its half, and so on that fits; `smallest` is not tried."""
    while size > smallest and not fits(size):
        size //= 2
    return max(size, smallest)


def with_batch(planned: Plan, size: int) -> Plan:
    """`planned` with this batch, which a run records as changed from the recipe's file."""
    recipe = planned.resolved
    train = recipe.train.model_copy(update={"batch": size})
    resolved = recipe.model_copy(update={"train": train})
    return replace(planned, resolved=resolved, changed={**planned.changed, "train.batch": str(size)})


def _power_of_two(limit: int) -> int:
    """The largest one that is at most `limit`; 1 for a limit below 2."""
    return 1 << max(limit.bit_length() - 1, 0)


def _fits(assembly: Assembly, state: State, setup: Setup, size: int) -> bool:
    """Whether a GPU takes a training step of `size` items."""
    device = assembly.device
    torch.cuda.reset_peak_memory_stats(device)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        train_step(state, setup, _batch(assembly, size))
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

    batch = _batch(assembly, 2)
    state.network.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = state.objective.loss(Asked(state.network, setup.autocast), batch.pixels, batch.targets)
    del loss  # which held what was counted, so that no storage was counted twice
    return TRANSIENT * sum(found.values()) // 2 // setup.accumulate


def _batch(assembly: Assembly, size: int) -> Share:
    """So many items of noise."""
    spec = assembly.spec
    shape = (size, *(() if spec.frames is None else (spec.frames,)), 3, spec.size, spec.size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=assembly.device)
    targets = target_tensor([assembly.data.train.targets[0]] * size, spec).to(assembly.device)
    return Share.whole(pixels, targets)
