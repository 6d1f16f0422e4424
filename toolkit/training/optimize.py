"""Optimizers and learning-rate schedules, by name.

Optimizers are those of `torch.optim`. A schedule is a function of the step alone (plateau also of the scores so far),
so that resuming needs no history.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import Field
from torch import nn

from toolkit.api.contracts import Direction, Grouped

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Horizon:
    """How long training lasts, in optimizer steps."""

    steps_per_epoch: int
    epochs: int

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs


class Schedule(Protocol):
    """What multiplies every group's learning rate."""

    def factor(self, step: int) -> float:
        """The factor at optimizer step `step`, counted from 0."""

    def observe(self, score: float) -> None:
        """Take the watched validation score at the end of an epoch."""

    def state_dict(self) -> dict[str, float]: ...

    def load_state_dict(self, state: Mapping[str, float]) -> None: ...


@dataclass(frozen=True)
class Curve:
    """A schedule that is a function of the step alone."""

    function: Callable[[int], float]

    def factor(self, step: int) -> float:
        return self.function(step)

    def observe(self, score: float) -> None:
        """Nothing to learn: the curve is fixed."""

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Nothing to restore: the curve is fixed."""


def constant(horizon: Horizon, direction: Direction) -> Schedule:  # noqa: ARG001 - one signature for all schedules
    """The optimizer's learning rate throughout."""
    return Curve(lambda step: 1.0)  # noqa: ARG005


