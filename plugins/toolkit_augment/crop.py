"""Random crop, with padding where nothing is stored beyond the size the model sees."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from toolkit.api.contracts import Batch, DataSpec, Draws
from toolkit.api.errors import RunFailed
from toolkit_augment.pixels import empty

Border: TypeAlias = Literal["reflect", "zero", "edge"]


def random_crop(
    spec: DataSpec,
    *,
    padding: Annotated[int, Field(ge=0)] | None = None,
    border: Border = "reflect",
    size: Annotated[int, Field(gt=0)] | None = None,
) -> RandomCrop:
    """A square cut out at a random place, the same for all frames of a clip.

    padding: pixels added on each side before the cut; by default 4 where images are stored at `size`, else 0.
    border: what the added pixels show: the image reflected, black, or its outermost pixel.
    size: side of the square in pixels; by default the size the model sees.
    """
    side = spec.size if size is None else size
    pad = (4 if spec.stored_size <= side else 0) if padding is None else padding
    if side < spec.size:
        raise ValueError(f"size: must be at least the {spec.size} pixels the model sees, got {side}")
    if side > spec.stored_size + 2 * pad:
        raise ValueError(f"size: {side} does not fit into {spec.stored_size} stored pixels padded by {pad}")
    if border == "reflect" and pad >= spec.stored_size:
        raise ValueError(f"padding: must be below the stored {spec.stored_size} pixels to reflect, got {pad}")
    return RandomCrop(side, pad, border)


@dataclass(frozen=True)
class RandomCrop:
    size: int
    padding: int
    border: Border

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        pixels = padded(batch.pixels, self.padding, self.border) if self.padding else batch.pixels
        side = pixels.shape[-1]
        if side < self.size:
            raise RunFailed(
                f"random_crop: cannot cut {self.size} pixels from an image of {side} x {side}",
                next_step="raise input.stored or random_crop's padding, or move random_crop up in the list",
            )
        corners = draws.integers(0, side - self.size + 1, (2,))
        return replace(batch, pixels=cut(pixels, corners, self.size))


def padded(pixels: Tensor, padding: int, border: Border) -> Tensor:
    """`pixels` `[..., H, W]` with `padding` more on each of the four sides, in the same memory layout."""
    height, width = pixels.shape[-2:]
    out = empty(pixels, height + 2 * padding, width + 2 * padding)
    out[..., padding : padding + height, padding : padding + width] = pixels
    _fill_ends(out[..., padding : padding + height, :], padding, border)
    _fill_ends(out.mT, padding, border)
    return out


def _fill_ends(lines: Tensor, padding: int, border: Border) -> None:
    """Fill the first and last `padding` of the last dimension from what lies between."""
    first, last = lines[..., :padding], lines[..., -padding:]
    if border == "zero":
        first.zero_()
        last.zero_()
    elif border == "edge":
        first.copy_(lines[..., padding : padding + 1].expand_as(first))
        last.copy_(lines[..., -padding - 1 : -padding].expand_as(last))
    else:
        first.copy_(lines[..., padding + 1 : 2 * padding + 1].flip(-1))
        last.copy_(lines[..., -2 * padding - 1 : -padding - 1].flip(-1))


def cut(pixels: Tensor, corners: Tensor, size: int) -> Tensor:
    """The `size` x `size` window of each sample whose top left pixel is at `corners` `[B, 2]`; same memory layout.

    A row of a window is one stretch of memory: all rows of a batch are one gather of overlapping stretches.
    """
    innermost = pixels.stride(-3) == 1
    planes = pixels.movedim(-3, -1) if innermost else pixels.unsqueeze(-1)
    *lead, height, width, values = planes.shape
    count = math.prod(lead)
    tops, lefts = corners.repeat_interleave(count // len(pixels), dim=0).unsqueeze(-1).unbind(1)
    rows = torch.arange(0, count * height, height, device=pixels.device)[:, None] + tops
    starts = ((rows + torch.arange(size, device=pixels.device)) * width + lefts) * values
    stretches = planes.reshape(-1).unfold(0, size * values, 1)
    windows = stretches.index_select(0, starts.flatten()).view(*lead, size, size, values)
    return windows.movedim(-1, -3) if innermost else windows.squeeze(-1)
