"""Random numbers of a generator for code that draws from the global ones."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def global_draws_from(rng: torch.Generator) -> Iterator[None]:
    """Let what draws from Python's and NumPy's global generators, as timm does, draw by the state of `rng` for a while.

    Both are given back as they were. The state of a generator is known to the host, on whatever device it draws, so
    nothing waits for the device.
    """
    before = random.getstate(), np.random.get_state()
    seed = hashlib.sha256(rng.get_state().numpy().tobytes()).digest()
    random.seed(seed)
    np.random.seed(np.frombuffer(seed, np.uint32))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
