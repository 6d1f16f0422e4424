"""Mixup and cutmix: each sample is mixed with another of its group in the batch, and so are their targets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from toolkit.api.contracts import Batch, DataSpec, Draws
from toolkit_augment.boxes import draw_centred, pasted, rounded_root
from toolkit_augment.pixels import Share, parts, per_sample

Alpha: TypeAlias = Annotated[float, Field(gt=0)]


def mixup(spec: DataSpec, *, alpha: Alpha = 0.2, p: Share = 1.0) -> Mixup:
    """Pixels and targets become lambda x own + (1 - lambda) x partner's (arXiv 1710.09412).

    The partner is another one of four neighbours in the shuffled batch. Each sample draws its lambda from Beta(alpha,
    alpha). Targets become float32 `[B, C]`.

    alpha: small values mostly keep one of the two, 1 draws lambda evenly, large values mix half and half.
    p: share of samples that are mixed.
    """
    return Mixup(len(spec.classes), alpha, p)


@dataclass(frozen=True)
class Mixup:
    classes: int
    alpha: float
    p: float

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        kept, partner = _draw(draws, self.alpha, self.p)
        targets = mixed_targets(batch.targets, partner, kept, self.classes)
        return replace(batch, pixels=blended(batch.pixels, partner, kept), targets=targets)


def cutmix(spec: DataSpec, *, alpha: Alpha = 1.0, p: Share = 1.0) -> Cutmix:
    """A box of each image shows its partner's pixels, the same box in all frames of a clip (arXiv 1905.04899).

    The partner is another one of four neighbours in the shuffled batch. Each sample draws its lambda from Beta(alpha,
    alpha). The box has 1 - lambda of the area around a random pixel, less what lies outside the image. Targets become
    float32 `[B, C]` in proportion to the pixels really shown.

    alpha: small values mostly keep one of the two, 1 draws the area evenly, large values mix half and half.
    p: share of samples that are mixed.
    """
    return Cutmix(len(spec.classes), alpha, p)


@dataclass(frozen=True)
class Cutmix:
    classes: int
    alpha: float
    p: float

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        height, width = batch.pixels.shape[-2:]
        kept, partner = _draw(draws, self.alpha, self.p)
        tall, wide = (rounded_root((1 - kept) * side**2).long() for side in (height, width))
        boxes = draw_centred(draws, (height, width), (tall, wide))
        shown = 1 - (boxes[:, 2] * boxes[:, 3]).float() / (height * width)
        targets = mixed_targets(batch.targets, partner, shown, self.classes)
        return replace(batch, pixels=pasted(batch.pixels, boxes, batch.pixels[partner]), targets=targets)


def _draw(draws: Draws, alpha: float, p: float) -> tuple[Tensor, Tensor]:
    """How much each sample keeps of itself, 0..1, and which sample is its partner."""
    partner = draws.partners()
    return torch.where(draws.chance(p), draws.beta(alpha), 1.0), partner


def blended(pixels: Tensor, partner: Tensor, kept: Tensor) -> Tensor:
    """uint8 `[B, ..., H, W]`: `kept` (float32 `[B]`) x own + (1 - `kept`) x partner's (int64 `[B]`), rounded."""
    out = torch.empty_like(pixels)
    for part in parts(pixels):
        theirs = pixels[partner[part]].float()
        out[part] = theirs.lerp(pixels[part].float(), per_sample(kept[part], pixels)).round_()
    return out


def mixed_targets(targets: Tensor, partner: Tensor, kept: Tensor, classes: int) -> Tensor:
    """float32 `[B, C]`, each row `kept` of its own target and the rest of its partner's."""
    own = targets if targets.ndim == 2 else one_hot(targets, classes)
    return own[partner].lerp(own, kept[:, None])


def one_hot(targets: Tensor, classes: int) -> Tensor:
    """float32 `[B, C]`; torch's own reads the targets' range back to the host."""
    return torch.zeros(len(targets), classes, device=targets.device).scatter_(1, targets[:, None], 1.0)
