"""How an image becomes a square: the one resampling of training, which an exported graph and `Bundle.square` repeat to
the bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from toolkit.data.geometry import covering, crop_start

if TYPE_CHECKING:
    from toolkit.api.contracts import Fit

CACHE_VERSION = 4
"""Part of every cache key: raised when this arithmetic, decoding or what is read of a file changes."""


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


def centre_crop(pixels: Tensor, side: int) -> Tensor:
    """The central `side` x `side` window of `[..., H, W]`, as a view."""
    height, width = pixels.shape[-2:]
    top, left = crop_start(height, side), crop_start(width, side)
    return pixels[..., top : top + side, left : left + side]


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """uint8 `[..., 3, H, W]` to `[..., 3, height, width]`, antialiased and bilinear; itself where it has that size."""
    if image.shape[-2:] == (height, width):
        return image
    # A decoder's image is channels last already and is not copied here; but torch shows it by the stride of the first
    # dimension too, which only this gives a single image, and is then three times as fast.
    frames = image.movedim(-3, -1).contiguous().view(-1, *image.shape[-2:], 3).movedim(-1, -3)
    resized = functional.interpolate(frames, size=(height, width), mode="bilinear", antialias=True)
    return resized.reshape(*image.shape[:-2], height, width)
