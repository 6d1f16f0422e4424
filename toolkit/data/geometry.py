"""How an image becomes a square: sizes and places, as whole numbers. No torch here: training and what uses a
bundle share this arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence


def covering(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width with the short side brought to `side` and the long one in proportion, rounded half up; whole
    numbers throughout, so that an exported graph does the same."""
    short = min(height, width)
    return (2 * height * side + short) // (2 * short), (2 * width * side + short) // (2 * short)


def crop_places(crops: int) -> Sequence[float]:
    """Where the crops of a frame lie on its long side, by how many they are: 0 is its start, 1 its end. One is the
    centre."""
    return [0.5] if crops == 1 else [number / (crops - 1) for number in range(crops)]


def crop_start(extent: int, side: int, place: float = 0.5) -> int:
    """The first pixel of `side` pixels that lie at a place, 0..1, of `extent` pixels."""
    return math.floor(place * (extent - side))
