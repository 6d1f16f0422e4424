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


def to_squares(picture: Image.Image, expected: Input, crops: int = 1) -> list[NDArray[np.uint8]]:
    """uint8 `[S, S, 3]` by antialiased bilinear resampling, one for each of the `crops`: the centre, or three of them
    the two ends of the long side and the centre between. With "crop" only what lies in a square is computed."""
    import numpy as np
    from PIL.Image import Resampling

    side = expected.square
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    squares = []
    for place in crop_places(crops):
        box = _part(picture.width, picture.height, side, place) if expected.fit == "crop" else None
        same = picture.size == (side, side)
        squares.append(np.asarray(picture if same else picture.resize((side, side), Resampling.BILINEAR, box=box)))
    return squares


def _part(width: int, height: int, side: int, place: float) -> tuple[float, float, float, float]:
    """What of an image lies in a square, at a place (0..1) of its long side, once its short side is `side`: left, top,
    right, bottom."""
    tall, wide = covering(height, width, side)
    left, top = crop_start(wide, side, place), crop_start(tall, side, place)
    across, down = width / wide, height / tall
    return left * across, top * down, (left + side) * across, (top + side) * down