def step(
    horizon: Horizon,
    direction: Direction,  # noqa: ARG001
    *,
    every: Annotated[int, Field(ge=1)] | None = None,
    milestones: list[Annotated[int, Field(ge=1)]] | None = None,
    gamma: Positive = 0.1,
) -> Schedule:
    """Multiply the rate by `gamma` at certain epochs.

    every: epochs between two drops.
    milestones: epochs at which to drop; instead of `every`.
    gamma: factor of one drop.
    """
    if (every is None) == (milestones is None):
        raise ValueError("every: give either every or milestones")

    def drops(epoch: int) -> int:
        return epoch // every if every else sum(epoch >= milestone for milestone in milestones or ())

    return Curve(lambda step: gamma ** drops(step // horizon.steps_per_epoch))


def cosine(horizon: Horizon, direction: Direction, *, final: Share = 0.0) -> Schedule:  # noqa: ARG001
    """Half a cosine from the full rate down to `final` of it as training ends (arXiv 1608.03983, without restarts).

    final: factor at the end.
    """
    return Curve(lambda step: _half_cosine(1.0, final, step / max(horizon.steps, 1)))


def one_cycle(
    horizon: Horizon,
    direction: Direction,  # noqa: ARG001
    *,
    peak: Share = 0.3,
    start: Share = 0.04,
    final: Share = 0.0,
    shape: Literal["cosine", "linear"] = "cosine",
) -> Schedule:
    """Up from `start` to the full rate, then down to `final` (arXiv 1708.07120, momentum left alone).

    peak: share of training at which the rate is highest.
    start: factor at the first step.
    final: factor at the end.
    shape: how the two parts bend.
    """
    between = _half_cosine if shape == "cosine" else _line

    def factor(step: int) -> float:
        done = step / max(horizon.steps, 1)
        if done < peak:
            return between(start, 1.0, done / peak)
        return between(1.0, final, (done - peak) / (1 - peak)) if peak < 1 else 1.0

    return Curve(factor)


class Plateau:
    """Drops the rate when the watched score has stopped getting better."""

    def __init__(self, direction: Direction, drop: float, wait: int, floor: float) -> None:
        self._sign = 1.0 if direction == "maximize" else -1.0
        self._drop, self._wait, self._floor = drop, wait, floor
        self._state: dict[str, float] = {"factor": 1.0, "best": -math.inf, "stale": 0.0}

    def factor(self, step: int) -> float:  # noqa: ARG002 - depends on the scores alone
        return self._state["factor"]

    def observe(self, score: float) -> None:
        if self._sign * score > self._state["best"]:
            self._state |= {"best": self._sign * score, "stale": 0.0}
            return
        self._state["stale"] += 1
        if self._state["stale"] >= self._wait:
            self._state |= {"factor": max(self._state["factor"] * self._drop, self._floor), "stale": 0.0}

    def state_dict(self) -> dict[str, float]:
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self._state = dict(state)


def plateau(
    horizon: Horizon,  # noqa: ARG001
    direction: Direction,
    *,
    gamma: Share = 0.1,
    patience: Annotated[int, Field(ge=1)] = 5,
    floor: Share = 0.0,
) -> Schedule:
    """Multiply the rate by `gamma` after `patience` epochs without a better `train.metric`.

    gamma: factor of one drop.
    patience: epochs to wait for a better score, counted as `train.patience` counts them.
    floor: lowest factor.
    """
    return Plateau(direction, gamma, patience, floor)


def warmed_up(schedule: Schedule, steps: float) -> Schedule:
    """`schedule` with its factor raised linearly from near 0 over the first `steps` steps."""
    return _WarmUp(schedule, steps) if steps > 0 else schedule


@dataclass(frozen=True)
class _WarmUp:
    inner: Schedule
    steps: float

    def factor(self, step: int) -> float:
        return min(1.0, (step + 1) / self.steps) * self.inner.factor(step)

    def observe(self, score: float) -> None:
        self.inner.observe(score)

    def state_dict(self) -> dict[str, float]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.inner.load_state_dict(state)


def _half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _line(start: float, end: float, done: float) -> float:
    return start + (end - start) * min(done, 1.0)


_SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "one_cycle": one_cycle,
    "plateau": plateau,
    "step": step,
}


def schedule_names() -> list[str]:
    return sorted(_SCHEDULES)


def schedule_factory(name: str) -> Callable[..., Schedule]:
    """`(horizon, direction, *, ...) -> Schedule`; raises KeyError for an unknown name."""
    return _SCHEDULES[name]


def optimizer_names() -> list[str]:
    """Lower-case names of `torch.optim`'s classes. LBFGS needs a closure and SparseAdam sparse gradients: left out."""
    return sorted(_optimizers())


def optimizer_factory(name: str) -> type[torch.optim.Optimizer]:
    """The class of `torch.optim` by its name in any case; raises KeyError for an unknown one."""
    return _optimizers()[name.lower()]


def _optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    classes = vars(torch.optim).items()
    return {
        name.lower(): kind
        for name, kind in classes
        if inspect.isclass(kind)
        and issubclass(kind, torch.optim.Optimizer)
        and kind is not torch.optim.Optimizer
        and name not in {"LBFGS", "SparseAdam", "Muon"}
    }


def build_optimizer(
    parts: Mapping[str, nn.Module],
    name: str,
    arguments: Mapping[str, Any],
    *,
    lr: float,
    lr_scales: Mapping[str, float],
    decay_norms_and_biases: bool,
) -> torch.optim.Optimizer:
    """An optimizer over all parameters of the parts, in one group per part and kind of parameter.

    Each group has a `name` and its `base_lr`, which the loop multiplies by the schedule's factor. The fused
    implementation is used where torch has one. It does not import torch's compiler, which torch's own do.
    """
    groups = list(parameter_groups(parts, lr, lr_scales, decay_norms_and_biases=decay_norms_and_biases))
    kind = optimizer_factory(name)
    fused = {"fused": True} if "fused" in inspect.signature(kind).parameters and "foreach" not in arguments else {}
    return _bare(kind)(groups, **({"lr": lr} | fused | dict(arguments)))


def _bare(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """The optimizer without the wrappers that keep its methods from being compiled.

    Each of them imports torch's compiler, which takes seconds before a run's first step; no optimizer is compiled here.
    """
    take_step: Callable[..., float | None] = inspect.unwrap(kind.step)

    def step(self: torch.optim.Optimizer, closure: Callable[[], float] | None = None) -> float | None:
        with torch.set_grad_enabled(bool(self.defaults.get("differentiable"))):
            return take_step(self, closure)

    guarded = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in guarded}
    return type(kind.__name__, (kind,), methods | {"step": step})


def parameter_groups(
    parts: Mapping[str, nn.Module], lr: float, lr_scales: Mapping[str, float], *, decay_norms_and_biases: bool
) -> Iterator[dict[str, Any]]:
    """Groups by part (`backbone`, `head`; a model without parts is all `model`), and by whether they decay."""
    for part, module in parts.items():
        rate = lr * lr_scales.get(part, 1.0)
        parameters = list(module.parameters())
        decayed = [p for p in parameters if decay_norms_and_biases or p.ndim > 1]
        bare = [p for p in parameters if not (decay_norms_and_biases or p.ndim > 1)]
        if decayed:
            yield {"params": decayed, "lr": rate, "base_lr": rate, "name": part}
        if bare:
            yield {"params": bare, "lr": rate, "base_lr": rate, "name": f"{part} norms and biases", "weight_decay": 0.0}


def model_parts(model: nn.Module) -> Mapping[str, nn.Module]:
    """The model's named parts; one part `model` where it names none."""
    return model.parts() if isinstance(model, Grouped) else {"model": model}
