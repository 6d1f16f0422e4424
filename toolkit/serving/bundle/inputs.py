"""What a bundle accepts as its input, and how an image becomes a square."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.api.errors import UsageError
from toolkit.data.geometry import covering, crop_places, crop_start

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from toolkit.serving.bundle.manifest import Input


def rank(expected: Input) -> int:
    """Dimensions of one input."""
    return 3 if expected.frames is None else 4


def check_frames(frames: Any, expected: Input, name: str, *, many: bool = False) -> None:
    """Raise UsageError unless `frames` is one input, or (`many`) a batch of them; `name` is what they are called."""
    shape, dtype = getattr(frames, "shape", None), getattr(frames, "dtype", None)
    one = tuple(shape or ())[1:] if many else tuple(shape or ())
    right = len(one) == rank(expected) and one[-1] == 3 and 0 not in one and expected.frames in (None, one[0])
    if dtype is not None and str(dtype) == "uint8" and right:
        return
    clip = "" if expected.frames is None else f"{expected.frames}, "
    given = f"{dtype} {list(shape)}" if shape is not None and dtype is not None else f"a {type(frames).__name__}"
    raise UsageError(
        f"{name}: given {given}, needed uint8 [{clip}H, W, 3]",
        next_step="give NumPy arrays of RGB pixels from 0 to 255, channels last",
    )


def to_squares(picture: Image.Image | NDArray[np.uint8], expected: Input, crops: int = 1) -> list[NDArray[np.uint8]]:
    """uint8 `[S, S, 3]` of a picture or of uint8 `[H, W, 3]`, to the bit as training makes them, one for each of the
    `crops`: the centre, or three of them the two ends of the long side and the centre between."""
    import numpy as np

    from toolkit.serving.bundle.resampling import resampled

    pixels = picture if isinstance(picture, np.ndarray) else np.asarray(picture.convert("RGB"))
    side, (height, width) = expected.square, pixels.shape[:2]
    if (height, width) == (side, side):
        return [pixels] * crops
    sides = covering(height, width, side) if expected.fit == "crop" else (side, side)
    corners = [tuple(crop_start(extent, side, place) for extent in sides) for place in crop_places(crops)]
    return [resampled(pixels, sides, (top, left), side) for top, left in corners]


def square_batch(pixels: NDArray[np.uint8], expected: Input) -> NDArray[np.uint8]:
    """uint8 `[N, ..., H, W, 3]` as squares, `[N, ..., S, S, 3]`: for runtimes that resample in other numbers."""
    import numpy as np

    side = expected.square
    if pixels.shape[-3:-1] == (side, side):
        return np.ascontiguousarray(pixels)
    frames = pixels.reshape(-1, *pixels.shape[-3:])
    squares = np.stack([square for frame in frames for square in to_squares(frame, expected)])
    return squares.reshape(*pixels.shape[:-3], side, side, 3)
