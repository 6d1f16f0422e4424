"""The smallest things that training works on."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.contracts import Augmentation, Batch, Curve, DataSpec, Draws, Metric, Objective, Scores
from toolkit.api.errors import DataError
from toolkit.data.damage import Damage, notice
from toolkit.data.loader import Loader
from toolkit.data.store.corrupt import Corrupt
from toolkit.data.store.images import ImageStore
from toolkit.data.store.storage import Memory, Storage, stored_shape
from toolkit.system import device as devices
from toolkit.training.network import Network
from toolkit.training.optimize import model_parts, parameter_groups
from toolkit.training.parallel import Norm, Parallel
from toolkit.training.sharded import step_apart
from toolkit.training.state import Average, Setup, State, Totals
from toolkit_optim import optimizers
from toolkit_tasks.classification import Classification

CPU = torch.device("cpu")
SPEC = DataSpec(classes=("dark", "bright"), size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@dataclass
class Squares:
    """Dark and bright squares with noise, `count` of them; remembers what was read."""

    count: int
    side: int = 8
    broken: frozenset[int] = frozenset()
    reads: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    @property
    def ids(self) -> list[str]:
        return [f"square/{index:03}.png" for index in range(self.count)]

    @property
    def targets(self) -> list[int]:
        return [index % 2 for index in range(self.count)]

    @property
    def keys(self) -> list[str]:
        return [f"{index} of {self.side}" for index in range(self.count)]

    def read(self, index: int) -> Tensor:
        self.reads.append(index)
        if index in self.broken:
            raise DataError(f"square/{index:03}.png: cannot be decoded")
        rng = torch.Generator().manual_seed(index)
        noise = torch.randint(0, 120, (3, self.side, self.side), generator=rng, dtype=torch.uint8)
        return noise + (120 if index % 2 else 0)


@dataclass
class Reels:
    """Videos of `length` frames at 10 frames a second; every pixel of a frame is 20 * video + its number, but its
    column where `wide`. Remembers what was read."""

    count: int
    length: int = 12
    size: tuple[int, int] = (8, 8)
    broken: frozenset[int] = frozenset()
    bad: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Frames of each video that cannot be decoded."""
    wide: bool = False
    reads: list[tuple[int, list[int]]] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    @property
    def ids(self) -> list[str]:
        return [f"reel/{index:03}.mp4" for index in range(self.count)]

    @property
    def targets(self) -> list[int]:
        return [index % 2 for index in range(self.count)]

    @property
    def keys(self) -> list[str]:
        return [f"reel {index} of {self.length} {self.size}" for index in range(self.count)]

    def times(self, index: int) -> list[float]:
        if index in self.broken:
            raise DataError(f"reel/{index:03}.mp4: cannot be decoded")
        return [number / 10 for number in range(self.length)]

    def read(self, index: int, frames: Sequence[int]) -> Iterator[Tensor]:
        self.reads.append((index, list(frames)))
        bad = self.bad.get(index, frozenset())
        if not bad.isdisjoint(frames):
            notice(Damage(len(bad), self.length))
        for number in frames:
            frame = torch.full((3, *self.size), 20 * index + number, dtype=torch.uint8)
            yield torch.arange(self.size[1], dtype=torch.uint8).expand(3, *self.size) if self.wide else frame


@dataclass
class Accuracy:
    right: int = 0
    count: int = 0

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self.right += int((logits.argmax(1) == targets).sum())
        self.count += len(targets)

    def compute(self) -> Scores:
        return {"accuracy": self.right / self.count, "pairs": [0.0, 1.0]}


def noise(batch: Batch, draws: Draws) -> Batch:
    """An augmentation that draws."""
    shift = draws.integers(0, 8, (1, 1, 1)).to(torch.uint8)
    return replace(batch, pixels=batch.pixels + shift)


def shares(batch: Batch, draws: Draws) -> Batch:
    """An augmentation that makes targets shares of classes."""
    return replace(batch, targets=0.8 * functional.one_hot(batch.targets, 2) + 0.1)


def model(seed: int = 0, dropout: float = 0.2) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(144, 2)
    )


def loader(split: Any, spec: DataSpec = SPEC, storage: Storage | None = None, *, skip: bool = False) -> Loader:
    kept = storage or Memory((len(split), *stored_shape(spec)))
    return Loader(ImageStore(split, spec, kept, workers=2, corrupt=Corrupt(skip=skip, limit=0.2)), spec, CPU)


def setup(train: Any, valid: Any, *, augmentations: Iterable[Augmentation] = (noise,), **changes: Any) -> Setup:
    settings: dict[str, Any] = {
        "seed": 0,
        "epochs": 2,
        "batch": 6,
        "eval_batch": 5,
        "accumulate": 1,
        "clip_norm": None,
        "metric": "accuracy",
        "direction": "maximize",
        "sample": False,
    }
    return Setup(
        train=loader(train),
        valid=loader(valid),
        augmentations=list(augmentations),
        metrics=lambda: [Accuracy()],
        autocast=partial(devices.autocast, CPU, "fp32"),
        **(settings | changes),
    )


def optimizer(of: nn.Module, name: str, *, lr: float, **args: Any) -> torch.optim.Optimizer:
    """One of the toolkit's optimizers over the groups that the core makes."""
    groups = list(parameter_groups(model_parts(of), lr, {}, decay_norms_and_biases=True))
    built: torch.optim.Optimizer = getattr(optimizers, name)(groups, lr=lr, **args)
    return built


def state(
    of: Setup,
    *,
    network: nn.Module | None = None,
    objective: Objective | None = None,
    name: str = "sgd",
    lr: float = 0.05,
    batch_norm: Norm = "global",
    ema: float | None = None,
    sharded: bool = False,
    **args: Any,
) -> State:
    built = network or Network(model(), SPEC)
    asked = objective or Classification(0.0, None)
    parallel = Parallel(built, asked, of.train.ranks, batch_norm=batch_norm)
    averaged = copy.deepcopy(built) if ema else None
    if sharded:
        parallel.shard(built, *([averaged] if averaged else []), device=CPU)
    stepped = optimizer(built, name, lr=lr, **args)
    if sharded:
        step_apart(stepped)
    return State(
        network=built,
        objective=asked,
        optimizer=stepped,
        schedule=Curve(lambda step: 1.0),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        average=Average(built, averaged, ema) if averaged and ema else None,
        totals=Totals.on(torch.device("cpu")),
        parallel=parallel,
    )


def metrics() -> list[Metric]:
    return [Accuracy()]
