"""How long a bundle takes to answer one input."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from toolkit.serving.bundle.model import Bundle

WARM_UP = 5
"""Answers before the first that counts: the first ones tune kernels and take memory."""
ANSWERS = 30
"""Answers that count, at least."""


def latency(bundle: Bundle, *, seconds: float) -> float:
    """Milliseconds for one image or clip of the stored size, on the bundle's device: the median of the answers of at
    least so many `seconds`."""
    item = np.zeros((1, *bundle.manifest.input.square_shape), np.uint8)
    for _ in range(WARM_UP):
        bundle.session.run(item)
    taken: list[float] = []
    while len(taken) < ANSWERS or sum(taken) < seconds:
        started = time.perf_counter()
        bundle.session.run(item)
        taken.append(time.perf_counter() - started)
    return 1000 * median(taken)
