"""Learning-rate schedules: curves over the steps of training, and a plateau that listens to the scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from toolkit.api.contracts import Curve, Direction, Horizon, Schedule

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


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


def linear(horizon: Horizon, direction: Direction, *, final: Share = 0.0) -> Schedule:  # noqa: ARG001
    """A straight line from the full rate at the first step down to `final` of it as training ends.

    final: factor at the end.
    """
    return Curve(lambda step: _line(1.0, final, step / max(horizon.steps, 1)))


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


def _half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _line(start: float, end: float, done: float) -> float:
    return start + (end - start) * min(done, 1.0)
