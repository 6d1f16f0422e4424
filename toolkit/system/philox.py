"""Philox4x32-10: 128 random bits that are a function of a counter and a key, with no state between them.

Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Words: TypeAlias = NDArray[np.uint64]
"""Values below 2^32."""
Key: TypeAlias = tuple[int, int]
"""Two words."""

BLOCK = 4
"""Words that one counter gives."""
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
BITS = 32
MASK = 0xFFFFFFFF
_BITS, _MASK = np.uint64(BITS), np.uint64(MASK)


def on_host(even: Words, odd: Words, key: Key) -> Words:
    """Words `[4, N]` of the N counters whose words 0 and 2 are `even`, and 1 and 3 `odd`, `[2, N]` each.

    The two multiplications of a round are one call: for a batch, calls cost more than what they compute.
    """
    multipliers, steps = _columns(key)
    odd = odd[::-1]
    for step in steps:
        product = even * multipliers
        even, odd = ((product >> _BITS) ^ odd ^ step)[::-1], product & _MASK
    return np.stack((even[0], odd[1], even[1], odd[0]))


def on_device(first: Tensor, second: Tensor, third: Tensor, fourth: Tensor, key: Key) -> Tensor:
    """The same words, int64 `[4, ...]`, from the four words of counters: int64 tensors that broadcast.

    The product of two words overflows int64, but its 64 bits are right.
    """
    for step, other_step in _schedule(key):
        product, other = first * MULTIPLIERS[0], third * MULTIPLIERS[1]
        first, third = (other >> BITS & MASK) ^ second ^ step, (product >> BITS & MASK) ^ fourth ^ other_step
        second, fourth = other & MASK, product & MASK
    return torch.stack(torch.broadcast_tensors(first, second, third, fourth))


def _schedule(key: Key) -> list[Key]:
    """The key of each round."""
    return [
        ((key[0] + number * KEY_STEPS[0]) & MASK, (key[1] + number * KEY_STEPS[1]) & MASK) for number in range(ROUNDS)
    ]


@lru_cache(maxsize=8)
def _columns(key: Key) -> tuple[Words, list[Words]]:
    """The multipliers and the keys of all rounds as columns `[2, 1]`, in the order that `on_host` needs them."""
    steps = [np.array([[other], [one]], np.uint64) for one, other in _schedule(key)]
    return np.array(MULTIPLIERS, np.uint64)[:, None], steps
