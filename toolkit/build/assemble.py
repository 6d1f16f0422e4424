"""From a plan to what training needs: pixels on their way to the device, a network, an optimizer, a setup."""

from __future__ import annotations

import copy
import platform
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from toolkit.api.contract_checks import check_answers, check_objective
from toolkit.api.contracts import Data, DataSpec, Horizon, Metric, Noted, Objective, Pretraining, Schedule, VideoSplit
from toolkit.api.errors import PluginError, UsageError
from toolkit.api.files import cache_directory
from toolkit.build.agreement import disagreements
from toolkit.build.kept import Kept, Opened
from toolkit.build.mixing import indistinct_views
from toolkit.build.plan import Plan
from toolkit.build.summary import Summary, summarise
from toolkit.build.teacher import open_network
from toolkit.data.loader import Loader, Share, batches_in, side_by_side, target_tensor
from toolkit.data.store.clips import ClipStore, VideoCache
from toolkit.data.store.corrupt import Corrupt
from toolkit.data.store.images import ImageStore
from toolkit.data.store.storage import Memory, open_storage
from toolkit.data.store.store import Store
from toolkit.recipe.read import invalid
from toolkit.recipe.tables import InputTable, Recipe, ScheduleTable, TrainTable
from toolkit.recipe.write import digest, to_toml
from toolkit.system import device as devices
from toolkit.system.choices import Precision
from toolkit.system.draws import GROUP
from toolkit.system.machine import memory_available
from toolkit.system.randomness import seed_globally
from toolkit.system.ranks import ALONE, Ranks
from toolkit.training.checkpoint import Origin
from toolkit.training.network import Network, feature_size
from toolkit.training.optimize import (
    LayerDecay,
    freeze_layers,
    parameter_groups,
    trained_parts,
    undecayed,
    warmed_up,
)
from toolkit.training.parallel import Parallel
from toolkit.training.sharded import is_sharded, step_apart
from toolkit.training.stages import Fixres, Stage, Stages, trainable
from toolkit.training.state import Average, Setup, State, Totals, views_of


@dataclass(frozen=True)
class Assembly:
    """A recipe's components, built and joined."""

    plan: Plan
    network: Network
    objective: Objective
    device: torch.device
    precision: Precision
    model_notes: tuple[str, ...]
    kept: Kept
    data: Data
    train: Loader
    valid: Loader
    test: Loader
    unknown: Loader | None = None
    """Test items of classes that the model never learns."""
    hosts: tuple[str, ...] = ()
    """Machine and device of each of several ranks."""

    @property
    def ranks(self) -> Ranks:
        return self.train.ranks

    @property
    def recipe(self) -> Recipe:
        return self.plan.resolved

    @property
    def spec(self) -> DataSpec:
        return self.data.spec

    @property
    def steps_per_epoch(self) -> int:
        return batches_in(self.train.training_items, self.recipe.train.batch_size)

    def autocast(self) -> AbstractContextManager[None]:
        return devices.autocast(self.device, self.precision)

    def metrics(self) -> list[Metric]:
        return self.plan.metrics(self.spec)

    @property
    def summary(self) -> Summary:
        make = partial(summarise, self.network, self.spec, self.device, compiled=self.recipe.train.compile)
        return self.kept.summary.get(
            (self.recipe.model, self.recipe.train.trained_layers, self.spec, self.device), make
        )

    def environment(self) -> Mapping[str, Any]:
        """The contents of environment.json."""
        found = self.kept.environment(self.device)
        return {**found, "ranks": list(self.hosts)} if self.hosts else found

    def origin(self) -> Origin:
        """What every checkpoint of the run records."""
        return Origin(
            recipe=to_toml(self.recipe),
            digest=digest(self.recipe),
            classes=list(self.spec.classes),
            sample=self.spec.sample,
            protocol=dict(self.data.protocol),
            notes=list(self.model_notes),
            precision=self.precision,
            answers=not isinstance(self.objective, Pretraining),
        )

    def loaders(self) -> dict[str, Loader]:
        """By split, of `unknown` items too where the recipe holds classes out."""
        unknown = {} if self.unknown is None else {"unknown": self.unknown}
        return {"train": self.train, "valid": self.valid, "test": self.test, **unknown}


