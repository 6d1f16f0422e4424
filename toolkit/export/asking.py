"""An exported model asked about the items of a split as they were decoded, whatever their sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.bundle import Bundle
from toolkit.bundle.session import LARGEST_BYTES
from toolkit.bundle.views import average_views, gathered, inputs, needed, views
from toolkit.clips import Clip
from toolkit.contracts import Split, VideoSplit

AHEAD = 64
"""Images read ahead of the model."""


class _View(NamedTuple):
    row: int
    place: int
    """Among the views of the item in this row."""
    pixels: NDArray[np.uint8]


def ask_raw(
    bundle: Bundle,
    split: Split | VideoSplit,
    index: Sequence[int],
    sizes: Sequence[int],
    *,
    progress: Callable[[int], None],
) -> NDArray[np.float32]:
    """Probabilities `[len(index), C]` of the items at `index`, in that order. `progress` is told how many are answered.

    An image goes to the graph whole; of a video all views do, and are averaged. Where there are several crops, or one
    clip is larger than `LARGEST_BYTES`, a view is the square that the bundle cuts; else its frames are whole. Views of
    one height and width share batches, of `sizes` in turn. Raises the split's DataError.
    """
    clip = bundle.manifest.clip
    count = 1 if clip is None else clip.views
    answers = np.empty((len(index), count, len(bundle.manifest.classes)), np.float32)
    missing = [count] * len(index)
    for group in _grouped(_views(bundle, split, index), sizes):
        rows = [view.row for view in group]
        answers[rows, [view.place for view in group]] = bundle.session.run(np.stack([view.pixels for view in group]))
        for row in rows:
            missing[row] -= 1
            progress(missing[row] == 0)
    return average_views(answers, "probabilities" if clip is None else clip.average)


def _grouped(items: Iterator[_View], sizes: Sequence[int]) -> Iterator[list[_View]]:
    waiting: dict[tuple[int, ...], list[_View]] = {}
    wanted = cycle(sizes)
    size = next(wanted)
    for view in items:
        group = waiting.setdefault(view.pixels.shape, [])
        group.append(view)
        if len(group) >= size:
            yield waiting.pop(view.pixels.shape)
            size = next(wanted)
    yield from waiting.values()


def _views(bundle: Bundle, split: Split | VideoSplit, index: Sequence[int]) -> Iterator[_View]:
    """Every view of each item, with its row."""
    clip = bundle.manifest.clip
    if isinstance(split, VideoSplit):
        if clip is None:
            raise AssertionError("a model of images is asked about images")
        return _clips(bundle, clip, split, index)
    return _images(split, index)


def _images(split: Split, index: Sequence[int]) -> Iterator[_View]:
    """Each image, uint8 `[H, W, 3]`; a few are read ahead by threads."""

    def read(item: int) -> NDArray[np.uint8]:
        frames: NDArray[np.uint8] = split.read(item).movedim(-3, -1).contiguous().numpy()
        return frames

    with ThreadPoolExecutor(2, thread_name_prefix="decode") as pool:
        for start in range(0, len(index), AHEAD):
            for row, pixels in enumerate(pool.map(read, index[start : start + AHEAD]), start):
                yield _View(row, 0, pixels)


def _clips(bundle: Bundle, clip: Clip, split: VideoSplit, index: Sequence[int]) -> Iterator[_View]:
    """Each view of each video, uint8 `[T, H, W, 3]` or `[T, S, S, 3]`, as soon as its last frame is decoded."""
    for row, item in enumerate(index):
        wanted = views(bundle.manifest.sampling, split.times(item))
        numbers = needed(wanted)
        frames = (frame.movedim(-3, -1).contiguous().numpy() for frame in split.read(item, numbers))
        cut = (_cut(bundle, clip, frame) for frame in frames)
        place = 0
        for parts in gathered(wanted, zip(numbers, cut, strict=True)):
            for pixels in inputs(parts, clips=True):
                yield _View(row, place, pixels)
                place += 1


def _cut(bundle: Bundle, clip: Clip, frame: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    whole = clip.crops == 1 and clip.frames * frame.nbytes <= LARGEST_BYTES
    return [frame] if whole else bundle.squares(frame, clip.crops)
