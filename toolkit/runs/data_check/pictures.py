"""Small pictures of items for a page: read again, since a check keeps no pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.api.clips import middle
from toolkit.api.contract_checks import read_frames_of, read_image_of
from toolkit.api.contracts import VideoSplit
from toolkit.api.errors import DataError
from toolkit.runs.data_check.items import Items

SIDE = 144
"""Pixels of the height of a picture, at most."""
WIDEST = 3
"""A picture that is wider than so many times its height is cut at both ends."""
STRIP = 4
"""Frames of a video side by side."""
GAP = 4
"""Pixels between two items of a pair."""


class Shown(NamedTuple):
    """A picture as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


def picture(items: Items, *shown: int) -> Shown | None:
    """The items side by side, or one below the other where they are videos, of which some frames are shown; None where
    one of them cannot be decoded."""
    try:
        parts = [_small(items, item) for item in shown]
    except DataError:
        return None
    whole = _joined(parts, below=items.videos)
    width, height = whole.size
    file = io.BytesIO()
    exact = height <= 64
    (whole if len(parts) > 1 else whole.convert("RGB")).save(file, "WEBP", lossless=exact, quality=80, method=2)
    return Shown(f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}", width, height)


def _joined(parts: Sequence[Any], *, below: bool) -> Any:
    """The pictures in one, with transparent gaps."""
    from PIL import Image

    widths, heights = [part.width for part in parts], [part.height for part in parts]
    gaps = GAP * (len(parts) - 1)
    size = (max(widths), sum(heights) + gaps) if below else (sum(widths) + gaps, max(heights))
    whole, place = Image.new("RGBA", size), 0
    for part in parts:
        whole.paste(part, (0, place) if below else (place, (size[1] - part.height) // 2))
        place += (part.height if below else part.width) + GAP
    return whole


def _small(items: Items, item: int) -> Any:
    from PIL import Image

    frames = [_shrunk(Image.fromarray(pixels)) for pixels in _frames(items, item)]
    if len(frames) == 1:
        return frames[0]
    strip = Image.new("RGB", (sum(frame.width for frame in frames), frames[0].height))
    for number, frame in enumerate(frames):
        strip.paste(frame, (number * frame.width, 0))
    return strip


def _frames(items: Items, item: int) -> Sequence[NDArray[np.uint8]]:
    part, index = items.place(item)
    if isinstance(part, VideoSplit):
        count = len(part.times(index))
        numbers = sorted({middle(count, number, STRIP) for number in range(STRIP)})
        return [frame.permute(1, 2, 0).numpy() for frame in read_frames_of(part, index, numbers)]
    return [read_image_of(part, index).permute(1, 2, 0).numpy()]


def _shrunk(image: Any) -> Any:
    width, height = image.size
    if width > WIDEST * height or height > WIDEST * width:
        cut = min(width, WIDEST * height), min(height, WIDEST * width)
        left, top = (width - cut[0]) // 2, (height - cut[1]) // 2
        image = image.crop((left, top, left + cut[0], top + cut[1]))
    image.thumbnail((WIDEST * SIDE, SIDE))
    return image
