"""What a frozen network computes once for each item of a run: features in place of pixels, or a teacher's answers."""

from __future__ import annotations

from dataclasses import replace

import torch

from toolkit.api.contracts import Headed, Mirroring
from toolkit.api.errors import Problem
from toolkit.api.files import cache_directory
from toolkit.build.assemble import Assembly, noise, training, training_noise
from toolkit.build.mixing import mixing
from toolkit.recipe.read import invalid
from toolkit.system.machine import memory_available
from toolkit.training.asked import Asked, Question, Recorded
from toolkit.training.features import Features, asks_once, is_fixed
from toolkit.training.modes import evaluating, is_frozen
from toolkit.training.network import Network
from toolkit.training.sharded import is_sharded
from toolkit.training.state import Setup, State
from toolkit.training.taught import Taught

KEY = "train.feature_views"
SHARE_OF_MEMORY = 0.5
"""Largest share of the free memory that features may take, or answers."""


def training_of_run(assembly: Assembly) -> tuple[State, Setup]:
    """What `fit` works with at the start of a run: see `training`, `with_features` and `with_teacher`."""
    state, setup = training(assembly)
    return state, with_teacher(assembly, with_features(assembly, setup))


def with_features(assembly: Assembly, setup: Setup) -> Setup:
    """`setup` with features in place of pixels, where the recipe asks for them, or where it says nothing and no image
    is augmented. Raises RecipeError where the recipe asks and its components do not go with it."""
    asked = assembly.recipe.train.feature_views
    drawn = bool(setup.augmentations) or assembly.spec.clip is not None
    if asked == 0 or (asked is None and drawn):
        return setup
    reason = _unsuitable(assembly, setup)
    if reason and asked:
        raise invalid(assembly.plan.source, [Problem(KEY, reason)])
    return setup if reason else _featured(assembly, setup, asked or 1)


def _unsuitable(assembly: Assembly, setup: Setup) -> str | None:
    """Why pixels are needed in each step; None where features do."""
    network, recipe = assembly.network, assembly.recipe
    model, task = recipe.model.name, recipe.task.name
    reason = ""
    if assembly.ranks.together:
        reason = "several ranks compute features in each step: use one rank"
    elif not isinstance(network.model, Headed):
        reason = f'model "{model}" has no backbone and head of its own: use another model'
    elif setup.stages.vary:
        reason = "what is trained changes from epoch to epoch: remove train.thaw_every and train.fixres"
    elif not _stays(network, setup):
        reason = "the backbone is trained, so its features change: freeze it (--set train.trained_layers=0)"
    elif not asks_once(assembly.objective, network, training_noise(assembly, 2)):
        reason = f'task "{task}" needs pixels in each step: use another task'
    elif mixed := mixing([use.name for use in recipe.augment], setup.augmentations, assembly.spec, assembly.device):
        reason = f'augmentation "{mixed}" changes targets, which are not kept with features: remove it'
    elif (needed := _bytes(assembly, setup)) > SHARE_OF_MEMORY * (free := memory_available()):
        reason = f"features take {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of memory are free: free some"
    return f"{reason}, or compute features in each step (--set {KEY}=0)" if reason else None


def _stays(network: Network, setup: Setup) -> bool:
    """Whether the backbone stays as it is while the network is trained."""
    with evaluating(network):
        network.train()
        for module in setup.stages.begin(network.model, 0):
            module.eval()
        return is_fixed(network)


def _bytes(assembly: Assembly, setup: Setup) -> int:
    """What all features take."""
    with torch.no_grad(), evaluating(assembly.network), assembly.autocast():
        one = assembly.network.features(noise(assembly, 1).pixels)
    clip, views = assembly.spec.clip, assembly.recipe.train.feature_views or 1
    items = views * setup.train.training_items + len(setup.valid.store) * (clip.views if clip else 1)
    return items * one.nbytes


def _featured(assembly: Assembly, setup: Setup, views: int) -> Setup:
    recipe = assembly.recipe
    model = recipe.model.model_dump(exclude={"weights"})
    decided = (model, [use.model_dump() for use in recipe.augment], assembly.precision, recipe.train.channels_last)
    features = Features(
        network=assembly.network,
        train=setup.train,
        valid=setup.valid,
        augmentations=setup.augmentations,
        autocast=assembly.autocast,
        seed=setup.seed,
        batch=setup.eval_batch,
        views=views,
        decided=repr(decided),
        folder=cache_directory() / "features",
        limit=int(recipe.input.cache_gb * 2**30),
    )
    train, valid = features.loaders()
    return replace(setup, train=train, valid=valid, features=features)


def with_teacher(assembly: Assembly, setup: Setup) -> Setup:
    """`setup` with the answers of the frozen network that the loss asks about exactly the pixels it gets, where these
    do not change; with the reason where they do. Unchanged where there is no such network."""
    batch, network = training_noise(assembly, 2), assembly.network
    with torch.no_grad(), evaluating(network), assembly.autocast():
        # Nothing is compiled for two items that no step is taken on.
        asked = Recorded.of(assembly.objective, network if is_sharded(network) else network.forward, batch)
    plain = [one for one in asked if one.pixels is batch.pixels and one.network is not None and is_frozen(one.network)]
    if not plain:
        return setup
    return replace(setup, taught=_unteachable(assembly, setup, plain) or _taught(assembly, setup, plain[0]))


def _unteachable(assembly: Assembly, setup: Setup, asked: list[Question]) -> str | None:
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
    if changing or assembly.recipe.train.fixres:
        return f'augmentation "{changing[0]}" changes pixels' if changing else "train.fixres changes their size"
    if any(one != asked[0] for one in asked):
        return "the loss asks it for several things"
    needed, free = _bytes_of_answers(assembly, setup, asked[0]), memory_available()
    if needed > SHARE_OF_MEMORY * free:
        return f"answers take {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of memory are free"
    return None


def _bytes_of_answers(assembly: Assembly, setup: Setup, asked: Question) -> int:
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
