"""Random resized crop: a random part of random shape, resized with an antialiasing filter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
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
    """Each of torch's threads takes its share of the samples, since the kernel for uint8 keeps to the thread that calls
    it. NumPy copies what goes in and out: torch would wake its helpers for each copy, which takes milliseconds where
    other processes have the cores."""
    innermost = pixels.stride(-3) == 1
    out = empty(pixels, size, size)
    stored, room = pixels.numpy(), out.numpy()
    parts = boxes.tolist()

    def resize(samples: range) -> None:
        for sample in samples:
            top, left, height, width = parts[sample]
            part = stored[sample, ..., top : top + height, left : left + width]
            frames = part.reshape(-1, *part.shape[-3:])
            if innermost:
                laid_out = torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, -3, -1))).movedim(-1, -3)
            else:
                laid_out = torch.from_numpy(np.ascontiguousarray(frames))
            resized = F.interpolate(laid_out, (size, size), mode="bilinear", antialias=True)
            room[sample] = resized.numpy().reshape(room.shape[1:])

    shares = max(min(torch.get_num_threads(), len(parts)), 1)
    with ThreadPoolExecutor(shares) as threads:
        for _ in threads.map(resize, (range(share, len(parts), shares) for share in range(shares))):
            pass
    return out


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
