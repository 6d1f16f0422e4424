"""What one process keeps from one run to the next, so that a study's trials begin at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import torch

from toolkit.api.contracts import Data
from toolkit.build.plan import Plan, takes
from toolkit.build.summary import Summary
from toolkit.data.loader import Loader
from toolkit.recipe.tables import Recipe
from toolkit.system.environment import describe_environment


class Opened(NamedTuple):
    """A dataset and the loaders of its splits."""

    data: Data
    train: Loader
    valid: Loader
    test: Loader


T = TypeVar("T")
Anew: TypeAlias = Callable[[], T]


@dataclass
class Last(Generic[T]):
    """One thing, and what decided it."""

    decided: Any = None
    thing: T | None = None

    def get(self, decided: Any, anew: Anew[T]) -> T:
        """The thing as it is where the same decides it, else `anew`: then the last one is let go first."""
        if self.thing is None or self.decided != decided:
            self.thing = None
            self.decided, self.thing = decided, anew()
        return self.thing


class Kept:
    """The data of the last run, its model's summary, the step compiled for it, and where it ran: what the next one
    needs as well.

    Holds one of each, so that memory stays bounded whatever a study tries. It changes no result, only what a run
    costs: data is given again only to a recipe that says the same of it, and a compiled step only to one that would
    compile the same in a process of its own.
    """

    def __init__(self) -> None:
        self._data = Last[Opened]()
        self.summary = Last[Summary]()  # of a network, for which an item is run through it
        self._environment = Last[Mapping[str, Any]]()
        self._compiled: Any = None

    def opened(self, plan: Plan, device: torch.device, anew: Anew[Opened]) -> Opened:
        """The data of this plan: the last one's where both say the same of it, else what `anew` opens."""
        recipe = plan.resolved
        said = recipe.data.model_dump(), recipe.input, recipe.clip, takes(plan.one("model"))
        return self._data.get((plan.one("dataset").offer, said, device), anew)

    def compiling(self, recipe: Recipe) -> None:
        """Say which recipe's network is to be compiled next. What torch has compiled serves it too where all that
        shapes the step is the same; else it is forgotten, for torch would make one step for several shapes of it, with
        other roundings than a process of its own gives."""
        decided = _step_tables(recipe), torch.get_num_threads()
        if self._compiled is not None and self._compiled != decided:
            torch.compiler.reset()
        self._compiled = decided

    def environment(self, device: torch.device) -> Mapping[str, Any]:
        """`describe_environment`, asked once: it starts processes."""
        return self._environment.get((device, torch.get_num_threads()), partial(describe_environment, device))


def _step_tables(recipe: Recipe) -> dict[str, Any]:
    """All of the recipe but what a step takes as numbers, or does not see."""
    free = {"name", "seed", "augment", "metrics", "trackers", "export", "tune"}
    tables = recipe.model_dump(exclude=free)
    tables["augment"] = [use.name for use in recipe.augment]
    for key in ("epochs", "optimizer", "schedule", "patience", "metric", "direction", "checkpoint_minutes"):
        del tables["train"][key]
    return tables
