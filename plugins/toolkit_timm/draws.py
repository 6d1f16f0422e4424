"""Random numbers of an item for code that draws from global generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def global_draws_given_back() -> Iterator[None]:
    """Python's and NumPy's global generators, from which timm draws, are as before at the end."""
    before = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def seed_global_draws(seed: int) -> None:
    """Let timm draw by `seed`, of 63 bits, from here on."""
    random.seed(seed)
    np.random.seed([seed >> 32, seed & 0xFFFFFFFF])
