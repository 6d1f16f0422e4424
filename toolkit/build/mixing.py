"""What augmentations do to targets and to views of an item, seen by trying them on noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from toolkit.api.contracts import Augmentation, Batch, DataSpec, Multiview, Objective, TargetForm, Targets
from toolkit.api.errors import Problem
from toolkit.data.loader import Share, augment, target_tensor

TRIED = 8
"""Items of noise that augmentations are tried on."""


def mixing(
    names: Sequence[str], augmentations: Sequence[Augmentation], spec: DataSpec, device: torch.device
) -> str | None:
    """The name of the first augmentation that changes targets."""
    before = _stored_noise(spec, device)
    for name, augmentation in zip(names, augmentations, strict=True):
        after: Batch = augment(before, [augmentation], device, seed=0, epoch=0)
        if after.targets.shape != before.targets.shape or not torch.equal(after.targets, before.targets):
            return name
    return None


def indistinct_views(
    task: str, objective: Objective, names: Sequence[str], augmentations: Sequence[Augmentation], spec: DataSpec
) -> Iterator[Problem]:
    """Why the views of an item, which the objective of `task` compares, are not views of it alone, or not different."""
    if not isinstance(objective, Multiview):
        return
    compares = f'task "{task}" compares {objective.views} views of each item'
    if not augmentations:
        yield Problem("augment", f"{compares}, which only augmentations make different: add some")
    elif mixed := mixing(names, augmentations, spec, torch.device("cpu")):
        yield Problem("augment", f'{compares}, and augmentation "{mixed}" mixes it with others: remove it')


def _stored_noise(spec: DataSpec, device: torch.device) -> Share:
    """Some items of noise as they are stored, whose targets differ."""
    shape = (TRIED, *spec.clip_shape, 3, spec.stored_size, spec.stored_size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    classes = len(spec.classes)
    targets: Mapping[TargetForm, Targets] = {
        "index": [item % classes for item in range(TRIED)],
        "set": [(item % classes,) for item in range(TRIED)],
        "number": [[float(item)] * classes for item in range(TRIED)],
    }
    return Share.whole(pixels, target_tensor(targets[spec.targets], spec).to(device))
