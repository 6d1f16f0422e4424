"""Memory that ran out is recognized, of whatever library the error is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from toolkit.api.memory import lacks_memory

TOO_MUCH = 1 << 58


@pytest.mark.parametrize(
    "act",
    [
        lambda: np.empty(TOO_MUCH, np.uint8),
        lambda: torch.empty(TOO_MUCH, dtype=torch.uint8),
        lambda: bytearray(TOO_MUCH),
    ],
    ids=["numpy", "torch", "Python"],
)
def test_memory_that_ran_out_is_seen(act: Callable[[], object]) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        act()
    assert lacks_memory(caught.value)


def test_that_of_a_gpu_is_recognized_and_other_errors_are_not() -> None:
    assert lacks_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not lacks_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not lacks_memory(OSError("not enough memory"))
