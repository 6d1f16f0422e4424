"""timm's mixup and cutmix, on uint8 batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, TypeAlias

import torch
from pydantic import Field

from toolkit.api.contracts import Batch, DataSpec, Draws
from toolkit_timm.draws import global_draws_given_back, seed_global_draws
from toolkit_timm.names import timm

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Alpha: TypeAlias = Annotated[float, Field(ge=0)]


def mixup(
    spec: DataSpec, *, p: Share = 1.0, mixup_alpha: Alpha = 0.8, cutmix_alpha: Alpha = 1.0, switch_p: Share = 0.5
) -> Mixup:
    """timm's Mixup: each image with a partner that is drawn from its group of the batch.

    An image is blended with its partner (arXiv 1710.09412) or shows a box of it (arXiv 1905.04899), by a draw of its
    own; all frames of a clip alike. Targets become float32 `[B, C]`.

    p: probability, 0 to 1, for each image
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

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        # An image and its partner are a batch of two to timm, of which the first is kept.
        library = timm().data.mixup
        mixing = library.Mixup(
            **self.strength, mode="batch", label_smoothing=0.0, num_classes=self.classes, multi_label=True
        )
        targets = batch.targets if batch.targets.ndim == 2 else library.one_hot(batch.targets, self.classes)
        partners = draws.partners()
        images = torch.stack((batch.pixels, batch.pixels[partners]), dim=1).flatten(2, -3).float()
        labels = torch.stack((targets, targets[partners]), dim=1)
        mixed = []
        with global_draws_given_back():
            for seed, image, label in zip(draws.seeds(), images, labels, strict=True):
                seed_global_draws(seed)
                mixed.append([whole[0] for whole in mixing(image, label)])
        pixels, probabilities = (torch.stack(column) for column in zip(*mixed, strict=True))
        return replace(batch, pixels=pixels.round_().to(torch.uint8).view_as(batch.pixels), targets=probabilities)
