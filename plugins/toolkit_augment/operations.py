"""The fourteen operations of RandAugment and TrivialAugment, each for a batch of uint8 images at once.

An operation takes pixels `[N, (T,) 3, H, W]` and a level `[N]`, 0 for least and 1 for most, negative for the other
direction where it has one, and returns pixels of the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name the field knows

from toolkit_augment.color import Change, blend, changed, scale_brightness, scale_contrast, scale_saturation
from toolkit_augment.pixels import per_sample

Apply: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Operation:
    name: str
    apply: Apply
    signed: bool = False
    """Whether the level may be negative."""


@dataclass(frozen=True)
class Most:
    """What level 1 means."""

    shear: float
    """Pixels moved per pixel of distance."""
    translate: Callable[[int], float]
    """From the side in pixels to the pixels moved."""
    rotate: float
    """Degrees."""
    enhance: float
    """Change of the factor of brightness, saturation, contrast and sharpness."""
    posterize: int
    """Bits dropped of eight."""


def operations(most: Most) -> tuple[Operation, ...]:
    def moved(axis: int) -> Apply:
        return lambda pixels, level: translate(pixels, (level * most.translate(pixels.shape[-1 - axis])).trunc(), axis)

    def enhanced(change: Change) -> Apply:
        return lambda pixels, level: changed(pixels, [(change, 1 + most.enhance * level)])

    return (
        Operation("identity", lambda pixels, _: pixels),
        Operation("shear_x", lambda pixels, level: shear(pixels, level * most.shear, 0), signed=True),
        Operation("shear_y", lambda pixels, level: shear(pixels, level * most.shear, 1), signed=True),
        Operation("translate_x", moved(0), signed=True),
        Operation("translate_y", moved(1), signed=True),
        Operation("rotate", lambda pixels, level: rotate(pixels, level * most.rotate), signed=True),
        Operation("brightness", enhanced(scale_brightness), signed=True),
        Operation("color", enhanced(scale_saturation), signed=True),
        Operation("contrast", enhanced(scale_contrast), signed=True),
        Operation("sharpness", enhanced(scale_sharpness), signed=True),
        Operation("posterize", lambda pixels, level: posterize(pixels, level * most.posterize)),
        Operation("solarize", lambda pixels, level: solarize(pixels, 255 * (1 - level))),
        Operation("autocontrast", lambda pixels, _: autocontrast(pixels)),
        Operation("equalize", lambda pixels, _: equalize(pixels)),
    )


def shear(pixels: Tensor, slope: Tensor, axis: int) -> Tensor:
    """Each row (axis 0) or column (axis 1) shifted by `slope` x its distance from the top left corner."""
    height, width = pixels.shape[-2:]
    one, zero = torch.ones_like(slope), torch.zeros_like(slope)
    if axis == 0:
        return warp(pixels, (one, slope, slope * height / 2), (zero, one, zero))
    return warp(pixels, (one, zero, zero), (slope, one, slope * width / 2))


def translate(pixels: Tensor, distance: Tensor, axis: int) -> Tensor:
    """Moved by `distance` pixels to the right (axis 0) or down (axis 1)."""
    one, zero = torch.ones_like(distance), torch.zeros_like(distance)
    right, down = (-distance, zero) if axis == 0 else (zero, -distance)
    return warp(pixels, (one, zero, right), (zero, one, down))


def rotate(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Turned about the centre, counter-clockwise."""
    angle = degrees * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return warp(pixels, (cos, -sin, zero), (sin, cos, zero))


def warp(pixels: Tensor, x_row: tuple[Tensor, Tensor, Tensor], y_row: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """What lies at `x_row . (x, y, 1)`, `y_row . (x, y, 1)`, pixels from the centre; bilinear, black outside."""
    height, width = pixels.shape[-2:]
    # the frames of a clip share one grid as if they were channels
    images = pixels.flatten(1, -3).to(torch.float32, memory_format=torch.contiguous_format)
    in_x = torch.stack((x_row[0], x_row[1] * (height / width), x_row[2] * (2 / width)), dim=1)
    in_y = torch.stack((y_row[0] * (width / height), y_row[1], y_row[2] * (2 / height)), dim=1)
    grid = F.affine_grid(torch.stack((in_x, in_y), dim=1), list(images.shape), align_corners=False)
    sampled = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.round_().to(torch.uint8).reshape(pixels.shape)


def scale_sharpness(images: Tensor, amount: Tensor) -> Tensor:
    """Away from (above 1) or towards (below 1) the image smoothed by a 3 x 3 filter, centre 5, others 1, of 13.

    The outermost pixels stay.
    """
    if min(images.shape[-2:]) < 3:
        return images
    centre = images[..., 1:-1, 1:-1]
    mean = F.avg_pool2d(images.flatten(0, -4), 3, stride=1).view(centre.shape)
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = (9 * mean + 4 * centre) / 13
    return blend(smooth, images, amount)


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """The lowest `bits` of every value cleared."""
    dropped = per_sample(bits.round().to(torch.uint8), pixels)
    return pixels >> dropped << dropped


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Values of `threshold` and above inverted."""
    return torch.where(pixels >= per_sample(threshold, pixels), 255 - pixels, pixels)


def autocontrast(pixels: Tensor) -> Tensor:
    """Each channel of each image or frame stretched to 0..255; one of a single value stays."""
    least, most = pixels.amin(dim=(-2, -1), keepdim=True), pixels.amax(dim=(-2, -1), keepdim=True)
    spread = (most - least).float()
    stretched = (pixels - least) * (255 / spread.clamp(min=1))
    return torch.where(most > least, stretched.to(torch.uint8), pixels)


def equalize(pixels: Tensor) -> Tensor:
    """Each channel of each image or frame mapped so that its values spread evenly over 0..255."""
    planes = pixels.reshape(-1, pixels.shape[-2] * pixels.shape[-1]).long()
    counts = _histograms(planes)
    brightest = counts.gather(1, planes.amax(dim=1, keepdim=True))
    step = (planes.shape[1] - brightest) // 255
    below = counts.cumsum(dim=1) - counts
    levels = ((below + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    return torch.where(step > 0, levels.gather(1, planes), planes).to(torch.uint8).view(pixels.shape)


def _histograms(planes: Tensor) -> Tensor:
    """int64 `[M, 256]` from int64 `[M, pixels]`; in one dimension, where torch can add deterministically."""
    rows = torch.arange(len(planes), device=planes.device)[:, None] * 256
    places = (planes + rows).flatten()
    counts = planes.new_zeros(len(planes) * 256).scatter_add_(0, places, torch.ones_like(places))
    return counts.view(-1, 256)
