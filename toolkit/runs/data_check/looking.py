"""Decode every item once and measure it. Pixels are dropped at once, so memory does not grow with their size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.api.clips import duration, middle
from toolkit.api.contract_checks import read_frames_of, read_image_of
from toolkit.api.contracts import Split, VideoSplit
from toolkit.api.errors import DataError
from toolkit.data.damage import hearing_of_damage
from toolkit.data.quality.measures import FRAMES, THUMB, Digest, Measured, Moving, measure, moving
from toolkit.data.quality.oddities import oddities
from toolkit.runs.data_check.items import Items

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.data.damage import Damage

AHEAD = 4
"""Items a thread that wait to be decoded."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What was measured of N items, in their order."""

    errors: dict[int, str]
    """Why an item cannot be decoded."""
    sizes: NDArray[np.int32]
    """int32 `[N, 2]`: height and width; 0 where that is not known."""
    brightness: NDArray[np.float32]
    contrast: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    """float32 `[N]`, of videos means over frames; NaN where that is not known."""
    thumbs: NDArray[np.uint8]
    """uint8 `[N, F, 16, 16, 3]`."""
    digests: NDArray[np.void]
    """void `[N]`, 16 bytes each: equal for equal pixels."""
    moving: dict[int, Moving]
    """Of videos."""
    damage: dict[int, Damage]
    """Of videos that are damaged in part."""
    odd: dict[int, list[str]]
    """What is odd about the files of items."""

    @property
    def usable(self) -> NDArray[np.bool_]:
        """bool `[N]`: which items could be decoded."""
        usable: NDArray[np.bool_] = self.sizes[:, 0] > 0
        return usable


def look(items: Items, *, workers: int, progress: Callable[[int], None]) -> Seen:
    """Decode and measure all items in threads; `progress` gets the number of items that are done."""
    count, frames = len(items), FRAMES if items.videos else 1
    seen = Seen(
        errors={},
        sizes=np.zeros((count, 2), np.int32),
        brightness=np.full(count, np.nan, np.float32),
        contrast=np.full(count, np.nan, np.float32),
        sharpness=np.full(count, np.nan, np.float32),
        thumbs=np.zeros((count, frames, THUMB, THUMB, 3), np.uint8),
        digests=np.zeros(count, "V16"),
        moving={},
        damage={},
        odd={},
    )
    for item, (found, odd) in enumerate(_measured(items, workers)):
        _keep(seen, item, found, odd)
        progress(item + 1)
    return seen


def _keep(seen: Seen, item: int, found: Measured, odd: list[str]) -> None:
    if odd:
        seen.odd[item] = odd
    if found.error:
        seen.errors[item] = found.error
        return
    seen.sizes[item] = found.height, found.width
    for values, name in ((seen.brightness, "brightness"), (seen.contrast, "contrast"), (seen.sharpness, "sharpness")):
        values[item] = np.mean([getattr(picture, name) for picture in found.pictures])
    seen.thumbs[item] = np.stack([picture.thumb for picture in found.pictures])
    seen.digests[item] = np.void(found.digest)
    if found.moving:
        seen.moving[item] = found.moving
    if found.damage:
        seen.damage[item] = found.damage


def _measured(items: Items, workers: int) -> Iterator[tuple[Measured, list[str]]]:
    """Of all items, in order."""
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting = deque[Future[tuple[Measured, list[str]]]]()
        try:
            for (part, index), path in zip(items.places(), items.paths, strict=True):
                waiting.append(pool.submit(_measure_one, part, index, path))
                if len(waiting) > AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _measure_one(part: Split | VideoSplit, index: int, path: Any) -> tuple[Measured, list[str]]:
    try:
        found = _of_video(part, index) if isinstance(part, VideoSplit) else _of_image(part, index)
    except DataError as error:
        return Measured(error.message.removeprefix(f"{error.path}: ")), []  # a finding names its item
    return found, oddities(path) if path else []


def _of_image(part: Split, index: int) -> Measured:
    pixels = _array(read_image_of(part, index))
    digest = Digest()
    digest.add(pixels)
    height, width = pixels.shape[:2]
    return Measured("", height, width, digest.finished(), (measure(pixels),))


def _of_video(part: VideoSplit, index: int) -> Measured:
    """All frames are decoded, since damage may be anywhere; the middles of equal parts are measured."""
    times = part.times(index)
    chosen = [middle(len(times), number, FRAMES) for number in range(FRAMES)]
    digest, pictures, height, width = Digest(), {}, 0, 0
    with hearing_of_damage() as damage:
        for number, frame in enumerate(read_frames_of(part, index, range(len(times)))):
            pixels = _array(frame)
            digest.add(pixels)
            height, width = pixels.shape[:2]
            if number in chosen:
                pictures[number] = measure(pixels)
    if not pictures:
        raise DataError(f"{part.ids[index]}: gave no frames")
    measured = tuple(pictures[number] for number in chosen)
    worst = max(damage, key=lambda one: one.share, default=None)
    return Measured("", height, width, digest.finished(), measured, moving(times, duration(times)), worst)


def _array(pixels: Tensor) -> NDArray[np.uint8]:
    """uint8 `[H, W, 3]` of uint8 `[3, H, W]`."""
    array: NDArray[np.uint8] = pixels.permute(1, 2, 0).contiguous().numpy()
    return array
