"""Random erasing and cutout: a box of each image is hidden."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from toolkit.api.contracts import Batch, DataSpec, Draws
from toolkit_augment.boxes import draw_boxes, draw_centred, pasted
from toolkit_augment.pixels import Share, check_range

Fill: TypeAlias = Literal["mean", "zero", "noise"]
Colour: TypeAlias = tuple[int, int, int]


def random_erasing(
    spec: DataSpec,
    *,
    p: Share = 0.5,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    fill: Fill = "mean",
) -> RandomErasing:
    """A box of random size and shape is hidden, the same in all frames of a clip (arXiv 1708.04896).

    p: probability, 0 to 1, for each sample.
    scale: least and greatest area of the box, as a share of the image's.
    ratio: least and greatest width / height of the box.
    fill: what hides it: the data's mean colour, black, or noise drawn for every pixel.
    """
    check_range("scale", scale, high=1.0)
    check_range("ratio", ratio)
    return RandomErasing(p, scale, ratio, fill, _mean_colour(spec))


@dataclass(frozen=True)
class RandomErasing:
    p: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    fill: Fill
    mean: Colour

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        pixels = batch.pixels
        drawn = draws.chance(self.p)
        boxes = draw_boxes(draws, (pixels.shape[-2], pixels.shape[-1]), self.scale, self.ratio)
        cover = _cover(pixels, draws, self.fill, self.mean)
        return replace(batch, pixels=pasted(pixels, boxes * drawn[:, None], cover))


def cutout(spec: DataSpec, *, size: Annotated[int, Field(gt=0)] | None = None) -> Cutout:
    """A square around a random pixel is hidden by the data's mean colour, the same in all frames (arXiv 1708.04552).

    What of the square lies outside the image is lost, as in the paper.

    size: side of the square in pixels; by default half of what the model sees.
    """
    return Cutout(size or max(1, spec.size // 2), _mean_colour(spec))


@dataclass(frozen=True)
class Cutout:
    size: int
    mean: Colour

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        pixels = batch.pixels
        extent = torch.full((len(pixels),), self.size, device=pixels.device)
        boxes = draw_centred(draws, (pixels.shape[-2], pixels.shape[-1]), (extent, extent))
        return replace(batch, pixels=pasted(pixels, boxes, _cover(pixels, draws, "mean", self.mean)))


def _mean_colour(spec: DataSpec) -> Colour:
    red, green, blue = (round(255 * channel) for channel in spec.mean)
    return red, green, blue


def _cover(pixels: Tensor, draws: Draws, fill: Fill, mean: Colour) -> Tensor:
    """uint8 of the shape of `pixels`: what shows where a box hides the image."""
    if fill == "noise":
        frames = [1] * (pixels.ndim - 4)
        return draws.bytes((*frames, *pixels.shape[-3:])).expand_as(pixels)
    colour = pixels.new_zeros(3)
    if fill == "mean":
        for channel, level in enumerate(mean):
            colour[channel].fill_(level)  # a number filled in on the device, where copying a list would wait for it
    return colour.view(3, 1, 1).expand_as(pixels)
