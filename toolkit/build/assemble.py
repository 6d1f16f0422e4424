"""From a plan to what training needs: pixels on their way to the device, a network, an optimizer, a setup."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from toolkit.api.contract_checks import check_answers, check_objective
from toolkit.api.contracts import Data, DataSpec, Horizon, Metric, Noted, Objective, Schedule, Split, VideoSplit
from toolkit.api.errors import PluginError
from toolkit.build.agreement import disagreements
from toolkit.build.kept import Kept, Opened
from toolkit.build.plan import Plan
from toolkit.build.summary import Summary, summarise
from toolkit.data.loader import Loader, batches_in
from toolkit.data.store import ClipStore, Corrupt, ImageStore, Memory, VideoCache, bytes_needed, open_storage
from toolkit.recipe.read import invalid
from toolkit.recipe.tables import Recipe
from toolkit.system import device as devices
from toolkit.system.choices import Precision
from toolkit.system.machine import memory_available
from toolkit.system.randomness import seed_globally
from toolkit.training.network import Network
from toolkit.training.optimize import model_parts, parameter_groups, warmed_up
from toolkit.training.state import Average, Setup, State, Totals


@dataclass(frozen=True)
class Assembly:
    """A recipe's components, built and joined."""

    plan: Plan
    network: Network
    objective: Objective
    device: torch.device
    precision: Precision
    opened: Opened
    model_notes: tuple[str, ...]
    kept: Kept

    @property
    def data(self) -> Data:
        return self.opened.data

    @property
    def train(self) -> Loader:
        return self.opened.train

    @property
    def valid(self) -> Loader:
        return self.opened.valid

    @property
    def test(self) -> Loader:
        return self.opened.test

    @property
    def recipe(self) -> Recipe:
        return self.plan.resolved

    @property
    def spec(self) -> DataSpec:
        return self.data.spec

    def autocast(self) -> AbstractContextManager[None]:
        return devices.autocast(self.device, self.precision)

    def metrics(self) -> list[Metric]:
        return self.plan.metrics(self.spec)

    @property
    def summary(self) -> Summary:
        decided = self.recipe.model, self.spec, self.device
        anew = partial(summarise, self.network, self.spec, self.device, compiled=self.recipe.train.compile)
        return self.kept.summary(decided, anew)

    def environment(self) -> Mapping[str, Any]:
        """The contents of environment.json."""
        return self.kept.environment(self.device)

    def loaders(self) -> dict[str, Loader]:
        return {"train": self.train, "valid": self.valid, "test": self.test}


def assemble(
    plan: Plan,
    kept: Kept | None = None,
    *,
    notes: Sequence[str] | None = None,
    precision: Precision | None = None,
) -> Assembly:
    """Build what evaluation needs. Raises the errors of the components.

    `kept` is what this process has kept of the last run. `notes` are those of the model of a run whose weights will be
    loaded: the model is then built without fetching initial weights. `precision` is the one to go on in, whatever would
    be chosen here.
    """
    recipe = plan.resolved
    kept = kept or Kept()
    devices.make_deterministic(recipe.train.deterministic)
    device = devices.choose_device(recipe.train.device)
    precision = devices.choose_precision(recipe.train.precision, device, precision)
    devices.use_full_float32(precision == "fp32")
    devices.use_threads(recipe.train.threads if device.type == "cpu" else None)
    if device.type == "cpu":
        devices.keep_freed_memory()
    opened = kept.opened(plan, device, partial(_opened, plan, device))
    if recipe.train.compile:
        kept.compiling(recipe)
    seed_globally(device, recipe.seed, "weights")
    model = plan.model(opened.data.spec, initial_weights=notes is None)
    if notes is None:
        notes = model.notes if isinstance(model, Noted) else ()
    network = _network(plan, model, opened.data.spec, device)
    objective = plan.objective(opened.data.spec, opened.data.train.targets, device)
    return Assembly(plan, network, objective, device, precision, opened, tuple(notes), kept)


def _network(plan: Plan, model: nn.Module, spec: DataSpec, device: torch.device) -> Network:
    network = Network(model, spec).to(device)
    if plan.resolved.train.channels_last and spec.clip is None:
        network = network.to(memory_format=torch.channels_last)
    return network


def _opened(plan: Plan, device: torch.device) -> Opened:
    data, recipe = plan.data(), plan.resolved
    pixels = _footage(data, recipe) if data.spec.clip else _pixels(data, recipe)
    return Opened(data, *(Loader(one, data.spec, device) for one in pixels))


def _pixels(data: Data, recipe: Recipe) -> list[ImageStore]:
    budget = memory_available() // 2 if recipe.input.memory_gb is None else int(recipe.input.memory_gb * 2**30)
    found = []
    for split in _images(data):
        storage = open_storage(split, data.spec, memory_bytes=budget, cache_bytes=_cache_bytes(recipe))
        if isinstance(storage, Memory):
            budget -= bytes_needed(split, data.spec)
        found.append(ImageStore(split, data.spec, storage, _workers(recipe), corrupt_of(recipe)))
    return found


