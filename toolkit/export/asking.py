"""An exported model asked about the items of a split as they were decoded, whatever their sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from toolkit.bundle import Bundle
from toolkit.contracts import Split

AHEAD = 64
"""Items read ahead of the model."""

Group = list[tuple[int, NDArray[np.uint8]]]


def ask_raw(
    bundle: Bundle, split: Split, index: Sequence[int], sizes: Sequence[int], *, progress: Callable[[int], None]
) -> NDArray[np.float32]:
    """Probabilities `[len(index), C]` of the items at `index`, in that order. Items of one height and width share
    batches, of `sizes` in turn; `progress` is told how many were answered. Raises the split's DataError."""
    answers = np.empty((len(index), len(bundle.manifest.classes)), np.float32)
    for group in _grouped(_read(split, index), sizes):
        answers[[row for row, _ in group]] = bundle.session.run(np.stack([frames for _, frames in group]))
        progress(len(group))
    return answers


def _grouped(items: Iterator[tuple[int, NDArray[np.uint8]]], sizes: Sequence[int]) -> Iterator[Group]:
    waiting: dict[tuple[int, ...], Group] = {}
    wanted = cycle(sizes)
    size = next(wanted)
    for row, frames in items:
        group = waiting.setdefault(frames.shape, [])
        group.append((row, frames))
        if len(group) >= size:
            yield waiting.pop(frames.shape)
            size = next(wanted)
    yield from waiting.values()


def _read(split: Split, index: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Each item, uint8 `[H, W, 3]`, with its row; a few are read ahead by threads."""

    def read(item: int) -> NDArray[np.uint8]:
        frames: NDArray[np.uint8] = split.read(item).movedim(-3, -1).contiguous().numpy()
        return frames

    with ThreadPoolExecutor(2, thread_name_prefix="decode") as pool:
        for start in range(0, len(index), AHEAD):
            yield from enumerate(pool.map(read, index[start : start + AHEAD]), start)
