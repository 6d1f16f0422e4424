"""What one process keeps from one run to the next, so that a study's trials begin at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import torch

from toolkit.api.contracts import Data
from toolkit.build.summary import Summary
from toolkit.data.loader import Loader
from toolkit.system.environment import describe_environment


class Opened(NamedTuple):
    """A dataset and the loaders of its splits, and of the items of classes that the model never learns."""

    data: Data
    train: Loader
    valid: Loader
    test: Loader
    unknown: Loader | None = None


T = TypeVar("T")
Make: TypeAlias = Callable[[], T]


@dataclass
class Last(Generic[T]):
    """One thing, and what decided it."""

    decided: Any = None
    thing: T | None = None

    def get(self, decided: Any, make: Make[T]) -> T:
        """The last thing where `decided` is the same, else a new one by `make`; the last one is freed first."""
        if self.thing is None or self.decided != decided:
            self.thing = None
            self.decided, self.thing = decided, make()
        return self.thing


class Kept:
    """The data of the last run, its model's summary, the step compiled for it, and where it ran: what the next one
    needs as well.

    Holds one of each, so that memory stays bounded whatever a study tries. It changes no result, only what a run
    costs: a later recipe gets the same data only if it defines the same data, and a compiled step only if it would
    compile the same step in a process of its own.
    """

    def __init__(self) -> None:
        self._data = Last[Opened]()
        self.summary = Last[Summary]()  # of a network, for which an item is run through it
        self._environment = Last[Mapping[str, Any]]()
        self._compiled: Any = None

    def opened(self, definition: Any, make: Make[Opened]) -> Opened:
        """The data of the last run where it has the same definition (`Plan.definition_of_data`, on the same device),
        else what `make` opens."""
        return self._data.get(definition, make)

    def compiling(self, shape: Any) -> None:
        """Announce what shapes the step that is compiled next. Compiled code is kept where that is the same, else
        dropped: torch would generalise one step to several shapes, and its rounding would differ from that of a process
        of its own."""
        decided = shape, torch.get_num_threads()
        if self._compiled is not None and self._compiled != decided:
            torch.compiler.reset()
        self._compiled = decided

    def environment(self, device: torch.device) -> Mapping[str, Any]:
        """`describe_environment`, asked once: it starts processes."""
        return self._environment.get((device, torch.get_num_threads()), partial(describe_environment, device))
