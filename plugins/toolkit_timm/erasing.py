"""timm's random erasing, on uint8 batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from toolkit.api.contracts import Batch, DataSpec, Draws
from toolkit_timm.draws import global_draws_given_back, seed_global_draws
from toolkit_timm.names import timm

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Cover: TypeAlias = Literal["const", "rand", "pixel"]


def random_erasing(
    spec: DataSpec,
    *,
    p: Share = 0.25,
    mode: Cover = "pixel",
    min_area: Annotated[float, Field(gt=0, le=1)] = 0.02,
    max_area: Annotated[float, Field(gt=0, le=1)] = 1 / 3,
    min_aspect: Annotated[float, Field(gt=0, le=1)] = 0.3,
    max_count: Annotated[int, Field(ge=1)] = 1,
) -> RandomErasing:
    """timm's RandomErasing: boxes of each image are hidden, the same ones in all frames of a clip (arXiv 1708.04896).

    timm draws the boxes; the colours are those it would leave in a normalised batch.

    p: probability, 0 to 1, for each sample
    mode: what hides them: the data's mean colour (const), a normally distributed colour for each sample (rand) or for
        each pixel (pixel)
    min_area: least area of all boxes of an image together, as a share of the image's
    max_area: greatest area of all boxes of an image together, as a share of the image's
    min_aspect: least height / width of a box; the greatest is its inverse
    max_count: greatest number of boxes; how many, is drawn for each image
    """
    if min_area > max_area:
        raise ValueError(f"min_area: must be at most max_area = {max_area:g}, got {min_area:g}")
    areas = {"min_area": min_area, "max_area": max_area, "min_aspect": min_aspect}
    return RandomErasing(spec, mode, {"probability": p, "max_count": max_count, **areas})


@dataclass(frozen=True)
class RandomErasing:
    spec: DataSpec
    mode: Cover
    boxes: dict[str, float]
    """What timm's class calls its arguments."""

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        pixels = batch.pixels
        hidden = self._hidden(pixels, draws)
        return replace(batch, pixels=torch.where(hidden, self._cover(pixels, draws), pixels))

    def _hidden(self, pixels: Tensor, draws: Draws) -> Tensor:
        """bool `[B, 1, H, W]` or `[B, 1, 1, H, W]`: where timm erases ones, it leaves zeros."""
        height, width = pixels.shape[-2:]
        mask = torch.ones(len(pixels), 1, height, width, device=pixels.device)
        erase = timm().data.random_erasing.RandomErasing(**self.boxes, mode="const", device=pixels.device)
        with global_draws_given_back():
            for seed, item in zip(draws.seeds(), mask.split(1), strict=True):
                seed_global_draws(seed)
                erase(item)
        return mask.view(len(pixels), *[1] * (pixels.ndim - 3), height, width) == 0

    def _cover(self, pixels: Tensor, draws: Draws) -> Tensor:
        """uint8 that broadcasts over `pixels`."""
        sides = pixels.shape[-2:] if self.mode == "pixel" else (1, 1)
        shape = (*[1] * (pixels.ndim - 4), 3, *sides)
        if self.mode == "const":
            colours = torch.zeros(len(pixels), *shape, device=pixels.device)
        else:
            colours = draws.normal(shape=shape)
        for colour, mean, std in zip(colours.unbind(-3), self.spec.mean, self.spec.std, strict=True):
            colour.mul_(255 * std).add_(255 * mean)  # a tensor of these would wait for the device
        return colours.round_().clamp_(0, 255).to(torch.uint8)
