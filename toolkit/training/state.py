"""What training changes, and what it works with and does not change."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Self, TypedDict

import torch
from pydantic import AfterValidator, NonNegativeInt, TypeAdapter
from torch import Tensor, nn

from toolkit.api.contracts import Augmentation, Direction, EpochRecord, Metric, Multiview, Objective, Schedule
from toolkit.data.loader import Loader, batches_in
from toolkit.training.features import Features
from toolkit.training.parallel import Parallel
from toolkit.training.sharded import is_sharded, load, load_optimizer, local, whole
from toolkit.training.stages import WHOLE, Stages
from toolkit.training.taught import Taught


@dataclass(frozen=True)
class Setup:
    """All that `fit` needs and does not change."""

    train: Loader
    valid: Loader
    augmentations: Sequence[Augmentation]
    metrics: Callable[[], Sequence[Metric]]
    autocast: Callable[[], AbstractContextManager[None]]
    seed: int
    epochs: int
    batch: int
    eval_batch: int
    accumulate: int
    clip_norm: float | None
    metric: str
    direction: Direction
    sample: bool
    stages: Stages = WHOLE
    """How many layers each epoch trains, and at which size."""
    views: int = 1
    """Of each item of a training batch."""
    features: Features | None = None
    """What `train` and `valid` have in place of pixels; None: they have pixels."""
    taught: Taught | str | None = None
    """The answers of a teacher, or why it is asked in each step; None: there is no teacher."""

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return batches_in(self.train.training_items, self.batch)


def views_of(objective: Objective) -> int:
    """How many views of each item its loss compares."""
    return objective.views if isinstance(objective, Multiview) else 1


class Average:
    """An exponential moving average of a network's parameters and statistics, in a network of its own."""

    def __init__(self, network: nn.Module, into: nn.Module, decay: float) -> None:
        self.network = into.requires_grad_(False).eval()
        self._decay = decay
        tensors = [
            [local(tensor.detach()) for tensor in (*one.parameters(), *one.buffers())] for one in (into, network)
        ]
        pairs = list(zip(*tensors, strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        copied = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._means, self._values = [mean for mean, _ in averaged], [value for _, value in averaged]
        self._counts, self._counted = [count for count, _ in copied], [value for _, value in copied]

    def update(self) -> None:
        torch._foreach_lerp_(self._means, self._values, 1 - self._decay)
        if self._counts:
            torch._foreach_copy_(self._counts, self._counted)


@dataclass
class Totals:
    """Sums over the part of an epoch done so far."""

    loss: Tensor
    """float64 scalar on the device: sum over items."""
    failed_at: Tensor
    """int64 scalar on the device: the first step whose loss was not finite; -1: none."""
    items: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    @classmethod
    def on(cls, device: torch.device) -> Self:
        """Those of an epoch that has not begun."""
        return cls(torch.zeros((), dtype=torch.float64, device=device), torch.full((), -1, device=device))

    @property
    def device(self) -> torch.device:
        return self.loss.device

    def to(self, device: torch.device) -> Self:
        return replace(self, loss=self.loss.to(device), failed_at=self.failed_at.to(device))

    def add(self, loss: Tensor, items: int) -> None:
        self.loss += loss * items
        self.items += items

    def flag(self, loss: Tensor, step: int) -> None:
        """Remember the first step whose loss is not finite, without waiting for the device."""
        first = ~torch.isfinite(loss) & (self.failed_at < 0)
        self.failed_at = torch.where(first, step, self.failed_at)


def _are_records(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    TypeAdapter(list[EpochRecord]).validate_python(found)
    return found


def _are_totals(found: dict[str, Any]) -> dict[str, Any]:
    expected = asdict(Totals.on(torch.device("cpu")))
    if found.keys() != expected.keys():
        raise ValueError(f"expected {', '.join(expected)}")
    for name, value in found.items():
        tensor = isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta
        if isinstance(expected[name], Tensor) != tensor or (tensor and value.shape != ()):
            raise ValueError(f"{name}: expected a scalar")
        if not tensor and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{name}: expected a number")
    return found


class SavedState(TypedDict):
    """What `State.state_dict` returns."""

    network: dict[str, Tensor]
    objective: dict[str, Tensor]
    average: dict[str, Tensor] | None
    optimizer: dict[str, Any]
    schedule: dict[str, float]
    scaler: dict[str, Any]
    totals: Annotated[dict[str, Any], AfterValidator(_are_totals)]
    epoch: NonNegativeInt
    step: NonNegativeInt
    best_score: float | None
    best_epoch: NonNegativeInt
    records: Annotated[list[dict[str, Any]], AfterValidator(_are_records)]


@dataclass
class State:
    """What training changes. `fit` alone does."""

    network: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    average: Average | None
    totals: Totals
    parallel: Parallel
    epoch: int = 0
    """Finished epochs."""
    step: int = 0
    """Finished steps of the epoch under way."""
    best_score: float | None = None
    best_epoch: int = 0
    records: list[EpochRecord] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return self.totals.device

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated and kept: the averaged one where there is one."""
        return self.average.network if self.average else self.network

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that may be trained: the network's and the objective's."""
        return itertools.chain(self.network.parameters(), self.objective.parameters())

    def join_statistics(self) -> None:
        """Make what each rank has counted for itself, if anything, the same on all."""
        self.parallel.join_statistics(self.network, *([self.average.network] if self.average else []))

    @property
    def checked_late(self) -> bool:
        """Whether the host may look at the device's non-finite flag later than at each step: fused optimizers obey the
        flag by themselves, and leave the weights as they are."""
        fused = bool(self.optimizer.defaults.get("fused"))
        usual = not self.scaler.is_enabled() and not is_sharded(self.network)
        return self.device.type == "cuda" and fused and usual

    def rates(self, setup: Setup, step: int) -> list[float]:
        """The learning rate of each parameter group at a step of the epoch under way."""
        factor = setup.stages.of(self.epoch).factor
        if factor is None:
            factor = self.schedule.factor(self.epoch * setup.steps + step)
        return [group["base_lr"] * factor for group in self.optimizer.param_groups]

    def state_dict(self) -> SavedState:
        """All ranks make it together: divided tensors are gathered."""
        return {
            "network": whole(self.network.state_dict()),
            "objective": self.objective.state_dict(),
            "average": whole(self.average.network.state_dict()) if self.average else None,
            "optimizer": whole(self.optimizer.state_dict()),
            "schedule": dict(self.schedule.state_dict()),
            "scaler": self.scaler.state_dict(),
            "totals": asdict(self.totals),
            "epoch": self.epoch,
            "step": self.step,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "records": [asdict(record) for record in self.records],
        }

    def load_state_dict(self, state: SavedState) -> None:
        load(self.network, state["network"])
        self.objective.load_state_dict(state["objective"])
        if self.average:
            load(self.average.network, state["average"] or {})
        load_optimizer(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.totals = Totals(**state["totals"]).to(self.totals.device)
        self.epoch, self.step = state["epoch"], state["step"]
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]
        self.records = [EpochRecord(**record) for record in state["records"]]
