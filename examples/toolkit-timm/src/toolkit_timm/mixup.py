"""timm's mixup and cutmix, on uint8 batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, TypeAlias

import torch
from pydantic import Field
from timm.data.mixup import Mixup as Mixing
from timm.data.mixup import one_hot
from toolkit.api.contracts import Batch, DataSpec
from torch import Tensor

from toolkit_timm.draws import global_draws_from

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Alpha: TypeAlias = Annotated[float, Field(ge=0)]


def mixup(
    spec: DataSpec, *, p: Share = 1.0, mixup_alpha: Alpha = 0.8, cutmix_alpha: Alpha = 1.0, switch_p: Share = 0.5
) -> Mixup:
    """timm's Mixup in its mode "pair": the first image of a batch with the last, the second with the last but one.

    Each pair is blended (arXiv 1710.09412) or shows a box of the other (arXiv 1905.04899), by a draw of its own; all
    frames of a clip alike. The one in the middle of an odd batch stays as it is. Targets become float32 `[B, C]`.

    p: probability, 0 to 1, for each pair
    mixup_alpha: of the Beta distribution that says how much of itself an image keeps where it is blended; 0: never
    cutmix_alpha: the same where it shows a box; 0: never
    switch_p: probability of a box rather than a blend, where neither alpha is 0
    """
    if not mixup_alpha and not cutmix_alpha:
        raise ValueError("mixup_alpha: must be above 0 where cutmix_alpha is 0")
    return Mixup(
        len(spec.classes),
        {"prob": p, "mixup_alpha": mixup_alpha, "cutmix_alpha": cutmix_alpha, "switch_prob": switch_p},
    )


@dataclass(frozen=True)
class Mixup:
    classes: int
    strength: dict[str, float]
    """What timm's class calls its arguments."""

    def __call__(self, batch: Batch, rng: torch.Generator) -> Batch:
        # A pair is a batch of two to timm. Its own mode "pair" would copy numbers to the device, and wait for it.
        mixing = Mixing(**self.strength, mode="batch", label_smoothing=0.0, num_classes=self.classes, multi_label=True)
        targets = batch.targets if batch.targets.ndim == 2 else one_hot(batch.targets, self.classes)
        images, labels = _paired(batch.pixels).float(), _paired(targets)
        with global_draws_from(rng):
            mixed = [mixing(image.flatten(1, -3), label) for image, label in zip(images, labels, strict=True)]
        if not mixed:
            return replace(batch, targets=targets)
        pixels, probabilities = (torch.stack(column) for column in zip(*mixed, strict=True))
        return replace(
            batch,
            pixels=_put_back(pixels.round_().to(torch.uint8).view_as(images), batch.pixels),
            targets=_put_back(probabilities, targets),
        )


def _paired(items: Tensor) -> Tensor:
    """`[B, ...]` -> `[B // 2, 2, ...]`: the first with the last, the second with the last but one, and so on."""
    half = len(items) // 2
    return torch.stack((items[:half], items[len(items) - half :].flip(0)), dim=1)


def _put_back(pairs: Tensor, items: Tensor) -> Tensor:
    """A copy of `items` in which those that `_paired` took out are replaced by `pairs`."""
    half, out = len(pairs), items.clone()
    out[:half], out[len(items) - half :] = pairs[:, 0], pairs[:, 1].flip(0)
    return out