def assemble(
    plan: Plan,
    kept: Kept | None = None,
    *,
    ranks: Ranks = ALONE,
    notes: Sequence[str] | None = None,
    precision: Precision | None = None,
) -> Assembly:
    """Build what evaluation needs. Raises the errors of the components.

    `kept` is what this process has kept of the last run. `notes` are those of the model of a run whose weights will be
    loaded: the model is then built without fetching initial weights. `precision` is the one to go on in, whatever would
    be chosen here. `ranks` are those that train and evaluate together.
    """
    recipe = plan.resolved
    kept = kept or Kept()
    devices.make_deterministic(recipe.train.deterministic)
    device = devices.choose_device(recipe.train.device, ranks)
    precision = devices.choose_precision(recipe.train.precision, device, precision)
    devices.use_full_float32(precision == "fp32")
    devices.use_threads(recipe.train.threads if device.type == "cpu" else None)
    if device.type == "cpu":
        devices.keep_freed_memory()
    opened = kept.opened((plan.definition_of_data, device), partial(_opened, plan, device, ranks))
    spec = opened.data.spec
    if recipe.train.compile:
        kept.compiling(_shape_of_step(recipe))
    seed_globally(device, recipe.seed, "weights")
    model = plan.model(spec, initial_weights=notes is None, examples=opened.train.first if notes is None else None)
    if notes is None:
        notes = model.notes if isinstance(model, Noted) else ()
    network = Network(model, spec).to(device)
    if recipe.train.channels_last and spec.clip is None:
        network = network.to(memory_format=torch.channels_last)
    objective = plan.objective(
        spec,
        opened.data.train.targets,
        device,
        network_of=partial(open_network, plan, spec, device),
        feature_size=partial(feature_size, network, spec),
    )
    here = f"{platform.node()}: {device} ({devices.describe(device)})"
    hosts = tuple(ranks.gather(here)) if ranks.together else ()
    return Assembly(plan, network, objective, device, precision, tuple(notes), kept, *opened, hosts)


def _opened(plan: Plan, device: torch.device, ranks: Ranks) -> Opened:
    """The dataset and a loader of each split, and of unknown items; the first splits get what there is of memory."""
    data, table, corrupt = plan.data(), plan.resolved.input, corrupt_of(plan.resolved)
    # Ranks on one machine share a file of decoded pixels, so that each image is decoded once.
    memory = memory_for_pixels(table) if ranks.local_count == 1 else 0
    disk, workers = int(table.cache_gb * 2**30), table.workers or torch.get_num_threads()
    cache = VideoCache(cache_directory() / "videos", disk)
    loaders = []
    for split in (data.train, data.valid, data.test, *([data.unknown] if data.unknown else [])):
        store: Store
        if isinstance(split, VideoSplit) and data.spec.clip:
            store = ClipStore(split, data.spec, cache, workers, corrupt, training=split is data.train)
        elif not isinstance(split, VideoSplit) and not data.spec.clip:
            storage = open_storage(split, data.spec, memory_bytes=memory, cache_bytes=disk)
            memory -= storage.pixels.nbytes if isinstance(storage, Memory) else 0
            store = ImageStore(split, data.spec, storage, workers, corrupt)
        else:
            given, asked = ("images", "videos") if data.spec.clip else ("videos", "images")
            raise PluginError(f"expected {asked} from the dataset, got {given} ({type(split).__name__})")
        loaders.append(Loader(store, data.spec, device, ranks=ranks))
    return Opened(data, *loaders)


def _shape_of_step(recipe: Recipe) -> dict[str, Any]:
    """All of the recipe but what a step takes as numbers, or does not see."""
    free = {"name", "seed", "augment", "metrics", "trackers", "export", "tune"}
    tables = recipe.model_dump(exclude=free)
    tables["augment"] = [use.name for use in recipe.augment]
    for key in ("epochs", "optimizer", "schedule", "patience", "metric", "direction", "checkpoint_minutes"):
        del tables["train"][key]
    return tables


def memory_for_pixels(table: InputTable) -> int:
    """Bytes that decoded pixels may take: the recipe's own limit, or half of what is free."""
    return memory_available() // 2 if table.memory_gb is None else int(table.memory_gb * 2**30)


def corrupt_of(recipe: Recipe) -> Corrupt:
    """What the recipe does with items that cannot be read."""
    table = recipe.input
    return Corrupt(table.on_corrupt == "skip", table.corrupt_limit, table.damaged_share)


def training(assembly: Assembly) -> tuple[State, Setup]:
    """What `fit` works with, at the start of training. Raises RecipeError where the recipe and what it built
    disagree."""
    table, ranks = assembly.recipe.train, assembly.ranks
    if table.batch_size < GROUP * ranks.count and ranks.together:
        raise UsageError(
            f"train.batch: {ranks.count} ranks need batches of at least {GROUP * ranks.count} items in all, "
            f"got {table.batch_size}",
            next_step=f"use larger batches (--set train.batch={GROUP * ranks.count}) or fewer ranks",
        )
    schedule = schedule_over(assembly, table.epochs)
    with assembly.autocast():
        check_answers(assembly.network, assembly.spec, assembly.device, assembly.plan.one("model").offer.failed)
    # Before anything asks for its parameters: it may make them when it is first asked.
    check_objective(
        assembly.objective, assembly.network, assembly.spec, assembly.device, assembly.plan.one("task").offer.failed
    )
    setup = _setup(assembly)
    problems = list(
        disagreements(
            assembly.recipe,
            assembly.spec,
            parts=trained_parts(assembly.network.model, assembly.objective),
            objective=assembly.objective,
            metrics=assembly.metrics(),
            schedule=schedule,
            validates=len(assembly.valid.store) > 0,
            model=assembly.network.model,
        )
    )
    names = [use.name for use in assembly.recipe.augment]
    task = assembly.recipe.task.name
    problems += indistinct_views(task, assembly.objective, names, setup.augmentations, assembly.spec)
    if problems:
        raise invalid(assembly.plan.source, problems)
    warmed = warmed_up(schedule, warm_up_steps(table.schedule, setup.steps))
    return _state(assembly, warmed, by_layer=setup.stages.thaw), setup


