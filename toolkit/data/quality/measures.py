"""What is measured of the pixels of one item while they are decoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolkit.data.damage import Damage

THUMB = 16
"""Side, in pixels, of the thumbnails that near duplicates are found by."""
FRAMES = 4
"""Evenly spaced frames of a video that are measured."""
MEASURED = 256
"""Longest side, in pixels, of the picture whose sharpness is measured: a larger one is reduced first."""


@dataclass(frozen=True)
class Picture:
    """Measures of one picture."""

    brightness: float
    """Mean of the luminance, 0 to 255."""
    contrast: float
    """Standard deviation of the luminance, in the same unit."""
    sharpness: float
    """Standard deviation of the Laplacian of the luminance: low where a picture is blurred."""
    thumb: NDArray[np.uint8]
    """uint8 `[16, 16, 3]`: the means of equal parts of the picture."""


def measure(pixels: NDArray[np.uint8]) -> Picture:
    """Measure a picture, uint8 `[H, W, 3]`. The sharpness is the focus measure LAPV of Pertuz et al. (Pattern
    Recognition 2013), as a standard deviation."""
    from PIL import Image

    image = Image.fromarray(pixels)
    factor = -(-max(image.size) // MEASURED)
    grey = (image.reduce(factor) if factor > 1 else image).convert("L")
    luminance = np.asarray(grey, np.float32)
    thumb = np.asarray(image.resize((THUMB, THUMB), Image.Resampling.BOX))
    return Picture(float(luminance.mean()), float(luminance.std()), _sharpness(luminance), thumb)


def _sharpness(luminance: NDArray[np.float32]) -> float:
    if min(luminance.shape) < 3:
        return 0.0
    centre = luminance[1:-1, 1:-1]
    around = luminance[:-2, 1:-1] + luminance[2:, 1:-1] + luminance[1:-1, :-2] + luminance[1:-1, 2:]
    return float((4 * centre - around).std())


class Digest:
    """16 bytes that are equal for equal pixels: frame after frame."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Take a frame, uint8 `[H, W, 3]`."""
        self._hash.update(repr(pixels.shape).encode())
        self._hash.update(np.ascontiguousarray(pixels).data)

    def finished(self) -> bytes:
        return self._hash.digest()


@dataclass(frozen=True)
class Moving:
    """What is measured of the times of a video's frames."""

    frames: int
    seconds: float
    rate: float
    """Frames a second; NaN of a single frame."""
    uneven: bool
    """Whether frames last longer or shorter than others by half of their mean or more."""


def moving(times: Sequence[float], seconds: float) -> Moving:
    """Measure the times at which F >= 1 frames are shown, ascending; `seconds` is the duration of all."""
    shown = np.asarray(times, np.float64)
    steps = np.diff(shown)
    if not len(steps) or shown[-1] <= shown[0]:
        return Moving(len(shown), seconds, float("nan"), False)
    mean = float(steps.mean())
    return Moving(len(shown), seconds, 1 / mean, bool(np.abs(steps - mean).max() > mean / 2))


@dataclass(frozen=True)
class Measured:
    """What is known of one item after it was decoded: all of it, or why that failed."""

    error: str = ""
    height: int = 0
    width: int = 0
    digest: bytes = bytes(16)
    pictures: tuple[Picture, ...] = ()
    """Of an image one, of a video `FRAMES`."""
    moving: Moving | None = None
    """Of a video."""
    damage: Damage | None = field(default=None)
    """Of a video, the frames that cannot be decoded."""
