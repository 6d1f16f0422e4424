"""A network divided over ranks by torch's FSDP2, for models whose training fits no single device.

Each rank keeps its shard of each weight, of its gradient and of the optimizer's state. Before a block of the network is
computed, its weights are gathered. A checkpoint holds whole tensors, so it does not show how it was trained.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from toolkit.api.contracts import Batch
from toolkit.api.errors import RunFailed
from toolkit.system.ranks import Ranks

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

T = TypeVar("T")

BLOCK = 1 << 20
"""Weights of the smallest block that is gathered by itself: less would cost more messages than it saves memory."""


def shard(network: nn.Module, device: torch.device, ranks: Ranks) -> None:
    """Divide the weights of `network` over all ranks, in place, and from here on gather those of one block at a time.

    A block is an element of a Sequential or a ModuleList. Raises RunFailed for weights that cannot be divided.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if scalars := [name for name, weight in network.named_parameters() if not weight.ndim]:
        raise RunFailed(
            f"train.strategy: fsdp cannot divide weights without a dimension: {', '.join(scalars)}",
            next_step="use --set train.strategy=ddp",
        )
    for weight in network.parameters():
        weight.data = weight.data.contiguous()  # FSDP2 knows no other layout; the pixels keep theirs
    mesh = init_device_mesh(device.type, (ranks.count,))
    for block in [*blocks(network), network]:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)


def blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks of at least `BLOCK` weights, inner ones first; what an inner one holds does not count for others."""
    found: list[nn.Module] = []

    def visit(module: nn.Module) -> int:
        """Finds blocks below, and returns the number of weights that none of them holds."""
        count = sum(weight.numel() for weight in module.parameters(recurse=False))
        for child in module.children():
            left = visit(child)
            is_block = isinstance(module, nn.Sequential | nn.ModuleList) and not isinstance(child, nn.ModuleList)
            if is_block and left >= BLOCK:
                found.append(child)
            else:
                count += left
        return count

    visit(network)
    return found


def is_sharded(network: nn.Module) -> bool:
    fsdp = sys.modules.get("torch.distributed.fsdp")  # imported by `shard`
    return fsdp is not None and isinstance(network, fsdp.FSDPModule)


def whole(values: T) -> T:
    """Dictionaries and lists with each divided tensor whole, on the CPU. All ranks gather them together."""
    if not any(_is_divided(value) for value in pytree.tree_leaves(values)):
        return values
    gathered: T = pytree.tree_map(lambda value: value.full_tensor().cpu() if _is_divided(value) else value, values)
    return gathered


def divided(value: Any, like: Tensor) -> Any:
    """The shard of a whole tensor that this rank has of `like`; other values as they are."""
    if not _is_divided(like) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    """The memory of this rank's shard of a divided tensor; other tensors as they are."""
    return tensor.to_local() if _is_divided(tensor) else tensor


def load(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """`load_state_dict` of whole tensors."""
    if not is_sharded(network):
        network.load_state_dict(weights)
        return
    own = network.state_dict()
    network.load_state_dict({name: divided(value, own.get(name, value)) for name, value in weights.items()})


def step_apart(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer of divided weights step each by itself: torch has no fused kernel of SGD for them."""
    for group in optimizer.param_groups:
        if group.get("fused"):
            group["fused"] = False


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """`load_state_dict` of whole tensors. How steps are computed stays as it is here."""
    fused = [group.get("fused") for group in optimizer.param_groups]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state = {
        number: {key: divided(value, weights[number]) for key, value in values.items()}
        for number, values in saved["state"].items()
    }
    optimizer.load_state_dict({**saved, "state": state})
    for group, own in zip(optimizer.param_groups, fused, strict=True):
        if "fused" in group:
            group["fused"] = own


def in_step(batches: Iterable[Batch], ranks: Ranks) -> Iterator[Batch]:
    """This rank's batches, and as long as another rank has more, batches of zeros: all ranks gather weights together.
    A batch of zeros has no index. Batches without items become such batches."""
    remaining = iter(batches)
    while True:
        batch = next(remaining, None)
        shapes = ranks.gather(None if batch is None else (batch.pixels.shape, batch.pixels.device.type))
        found = [shape for shape in shapes if shape is not None]
        if not found:
            return
        if batch is None or not len(batch.index):
            shape, kind = found[0]
            pixels = torch.zeros((1, *shape[1:]), dtype=torch.uint8, device=kind)
            batch = Batch(pixels, torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        yield batch


def _is_divided(value: Any) -> TypeGuard[DTensor]:
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(value, tensors.DTensor)
