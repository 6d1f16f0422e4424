"""How decoded frames are shown: upright, by their display matrix, and with square pixels, by their aspect ratio."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST_PIXEL = 8
"""Times that one side of a pixel may be as long as the other. A ratio beyond is damage and is ignored: those of
cameras, discs and broadcasts are 0.5 to 2."""


def shown_size(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Width and height, with square pixels, of frames whose pixels have this ratio of width to height (None: unsaid).
    The side that is too short grows, so that no pixel is lost."""
    if not aspect or not Fraction(1, LONGEST_PIXEL) <= aspect <= LONGEST_PIXEL:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def upright(frame: Any, size: tuple[int, int], **options: int) -> NDArray[np.uint8]:
    """A frame of PyAV as uint8 `[H, W, 3]`, as it is shown: scaled to `size` (width and height), then turned and
    mirrored. `options` are those of PyAV's `to_ndarray`."""
    import numpy as np

    width, height = size
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24", width=width, height=height, **options)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return pixels if matrix is None else np.ascontiguousarray(_turned(pixels, bytes(matrix)))


def _turned(pixels: NDArray[np.uint8], matrix: bytes) -> NDArray[np.uint8]:
    """The picture turned and mirrored as FFmpeg's display matrix says: 3 x 3 numbers of 32 bits, row by row.

    A pixel at (x, y) is shown at (a x + c y, b x + d y), where a, b are the first numbers of the first row and c, d of
    the second. Of the eight ways to turn and mirror a rectangle, the nearest is taken.
    """
    import numpy as np

    (a, b, _), (c, d, _), _ = np.frombuffer(matrix, np.int32).reshape(3, 3).astype(np.int64).tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        pixels, right, down = pixels.transpose(1, 0, 2), c, b
    else:
        right, down = a, d
    return pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