def stages_of(table: TrainTable, model: nn.Module) -> Stages:
    """What each epoch trains, of a model that nothing has frozen but itself."""
    fixres = None
    if found := table.fixres:
        factor = None if found.lr is None else found.lr / table.optimizer.lr
        fixres = Fixres(found.size, Stage(found.layers, factor=factor), found.epochs)
    return Stages(table.epochs, table.trained_layers, table.thaw_every, fixres, trainable(model))


def warm_up_steps(table: ScheduleTable, steps_per_epoch: int) -> float:
    """How many steps the warm-up takes."""
    return table.warmup_epochs * steps_per_epoch if table.warmup_steps is None else table.warmup_steps


def schedule_over(assembly: Assembly, epochs: int) -> Schedule:
    """The recipe's schedule, without its warm-up, for a training of so many epochs."""
    table = assembly.recipe.train
    horizon = Horizon(assembly.steps_per_epoch, epochs)
    schedule: Schedule = assembly.plan.one("schedule").build(horizon, table.direction)
    return schedule


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
        batch=table.batch_size,
        eval_batch=table.eval_batch or table.batch_size,
        accumulate=table.accumulate,
        clip_norm=table.clip_norm,
        metric=table.metric,
        direction=table.direction,
        sample=assembly.spec.sample,
        views=views_of(assembly.objective),
        stages=stages_of(table, assembly.network.model),
    )


def _state(assembly: Assembly, schedule: Schedule, *, by_layer: bool) -> State:
    """`by_layer`: parameters of different layers are in different groups, since torch's fused SGD takes no group in
    which some have a momentum and others not yet."""
    network, table, chosen = assembly.network, assembly.recipe.train, assembly.plan.one("optimizer")
    scales = {name: rates.lr_scale for name, rates in table.optimizer.parts.items()}
    decays = table.optimizer.decay_norms_and_biases
    if table.trained_layers is not None:
        freeze_layers(network.model, table.trained_layers)
    # Before the network is copied, divided or compiled: it replaces layers.
    parallel = Parallel(
        network, assembly.objective, assembly.ranks, batch_norm=table.batch_norm, by_item=not table.compile
    )
    if assembly.ranks.together:
        parallel.watch_draws(training_noise(assembly, 2))
    averaged = None if table.ema is None else copy.deepcopy(network)
    if assembly.ranks.together and table.strategy == "fsdp":
        _ = assembly.summary  # kept: it runs an item through the network, which no rank can alone from here on
        parallel.shard(network, *([averaged] if averaged else []), device=assembly.device)
    decay, bare = table.optimizer.layer_decay or (1.0 if by_layer else None), undecayed(network.model)
    groups = list(
        parameter_groups(
            trained_parts(network.model, assembly.objective),
            table.optimizer.lr,
            scales,
            decay_norms_and_biases=decays,
            layer_decay=None if decay is None else LayerDecay.of(network.model, decay),
            undecayed=bare,
        )
    )
    optimizer: torch.optim.Optimizer = chosen.build(groups, lr=table.optimizer.lr)
    if is_sharded(network):
        step_apart(optimizer)
    # The loop finds the rate of a group by what the core wrote into it.
    if [group.get("name") for group in optimizer.param_groups] != [group["name"] for group in groups]:
        raise chosen.offer.failed("does not keep the parameter groups it receives")
    average = Average(network, averaged, table.ema) if averaged and table.ema else None
    if table.compile:
        network.compile()
    return State(
        network=network,
        objective=assembly.objective,
        optimizer=optimizer,
        schedule=schedule,
        scaler=torch.amp.GradScaler(assembly.device.type, enabled=assembly.precision == "fp16"),
        average=average,
        totals=Totals.on(assembly.device),
        parallel=parallel,
    )


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def noise(assembly: Assembly, size: int) -> Share:
    """So many items of noise."""
    spec = assembly.spec
    pixels = torch.randint(0, 256, (size, *spec.item_shape), dtype=torch.uint8, device=assembly.device)
    targets = target_tensor([assembly.data.train.targets[0]] * size, spec).to(assembly.device)
    return Share.whole(pixels, targets)


def training_noise(assembly: Assembly, size: int) -> Share:
    """As `noise`, with as many views of an item as the objective compares."""
    batch = noise(assembly, size)
    views = views_of(assembly.objective)
    return batch if views == 1 else replace(batch, pixels=side_by_side([batch.pixels] * views))