def _footage(data: Data, recipe: Recipe) -> list[ClipStore]:
    cache = VideoCache.of_user(_cache_bytes(recipe))
    return [
        ClipStore(split, data.spec, cache, _workers(recipe), corrupt_of(recipe), training=split is data.train)
        for split in _videos(data)
    ]


def _images(data: Data) -> list[Split]:
    images: list[Split] = []
    for split in (data.train, data.valid, data.test):
        if isinstance(split, VideoSplit):
            raise PluginError(f"the dataset gave videos ({type(split).__name__}) where images were asked for")
        images.append(split)
    return images


def _videos(data: Data) -> list[VideoSplit]:
    videos: list[VideoSplit] = []
    for split in (data.train, data.valid, data.test):
        if not isinstance(split, VideoSplit):
            raise PluginError(f"the dataset gave images ({type(split).__name__}) where videos were asked for")
        videos.append(split)
    return videos


def _cache_bytes(recipe: Recipe) -> int:
    return int(recipe.input.cache_gb * 2**30)


def _workers(recipe: Recipe) -> int:
    return recipe.input.workers or torch.get_num_threads()


def corrupt_of(recipe: Recipe) -> Corrupt:
    """What the recipe does with items that cannot be read."""
    return Corrupt(skip=recipe.input.on_corrupt == "skip", limit=recipe.input.corrupt_limit)


def training(assembly: Assembly) -> tuple[State, Setup]:
    """What `fit` works with, at the start of training. Raises RecipeError where the recipe and what it built
    disagree."""
    table = assembly.recipe.train
    horizon = Horizon(batches_in(assembly.train.training_items, table.batch), table.epochs)
    schedule: Schedule = assembly.plan.one("schedule").build(horizon, table.direction)
    problems = list(
        disagreements(
            assembly.recipe,
            assembly.spec,
            parts=_parts(assembly),
            objective=assembly.objective,
            metrics=assembly.metrics(),
            schedule=schedule,
            validates=len(assembly.valid.pixels) > 0,
        )
    )
    if problems:
        raise invalid(assembly.plan.source, problems)
    with assembly.autocast():
        check_answers(assembly.network, assembly.spec, assembly.device, assembly.plan.one("model").failed)
    check_objective(assembly.objective, assembly.spec, assembly.device, assembly.plan.one("task").failed)
    setup = _setup(assembly)
    warm = warmed_up(schedule, table.schedule.warmup_epochs * setup.steps)
    return _state(assembly, warm), setup


def _setup(assembly: Assembly) -> Setup:
    recipe, table = assembly.recipe, assembly.recipe.train
    return Setup(
        train=assembly.train,
        valid=assembly.valid,
        augmentations=assembly.plan.augmentations(assembly.spec),
        metrics=assembly.metrics,
        autocast=assembly.autocast,
        seed=recipe.seed,
        epochs=table.epochs,
        batch=table.batch,
        eval_batch=table.eval_batch or table.batch,
        accumulate=table.accumulate,
        clip_norm=table.clip_norm,
        metric=table.metric,
        direction=table.direction,
        sample=assembly.spec.sample,
    )


def _state(assembly: Assembly, schedule: Schedule) -> State:
    network, table = assembly.network, assembly.recipe.train
    average = None if table.ema is None else Average(network, copy.deepcopy(network), table.ema)
    if table.compile:
        network.compile()
    return State(
        network=network,
        objective=assembly.objective,
        optimizer=_optimizer(assembly),
        schedule=schedule,
        scaler=torch.amp.GradScaler(assembly.device.type, enabled=assembly.precision == "fp16"),
        average=average,
        totals=Totals.on(assembly.device),
    )


def _optimizer(assembly: Assembly) -> torch.optim.Optimizer:
    table, chosen = assembly.recipe.train.optimizer, assembly.plan.one("optimizer")
    scales = {name: rates.lr_scale for name, rates in table.parts.items()}
    groups = list(
        parameter_groups(_parts(assembly), table.lr, scales, decay_norms_and_biases=table.decay_norms_and_biases)
    )
    optimizer: torch.optim.Optimizer = chosen.build(groups, lr=table.lr)
    # The loop finds the rate of a group by what the core wrote into it.
    if [group.get("name") for group in optimizer.param_groups] != [group["name"] for group in groups]:
        raise chosen.failed("does not keep the parameter groups that it is given")
    return optimizer


def _parts(assembly: Assembly) -> Mapping[str, nn.Module]:
    """What is trained, by the names under which a recipe scales learning rates."""
    parts = model_parts(assembly.network.model)
    objective = assembly.objective
    trained = any(parameter.requires_grad for parameter in objective.parameters())
    return {**parts, "objective": cast(nn.Module, objective)} if trained else parts


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
