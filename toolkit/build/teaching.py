"""Whether what a teacher answers is computed once for each item."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from toolkit.api.contracts import Mirroring
from toolkit.build.assemble import Assembly, training_noise
from toolkit.system.machine import memory_available
from toolkit.training.asked import Asked, Question, Recorded
from toolkit.training.network import evaluating
from toolkit.training.state import Setup
from toolkit.training.taught import Taught

SHARE_OF_MEMORY = 0.5
"""Largest share of the free memory that answers may take."""


def with_teacher(assembly: Assembly, setup: Setup) -> Setup:
    """`setup` with the answers of the frozen network that the loss asks about exactly the pixels it gets, where these
    do not change; with the reason where they do. Unchanged where there is no such network."""
    batch = training_noise(assembly, 2)
    with torch.no_grad(), evaluating(assembly.network), assembly.autocast():
        asked = Recorded.of(assembly.objective, assembly.network, batch)
    plain = [one for one in asked if one.pixels is batch.pixels and one.network is not None and is_frozen(one.network)]
    if not plain:
        return setup
    return replace(setup, taught=_unsuitable(assembly, setup, plain) or _taught(assembly, setup, plain[0]))


def is_frozen(network: nn.Module) -> bool:
    """Whether training leaves a network as it is."""
    trained = any(parameter.requires_grad for parameter in network.parameters())
    return not trained and not any(module.training for module in network.modules())


def _unsuitable(assembly: Assembly, setup: Setup, asked: list[Question]) -> str | None:
    """Why a teacher is asked in each step; None where it need not be."""
    changing = [
        use.name
        for use, one in zip(assembly.recipe.augment, setup.augmentations, strict=True)
        if not isinstance(one, Mirroring)
    ]
    if assembly.ranks.together:
        return "there are several ranks"
    if assembly.spec.clip is not None:
        return "clips of a video are drawn in each epoch"
    if changing:
        return f'augmentation "{changing[0]}" changes pixels'
    if any(one != asked[0] for one in asked):
        return "the loss asks it for several things"
    needed, free = _bytes(assembly, setup, asked[0]), memory_available()
    if needed > SHARE_OF_MEMORY * free:
        return f"answers take {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of memory are free"
    return None


def _bytes(assembly: Assembly, setup: Setup, asked: Question) -> int:
    """What all answers take."""
    with torch.no_grad():
        forward = Asked(asked.network or assembly.network, assembly.autocast)
        one = forward.features(asked.pixels[:1]) if asked.features else forward(asked.pixels[:1])
    return (2 if setup.augmentations else 1) * setup.train.training_items * one.nbytes


def _taught(assembly: Assembly, setup: Setup, asked: Question) -> Taught:
    return Taught(
        teacher=asked.network or assembly.network,
        features=asked.features,
        train=setup.train,
        mirrors=[one for one in setup.augmentations if isinstance(one, Mirroring)],
        autocast=assembly.autocast,
        seed=setup.seed,
        batch=setup.batch,
    )
