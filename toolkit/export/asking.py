"""An exported model asked about the items of a split as they were decoded, whatever their sizes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import cycle
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from toolkit.api.clips import Clip
from toolkit.api.contract_checks import read_frames_of, read_image_of
from toolkit.api.contracts import Split, VideoSplit
from toolkit.api.errors import DataError
from toolkit.data.damage import hearing_of_damage
from toolkit.data.store.corrupt import Skipped
from toolkit.serving.bundle import Bundle
from toolkit.serving.bundle.session import LARGEST_BYTES
from toolkit.serving.bundle.views import average_views, gathered, inputs, needed, views
from toolkit.system.background import read_ahead

READERS = 2
AHEAD = 64
"""Images read ahead of the model at most."""
WAITING_BYTES = 2 * LARGEST_BYTES
"""Pixels that wait for others of their size, in bytes: beyond, the model is asked about fewer at a time. As many that
were read ahead may wait for their turn."""


Seen: TypeAlias = Callable[[int, Tensor], None]
"""Gets each picture of an item, uint8 `[3, H, W]`, as it was decoded; from several threads."""


class _Asked(NamedTuple):
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
    skipped: Skipped | None = None,
    seen: Seen | None = None,
) -> NDArray[np.float32]:
    """Rows of `Bundle.rows`, of the items at `index`, in that order; those that cannot be read go to `skipped` and have
    no row. `progress` gets the number of items answered, and `seen` what they look like.

    An image goes to the graph whole; of a video all views do, and are averaged. Where there are several crops, or one
    clip is larger than `LARGEST_BYTES`, a view is the square that the bundle cuts; else its frames are whole. Views of
    one height and width share batches, of `sizes` in turn, smaller where more than `WAITING_BYTES` would wait for them.
    Raises the split's DataError where there is no `skipped`, else that of one item too many.
    """
    clip = bundle.manifest.clip
    count = 1 if clip is None else clip.views
    answers = np.empty((len(index), count, bundle.manifest.columns), np.float32)
    missing = [count] * len(index)
    for group in _grouped(_views(bundle, split, index, skipped, seen), sizes):
        rows = [view.row for view in group]
        answers[rows, [view.place for view in group]] = bundle.session.run(np.stack([view.pixels for view in group]))
        for row in rows:
            missing[row] -= 1
            progress(missing[row] == 0)
    gone = {} if skipped is None else skipped.reasons
    there = [row for row, item in enumerate(index) if item not in gone]
    average = "probabilities" if clip is None else clip.average
    return average_views(answers[there], average, bundle.manifest.form, scores=bundle.manifest.trust.score_columns)


def _grouped(items: Iterator[_Asked], sizes: Sequence[int]) -> Iterator[list[_Asked]]:
    waiting: dict[tuple[int, ...], list[_Asked]] = {}
    wanted = cycle(sizes)
    size, held = next(wanted), 0
    for view in items:
        group = waiting.setdefault(view.pixels.shape, [])
        group.append(view)
        held += view.pixels.nbytes
        if len(group) >= size:
            size = next(wanted)
        elif held > WAITING_BYTES:
            group = max(waiting.values(), key=_nbytes)
        else:
            continue
        held -= _nbytes(group)
        yield waiting.pop(group[0].pixels.shape)
    yield from waiting.values()


def _nbytes(group: Sequence[_Asked]) -> int:
    return len(group) * group[0].pixels.nbytes


def _views(
    bundle: Bundle, split: Split | VideoSplit, index: Sequence[int], skipped: Skipped | None, seen: Seen | None
) -> Iterator[_Asked]:
    """Every view of each item, with its row; of a video that cannot be read to its end, those before."""
    clip = bundle.manifest.clip
    if isinstance(split, VideoSplit):
        if clip is None:
            raise AssertionError("a model of images is asked about images")
        return _clips(bundle, clip, split, index, skipped, seen)
    return _images(split, index, skipped, seen)


def _images(split: Split, index: Sequence[int], skipped: Skipped | None, seen: Seen | None = None) -> Iterator[_Asked]:
    """Each image, uint8 `[H, W, 3]`; a few are read ahead by threads."""

    def read(row: int, stop: threading.Event) -> NDArray[np.uint8]:  # noqa: ARG001 - an image is read to its end
        with hearing_of_damage() as found:
            image = read_image_of(split, index[row])
        if skipped is not None:
            skipped.accept(index[row], found)
        if seen is not None:
            seen(index[row], image)
        return _channels_last(image)

    def weight(pixels: NDArray[np.uint8]) -> int:
        return pixels.nbytes

    rows = range(len(index))
    reading = read_ahead(rows, read, threads=READERS, most=AHEAD, room=WAITING_BYTES, weight=weight)
    with closing(reading):
        for row, found in reading:
            if isinstance(found, DataError):
                _skip(index[row], skipped, found)
            else:
                yield _Asked(row, 0, found)


def _clips(
    bundle: Bundle,
    clip: Clip,
    split: VideoSplit,
    index: Sequence[int],
    skipped: Skipped | None,
    seen: Seen | None,
) -> Iterator[_Asked]:
    """Each view of each video, uint8 `[T, H, W, 3]` or `[T, S, S, 3]`, as soon as its last frame is decoded."""
    for row, item in enumerate(index):
        try:
            with hearing_of_damage() as found:
                for place, pixels in enumerate(_clips_of(bundle, clip, split, item, seen)):
                    yield _Asked(row, place, pixels)
            if skipped is not None:
                skipped.accept(item, found)
        except DataError as error:
            _skip(item, skipped, error)


def _clips_of(
    bundle: Bundle, clip: Clip, split: VideoSplit, item: int, seen: Seen | None
) -> Iterator[NDArray[np.uint8]]:
    wanted = views(bundle.manifest.sampling, split.times(item))
    numbers = needed(wanted)
    frames = _shown(read_frames_of(split, item, numbers), item, seen)
    cut = (_cut(bundle, clip, _channels_last(frame)) for frame in frames)
    for parts in gathered(wanted, zip(numbers, cut, strict=True)):
        yield from inputs(parts, clips=True)


def _shown(frames: Iterator[Tensor], item: int, seen: Seen | None) -> Iterator[Tensor]:
    for frame in frames:
        if seen is not None:
            seen(item, frame)
        yield frame


def _skip(item: int, skipped: Skipped | None, error: DataError) -> None:
    if skipped is None:
        raise error
    skipped.add(item, error)


def _channels_last(frame: Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = frame.movedim(-3, -1).contiguous().numpy()
    return pixels


def _cut(bundle: Bundle, clip: Clip, frame: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    whole = clip.crops == 1 and clip.frames * frame.nbytes <= LARGEST_BYTES
    return [frame] if whole else bundle.squares(frame, clip.crops)
