"""Boxes: int64 `[B, 4]` of top, left, height and width in pixels, one a sample. How they are drawn and pasted."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.api.contracts import Draws
from toolkit_augment.pixels import on_host

ATTEMPTS = 10
"""Shapes drawn for each sample; the first that fits into the image counts."""


def draw_boxes(
    draws: Draws,
    sides: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Tensor:
    """Boxes inside an image of `sides` (height, width), int64 `[B, 4]`: top, left, height and width in pixels. The
    share of the area is uniform in `scale`. Width / height lies in `ratio`, its logarithm is uniform.

    Where no attempt fits, the largest box whose shape lies in `ratio`.
    """
    height, width = sides
    area = draws.uniform(*scale, (ATTEMPTS,)) * (height * width)
    shape = draws.log_uniform(*ratio, (ATTEMPTS,))
    tall, wide = (rounded_root(square).clamp(min=1) for square in (area / shape, area * shape))
    fits = (tall <= height) & (wide <= width)
    first = fits.long().argmax(dim=1, keepdim=True)
    fitting = fits.any(dim=1)
    tallest, widest = min(height, max(1, round(width / ratio[0]))), min(width, max(1, round(height * ratio[1])))
    box_height = torch.where(fitting, tall.gather(1, first)[:, 0], tallest).long()
    box_width = torch.where(fitting, wide.gather(1, first)[:, 0], widest).long()
    top = draws.integers(0, height - box_height + 1)
    left = draws.integers(0, width - box_width + 1)
    return torch.stack((top, left, box_height, box_width), dim=1)


def rounded_root(squares: Tensor) -> Tensor:
    """Square roots of `squares` `[...]`, rounded to whole numbers; of the same type.

    The last bit of a root differs between devices. Where it would decide, a box would be a pixel larger on one of them.
    """
    exact, whole = squares.double(), squares.sqrt().round().double()
    larger = exact >= (whole + 0.5).square()
    smaller = exact < (whole - 0.5).clamp(min=0).square()
    return (whole + larger.double() - smaller.double()).to(squares.dtype)


def draw_centred(draws: Draws, sides: tuple[int, int], extents: tuple[Tensor, Tensor]) -> Tensor:
    """Boxes as of `draw_boxes`, of height and width `extents` (int64 `[B]` each) around a pixel anywhere, less what
    lies outside the image."""
    starts, lengths = [], []
    for side, extent in zip(sides, extents, strict=True):
        start = draws.integers(0, side) - extent // 2
        end = (start + extent).clamp(max=side)
        start = start.clamp(min=0)
        starts.append(start)
        lengths.append(end - start)
    return torch.stack((*starts, *lengths), dim=1)


def pasted(pixels: Tensor, boxes: Tensor, other: Tensor) -> Tensor:
    """A copy of `pixels`, uint8 `[B, ..., H, W]`, that shows `other` (of the same shape) inside each sample's box; an
    empty one nothing."""
    return paste_one_by_one(pixels, boxes, other) if on_host(pixels) else paste_at_once(pixels, boxes, other)


def paste_one_by_one(pixels: Tensor, boxes: Tensor, other: Tensor) -> Tensor:
    out = pixels.clone()
    for sample, (top, left, height, width) in enumerate(boxes.tolist()):
        place = (sample, ..., slice(top, top + height), slice(left, left + width))
        out[place] = other[place]
    return out


def paste_at_once(pixels: Tensor, boxes: Tensor, other: Tensor) -> Tensor:
    lead = [1] * (pixels.ndim - 3)
    rows = _within(boxes[:, 0], boxes[:, 2], pixels.shape[-2]).view(len(pixels), *lead, -1, 1)
    columns = _within(boxes[:, 1], boxes[:, 3], pixels.shape[-1]).view(len(pixels), *lead, 1, -1)
    return torch.where(rows & columns, other, pixels)


def _within(start: Tensor, extent: Tensor, side: int) -> Tensor:
    """bool `[B, side]`: which places along one side belong to the box."""
    places = torch.arange(side, device=start.device)
    return (places >= start[:, None]) & (places < (start + extent)[:, None])
