"""Stateless randomness: every draw comes from a seed made of where it happens, never from what happened before.

The order of an epoch comes from (seed, epoch), what an augmentation draws for an item from (seed, epoch, item, place):
see `toolkit.system.draws`. So loaders may work in any order on any number of threads, and resuming at any step needs no
generator's state.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def derive(seed: int, *place: int | str) -> int:
    """A 63-bit seed for one place (`"order", 3`, say); unlike places give unrelated seeds."""
    text = "/".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def order(count: int, seed: int, epoch: int) -> Tensor:
    """The order in which epoch `epoch` visits `count` items: int64 `[count]` on the CPU."""
    import torch

    return torch.randperm(count, generator=torch.Generator().manual_seed(derive(seed, "order", epoch)))


def seed_globally(device: torch.device, seed: int, *place: int | str) -> None:
    """Seed torch's global generators, which dropout draws from: that of the CPU and, where `device` is one, CUDA's.

    `torch.manual_seed` writes down the whole call stack for each kind of device that is not in use: a millisecond.
    """
    import torch

    number = derive(seed, *place)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(number)
