"""The whole plugin interface. A plugin is a module, named by an entry point of group `toolkit`, with any of these.

Every hook takes nothing and returns names mapped to factories. A factory is a callable, or the string
"package.module:attribute", which is imported only when a recipe asks for it: keep plugin modules free of heavy
imports. The keyword-only arguments of a factory are the keys of its table in a recipe. `contracts.Model` is a factory
with data about its model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from toolkit.api import contracts

PROJECT = "toolkit"
CONTRACT = (1, 0)
"""Version of the contract with plugins: of these hooks, of what factories take and return, and of the modules public to
plugins. A plugin module may declare the one it was written for: `toolkit_contract = "1.0"`."""
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def toolkit_datasets() -> Mapping[str, contracts.DatasetFactory | str]:  # type: ignore[empty-body]
    """Datasets: `(root: Path | None, *, ...) -> Data`."""


@hookspec
def toolkit_models() -> Mapping[str, contracts.ModelFactory | str | contracts.Model]:  # type: ignore[empty-body]
    """Models: `(spec: DataSpec, *, ...) -> nn.Module`, normalised batch to logits `[B, C]`."""


@hookspec
def toolkit_augmentations() -> Mapping[str, contracts.AugmentationFactory | str]:  # type: ignore[empty-body]
    """Augmentations: `(spec: DataSpec, *, ...) -> (Batch, Draws) -> Batch`, on the batch's device."""


@hookspec
def toolkit_metrics() -> Mapping[str, contracts.MetricFactory | str]:  # type: ignore[empty-body]
    """Metrics: `(spec: DataSpec, *, ...) -> object with update(logits, targets) and compute()`."""


@hookspec
def toolkit_tasks() -> Mapping[str, contracts.TaskFactory | contracts.Task | str]:  # type: ignore[empty-body]
    """Tasks: `(spec: DataSpec, *, ...) -> Objective`, an `nn.Module`: the loss, and how logits become answers. A `Task`
    names the metrics that are usual for it."""


@hookspec
def toolkit_trackers() -> Mapping[str, contracts.TrackerFactory | str]:  # type: ignore[empty-body]
    """Trackers: `(run: Path, *, ...) -> consumer of frozen records`."""


@hookspec
def toolkit_optimizers() -> Mapping[str, contracts.OptimizerFactory | str]:  # type: ignore[empty-body]
    """Optimizers: `(params, *, lr: float, ...) -> torch.optim.Optimizer`, over the groups in `params`."""


@hookspec
def toolkit_schedules() -> Mapping[str, contracts.ScheduleFactory | str]:  # type: ignore[empty-body]
    """Schedules: `(horizon: Horizon, direction: Direction, *, ...) -> Schedule`, the factor on the learning rate."""
