"""What a study looks for: which scores, and which way each is better."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.api.contracts import Direction
from toolkit.api.errors import Problem
from toolkit.recipe.tables import Recipe, TuneTable

LATENCY = "latency"
"""The metric that is not a score: milliseconds that the exported model takes to answer one item."""


@dataclass(frozen=True)
class Aim:
    """What a study looks for: scores on the validation split, or the latency, and which way is better."""

    metrics: tuple[str, ...]
    directions: tuple[Direction, ...]

    @property
    def scores(self) -> tuple[str, ...]:
        """The metrics that an epoch has."""
        return tuple(metric for metric in self.metrics if metric != LATENCY)

    @property
    def times(self) -> bool:
        """Whether the latency is among the metrics."""
        return LATENCY in self.metrics


def aim_of(recipe: Recipe, tune: TuneTable) -> tuple[Aim, list[Problem]]:
    """The aim, the recipe's own where `[tune]` gives none, and what is wrong with it."""
    found = []
    if tune.metrics or tune.directions:
        aim, key, direction_key = Aim(tuple(tune.metrics), tuple(tune.directions)), "tune.metrics", "tune.directions"
        if tune.metric or tune.direction:
            found.append(Problem("tune.metric", "not allowed with metrics and directions: give one score or several"))
        if len(aim.metrics) != len(aim.directions):
            found.append(Problem(direction_key, f"has {len(aim.directions)} directions for {len(aim.metrics)} metrics"))
        twice = [metric for metric in dict.fromkeys(aim.metrics) if aim.metrics.count(metric) > 1]
        found += [Problem(key, f'has "{metric}" twice') for metric in twice]
    else:
        key, direction_key, metric = "tune.metric", "tune.direction", tune.metric or recipe.train.metric
        usual: Direction = "minimize" if metric == LATENCY else recipe.train.direction
        aim = Aim((metric,), (tune.direction or usual,))
        own, way = recipe.train.metric, recipe.train.direction
        if metric not in (own, LATENCY) and not tune.direction:
            message = f'is required for "{metric}": train.direction says which way "{own}" is better'
            found.append(Problem(direction_key, message))
        elif metric == own and tune.direction not in (None, way):
            end = "highest" if way == "maximize" else "lowest"
            message = f'is "{tune.direction}", but train.direction keeps the epoch of each run with the {end} "{own}"'
            found.append(Problem(direction_key, f'{message}: set both to "minimize" or both to "maximize"'))
    if aim.times and not aim.scores:
        found.append(Problem(key, f'"{LATENCY}" alone selects an untrained model: add a score, in tune.metrics'))
    if (LATENCY, "maximize") in zip(aim.metrics, aim.directions, strict=False):
        found.append(Problem(direction_key, f'"{LATENCY}" is time: it can only be minimized'))
    if aim.times and any(use.name.rpartition(":")[2] == LATENCY for use in recipe.metrics):
        message = f'"{LATENCY}" is the recipe\'s own metric and the time that the exported model takes'
        found.append(Problem(key, f"{message}: remove one of them"))
    return aim, found
