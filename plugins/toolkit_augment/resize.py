"""Random resized crop: a random part of random shape, resized with an antialiasing filter."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name the field knows

from toolkit.api.contracts import Batch, DataSpec, Draws
from toolkit_augment.boxes import draw_boxes
from toolkit_augment.pixels import check_range, empty, on_host


def random_resized_crop(
    spec: DataSpec,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> RandomResizedCrop:
    """A random part of the image resized (bilinear, antialiased) to the size the model sees (arXiv 1409.4842).

    scale: least and greatest area of the part, as a share of the image's.
    ratio: least and greatest width / height of the part.
    """
    check_range("scale", scale, high=1.0)
    check_range("ratio", ratio)
    return RandomResizedCrop(spec.size, scale, ratio)


@dataclass(frozen=True)
class RandomResizedCrop:
    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        height, width = batch.pixels.shape[-2:]
        boxes = draw_boxes(draws, (height, width), self.scale, self.ratio)
        resize = resize_one_by_one if on_host(batch.pixels) else resize_at_once
        return replace(batch, pixels=resize(batch.pixels, boxes, self.size))


def resize_one_by_one(pixels: Tensor, boxes: Tensor, size: int) -> Tensor:
    out = empty(pixels, size, size)
    room = out.numpy()  # its copies stay in this thread; torch would wake its helpers for each sample
    for sample, (top, left, height, width) in enumerate(boxes.tolist()):
        part = _frames(pixels, sample)[..., top : top + height, left : left + width]
        room[sample] = F.interpolate(part, (size, size), mode="bilinear", antialias=True).numpy()
    return out


def _frames(pixels: Tensor, sample: int) -> Tensor:
    """One sample as `[frames, 3, H, W]`; a slice keeps the stride by which torch knows that channels lie innermost."""
    return pixels[sample : sample + 1].flatten(0, -4)


def resize_at_once(pixels: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Crop and resize as two matrix products a sample: rows mixed by one matrix, columns by another."""
    height, width = pixels.shape[-2:]
    rows = triangle_weights(boxes[:, 0], boxes[:, 2], size, height)
    columns = triangle_weights(boxes[:, 1], boxes[:, 3], size, width)
    images = pixels.flatten(1, -3).float()
    mixed = torch.einsum("bph,bchw->bcpw", rows, images)
    mixed = torch.einsum("bcpw,bqw->bcpq", mixed, columns)
    return mixed.round_().clamp_(0, 255).to(torch.uint8).view(*pixels.shape[:-2], size, size)


def triangle_weights(start: Tensor, extent: Tensor, size: int, side: int) -> Tensor:
    """float32 `[B, size, side]`: how much each of `side` pixels counts in each of `size` pixels of the part's resize.

    The triangle filter of antialiased bilinear resizing: as wide as an output pixel is, never narrower than an input
    pixel; only pixels of the part (`extent` from `start`) count.
    """
    start, extent = start[:, None, None], extent[:, None, None]
    scale = extent / size
    centres = start + scale * (torch.arange(size, device=start.device)[:, None] + 0.5)
    places = torch.arange(side, device=start.device)
    weights = (1 - (places + 0.5 - centres).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((places >= start) & (places < start + extent))
    return weights / weights.sum(dim=-1, keepdim=True)
