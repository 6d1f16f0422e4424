"""What all augmentations share: memory layout and argument checks.

Host and device differ in one way. On the CPU a drawn number may be read, so work is done sample by sample, on the
pixels that change and inside the processor's cache. On an accelerator reading a number would wait for the device, and
so would sending one, so the same draws drive whole-batch operations. Both give the same batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, TypeAlias

from pydantic import Field
from torch import Tensor

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
"""A probability or a part of a whole."""

CACHED = 1 << 18
"""How many values are worked on at a time on the CPU: their float32 copies stay in a core's second-level cache."""


def on_host(pixels: Tensor) -> bool:
    return pixels.device.type == "cpu"


def empty(pixels: Tensor, height: int, width: int) -> Tensor:
    """Uninitialised uint8 like `pixels` in all but its sides; channels stay innermost in memory where they were."""
    *lead, channels, _, _ = pixels.shape
    if pixels.stride(-3) == 1:
        return pixels.new_empty((*lead, height, width, channels)).movedim(-1, -3)
    return pixels.new_empty((*lead, channels, height, width))


def parts(pixels: Tensor) -> Iterator[slice]:
    """Slices that cover the batch: of a few samples on the CPU, of all on an accelerator."""
    samples = len(pixels)
    step = max(1, CACHED // pixels[0].numel()) if on_host(pixels) and samples else max(1, samples)
    return (slice(start, start + step) for start in range(0, samples, step))


def per_sample(values: Tensor, pixels: Tensor) -> Tensor:
    """`values` `[B]` shaped to broadcast over `pixels` `[B, ...]`."""
    return values.view(-1, *[1] * (pixels.ndim - 1))


def check_range(key: str, bounds: tuple[float, float], *, high: float = math.inf) -> None:
    """Raise ValueError unless `0 < bounds[0] <= bounds[1] <= high`."""
    if not 0 < bounds[0] <= bounds[1] <= high:
        within = "above 0" + (f" and at most {high:g}" if high < math.inf else "")
        raise ValueError(f"{key}: must be [low, high] with low <= high, both {within}, got {list(bounds)}")
