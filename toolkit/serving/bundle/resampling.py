"""The antialiased, bilinear resampling of training, to the bit and without torch.

torch resamples uint8 in whole numbers, first the width, then the height, and rounds to uint8 after each. A weight is a
whole number of up to 15 bits, a share of the `unit` of its side, a power of two. Source: PyTorch,
`aten/src/ATen/native/cpu/UpSampleKernel.cpp`, "Weights computation for uint8_t and multiplication trick".
`toolkit.export.preparing` has the same arithmetic as a graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE = 8
"""Pixels of a side that are computed together, by one product of matrices, from the inputs that any of them sees. More
multiply more zeros, fewer make products slow; what one product takes stays in a processor's caches."""
LARGEST_WEIGHT = 1 << 15
MOST_BITS = 22
"""Of `unit`."""
_EXACT = 1 << 24
"""Whole numbers up to this are exact in float32."""
_STRIP = 256
"""Rows that are transposed at a time: what they are written to stays in a processor's caches."""


class Side(NamedTuple):
    """How wanted outputs of one side are made, in B tiles of `TILE`."""

    inputs: NDArray[np.int64]
    """`[B, L]`: the inputs that a tile sees."""
    weights: NDArray[np.float64]
    """`[B, TILE, L]`: whole numbers."""
    unit: float


def resampled(
    pixels: NDArray[np.uint8], sides: tuple[int, int], corner: tuple[int, int], seen: int
) -> NDArray[np.uint8]:
    """uint8 `[H, W, 3]` brought to the height and width `sides`; of that the square `[seen, seen, 3]` that begins
    `corner` pixels from the top and the left. Nothing else is computed."""
    (height, width), (tall, wide), (top, left) = pixels.shape[:2], sides, corner
    down, across = side(height, tall, top, seen), side(width, wide, left, seen)
    rows, columns = (slice(one.inputs.min(), one.inputs.max() + 1) for one in (down, across))
    part = pixels[rows, columns]
    lines = _transposed(part.reshape(len(part), -1)).reshape(part.shape[1], -1)
    narrow = _weighted(lines, across, columns.start, seen)
    square = _weighted(_transposed(narrow.reshape(-1, len(part))), down, rows.start, seen)
    return np.ascontiguousarray(square.reshape(seen, seen, 3))


def side(extent: int, whole: int, first: int, seen: int) -> Side:
    """Of the `whole` pixels that `extent` become, how those from `first` on are made, `seen` of them."""
    scale = extent / whole
    reach = max(scale, 1.0)
    every = np.arange(whole)
    starts = np.floor(scale * (every + 0.5) - reach + 0.5)
    weights = _triangle(every[:, None], starts[:, None] + np.arange(int(2 * reach) + 3), extent, scale)
    totals = weights.sum(1)
    units = 2.0 ** np.arange(MOST_BITS + 1)
    unit = units[(weights / totals[:, None]).max() * units + 0.5 < LARGEST_WEIGHT].max(initial=1.0)
    outputs = (first + np.arange(-(-seen // TILE) * TILE)).clip(max=whole - 1).reshape(-1, TILE)
    inputs = starts[outputs[:, :1]] + np.arange(int((TILE + 1) * reach) + 3)
    shares = _triangle(outputs[:, :, None], inputs[:, None, :], extent, scale) / totals[outputs][:, :, None]
    return Side(inputs.clip(0, extent - 1).astype(np.int64), np.floor(shares * unit + 0.5), unit)


def _triangle(
    outputs: NDArray[np.int64], inputs: NDArray[np.float64], extent: int, scale: float
) -> NDArray[np.float64]:
    """The filter's weight of each input for each output, before weights are made to sum to 1."""
    far = np.abs((inputs - scale * (outputs + 0.5) + 0.5) * (1 / max(scale, 1.0)))
    return np.where((inputs >= 0) & (inputs < extent), (1 - far).clip(0), 0)


def _weighted(lines: NDArray[np.uint8], side: Side, first: int, seen: int) -> NDArray[np.uint8]:
    """uint8 `[seen, M]` of lines `[E, M]`, which begin with the input `first`."""
    exact = np.float32 if 256 * side.unit <= _EXACT else np.float64
    rounded = np.empty((len(side.inputs), TILE, lines.shape[1]), np.uint8)
    for tile, inputs, weights in zip(rounded, side.inputs - first, side.weights.astype(exact), strict=True):
        sums = weights @ lines[inputs].astype(exact)
        sums += side.unit / 2
        sums *= 1 / side.unit
        tile[:] = sums  # rounded down, as a shift does; no sum reaches 256
    return rounded.reshape(-1, lines.shape[1])[:seen]


def _transposed(matrix: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy, made five times as fast for a large photo as NumPy makes it at once."""
    columns = np.empty(matrix.shape[::-1], np.uint8)
    for start in range(0, len(matrix), _STRIP):
        columns[:, start : start + _STRIP] = matrix[start : start + _STRIP].T
    return columns
