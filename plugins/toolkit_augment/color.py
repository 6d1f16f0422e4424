"""Colour: what brightness, contrast, saturation and hue do to float32 images `[N, (T,) 3, H, W]` of 0..255.

Every function takes one `amount` a sample, shaped to broadcast, and gives values that stay within 0..255.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from toolkit.api.contracts import Batch, DataSpec, Draws
from toolkit_augment.pixels import Share, parts, per_sample

Change: TypeAlias = Callable[[Tensor, Tensor], Tensor]

LUMA = (0.2989, 0.587, 0.114)
"""How much red, green and blue add to grey (ITU-R BT.601)."""
SECTORS = (5, 3, 1)
"""The places of red, green and blue on the hue circle of six sectors, seen from a hue."""


def color_jitter(
    spec: DataSpec,  # noqa: ARG001 - every factory takes the spec
    *,
    brightness: Share = 0.2,
    contrast: Share = 0.2,
    saturation: Share = 0.2,
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.05,
) -> ColorJitter:
    """Brightness, contrast, saturation and hue changed in this order, the same in all frames of a clip.

    brightness: greatest change; the factor is drawn from 1 - brightness to 1 + brightness.
    contrast: greatest change; the factor is drawn from 1 - contrast to 1 + contrast.
    saturation: greatest change; the factor is drawn from 1 - saturation to 1 + saturation.
    hue: greatest shift either way, as a share of the hue circle.
    """
    return ColorJitter(brightness, contrast, saturation, hue)


@dataclass(frozen=True)
class ColorJitter:
    brightness: float
    contrast: float
    saturation: float
    hue: float

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        changes = [
            (change, draws.uniform(middle - spread, middle + spread)) for change, middle, spread in self._steps()
        ]
        return replace(batch, pixels=changed(batch.pixels, changes)) if changes else batch

    def _steps(self) -> list[tuple[Change, float, float]]:
        steps: list[tuple[Change, float, float]] = [
            (scale_brightness, 1.0, self.brightness),
            (scale_contrast, 1.0, self.contrast),
            (scale_saturation, 1.0, self.saturation),
            (shift_hue, 0.0, self.hue),
        ]
        return [step for step in steps if step[2]]


def random_grayscale(spec: DataSpec, *, p: Share = 0.2) -> RandomGrayscale:  # noqa: ARG001 - every factory takes the spec
    """Colours turned into shades of grey, in all frames of a clip alike.

    p: probability, 0 to 1, for each sample.
    """
    return RandomGrayscale(p)


@dataclass(frozen=True)
class RandomGrayscale:
    p: float

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        kept = draws.chance(self.p).logical_not().float()
        return replace(batch, pixels=changed(batch.pixels, [(scale_saturation, kept)]))


def changed(pixels: Tensor, changes: list[tuple[Change, Tensor]]) -> Tensor:
    """uint8 `pixels` after each change by its amounts `[B]`, in order, rounded once at the end."""
    out = torch.empty_like(pixels)
    for part in parts(pixels):
        images = pixels[part].to(torch.float32, memory_format=torch.contiguous_format)
        for change, amounts in changes:
            images = change(images, per_sample(amounts[part], images))
        out[part] = images.round_()
    return out


def scale_brightness(images: Tensor, amount: Tensor) -> Tensor:
    return (images * amount).clamp_(0, 255)


def scale_contrast(images: Tensor, amount: Tensor) -> Tensor:
    """Away from (above 1) or towards (below 1) the mean grey of each image or frame."""
    return blend(grey(images).mean(dim=(-3, -2, -1), keepdim=True), images, amount)


def scale_saturation(images: Tensor, amount: Tensor) -> Tensor:
    return blend(grey(images), images, amount)


def shift_hue(images: Tensor, amount: Tensor) -> Tensor:
    """Hue turned by `amount` of the circle; value and chroma stay (the HSV model)."""
    red, green, blue = images.unbind(-3)
    value, least = images.amax(dim=-3), images.amin(dim=-3)
    chroma = value - least
    safe = chroma.clamp(min=1e-6)
    from_blue = torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4)
    sector = torch.where(value == red, (green - blue) / safe, from_blue) + 6 * amount.squeeze(-3)
    out = torch.empty_like(images)
    for channel, place in enumerate(SECTORS):
        distance = sector + place
        distance.sub_((distance / 6).floor_(), alpha=6)  # remainder, which torch has no fast form of
        distance = torch.minimum(distance, 4 - distance).clamp_(0, 1)
        torch.addcmul(value, chroma, distance, value=-1, out=out.select(-3, channel))
    return out


def grey(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(-3)
    return (red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]).unsqueeze(-3)


def blend(other: Tensor, images: Tensor, amount: Tensor) -> Tensor:
    """`other` at 0, `images` at 1, beyond `images` above 1; clamped to 0..255."""
    return torch.lerp(other.expand_as(images), images, amount.expand_as(images)).clamp_(0, 255)
