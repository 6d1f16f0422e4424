"""How an image becomes a square: the one resampling of training, which an exported graph repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from toolkit.api.contracts import Fit

CACHE_VERSION = 2
"""Part of every cache key: raised when this arithmetic changes."""


def to_square(image: Tensor, side: int, fit: Fit) -> Tensor:
    """uint8 `[..., 3, H, W]` to `[..., 3, side, side]` by antialiased bilinear resampling.

    `crop` brings the short side to `side` and cuts the centre; `stretch` resizes both sides.
    """
    height, width = image.shape[-2:]
    if (height, width) == (side, side):
        return image
    if fit == "stretch":
        return resize(image, side, side)
    return centre_crop(resize(image, *covering(height, width, side)), side)


def covering(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width with the short side brought to `side` and the long one in proportion, rounded half up; whole
    numbers throughout, so that an exported graph does the same with sizes known only when it runs."""
    short: int = torch.sym_min(height, width)  # type: ignore[assignment]  # an int of ints, symbolic of symbolic
    return (2 * height * side + short) // (2 * short), (2 * width * side + short) // (2 * short)


def centre_crop(pixels: Tensor, side: int) -> Tensor:
    """The central `side` x `side` window of `[..., H, W]`, as a view."""
    height, width = pixels.shape[-2:]
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[..., top : top + side, left : left + side]


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """uint8 `[..., 3, H, W]` to `[..., 3, height, width]`, antialiased and bilinear; itself where it has that size."""
    if image.shape[-2:] == (height, width):
        return image
    # A decoder's image is channels last already and is not copied here; but torch tells so by the stride of the first
    # dimension too, which only this gives a single image, and is then three times as fast.
    frames = image.movedim(-3, -1).contiguous().view(-1, *image.shape[-2:], 3).movedim(-1, -3)
    resized = functional.interpolate(frames, size=(height, width), mode="bilinear", antialias=True)
    return resized.reshape(*image.shape[:-2], height, width)
