"""What a component does to the process that it shares: draws from global generators, waits for the GPU."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class GlobalStates:
    """What Python's, NumPy's and torch's global generators would draw next."""

    python: Any
    numpy: Any
    torch: Tensor

    @classmethod
    def now(cls) -> GlobalStates:
        """As they are at this moment."""
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state())

    def restore(self) -> None:
        """Bring the generators back to these states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)

    def used(self) -> Iterator[str]:
        """Whose generator was used or seeded since."""
        now = GlobalStates.now()
        if not torch.equal(now.torch, self.torch):
            yield "torch's"
        if not all(np.array_equal(one, other) for one, other in zip(now.numpy, self.numpy, strict=True)):
            yield "NumPy's"
        if now.python != self.python:
            yield "Python's"


@contextmanager
def no_waiting() -> Iterator[None]:
    """Whatever waits for the CUDA device meanwhile raises RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        # torch says once that it does not find all that waits: what it finds is enough to be shown.
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
