"""The sampler that tries every point of a grid once."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, TypeAlias

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from toolkit.tune.outcome import UNCOUNTED

Point: TypeAlias = frozenset[tuple[str, int]]
"""Each key with the index of its value in the grid."""


class Grid(optuna.samplers.BaseSampler):
    """Tries each point once, in an order drawn from `seed`; a worker stops when the grid `is_exhausted`.

    A trial takes the first point that no trial before it has. So the study's trials alone decide it: workers agree
    without a word, whichever machine they are on, and a trial that is resumed gets the same values. A trial with values
    of its own, queued or drawn by another sampler, takes a point that has them.
    """

    study: optuna.Study | None = None
    """The whole study: Hyperband shows a sampler only the trials of one bracket."""

    def __init__(
        self,
        search_space: Mapping[str, Sequence[Any]],
        seed: int | None = None,
        *,
        asked: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ) -> None:
        """`asked` gives those of the values of all keys that a trial asks for; points that agree in them are one."""
        self._choices = search_space
        values = [asked(dict(zip(search_space, point, strict=True))) for point in product(*search_space.values())]
        random.Random(seed or 0).shuffle(values)  # noqa: S311 - an order, not a secret
        self._values = {point: one for one in values if (point := self._point(one)) is not None}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        return {}

    def sample_relative(self, *_: Any) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,  # noqa: ARG002
    ) -> Any:
        point = dict(self._assigned(self.study or study)).get(trial.number)
        # What has no point has its other values from outside the grid, or was given up: any value will do.
        return self._choices[param_name][0] if point is None else self._values[point][param_name]

    def is_exhausted(self, study: optuna.Study) -> bool:
        """Whether every point is a trial's, finished or not."""
        return {*self._values} <= {point for _, point in self._assigned(study)}

    def trials(self, own: Mapping[str, Any]) -> int:
        """How many it takes to see every point; the recipe's `own` values are one of them or one trial more."""
        return len(self._values) + (self._point(own) not in self._values)

    def _assigned(self, study: optuna.Study) -> Iterator[tuple[int, Point | None]]:
        """The point of each trial by its number, None for values outside the grid."""
        taken: set[Point | None] = set()
        undecided = []
        for trial in study.get_trials(deepcopy=False):
            if UNCOUNTED in trial.user_attrs:
                continue  # its values are another trial's
            values = self._point(trial.system_attrs.get("fixed_params", {}) | trial.params)
            if values is None or values in self._values:
                taken.add(values)
                yield trial.number, values
            elif "own" not in trial.user_attrs:
                undecided.append((trial.number, values))
        for number, values in undecided:
            fitting = [point for point in self._values if values <= point]
            point = next((point for point in fitting if point not in taken), next(iter(fitting), None))
            taken.add(point)
            yield number, point

    def _point(self, values: Mapping[str, Any]) -> Point | None:
        """None where the grid lacks a value. Whole points and parts of them are written alike."""
        places = {key: _place(value, self._choices.get(key, ())) for key, value in values.items()}
        found = {key: place for key, place in places.items() if place is not None}
        return frozenset(found.items()) if len(found) == len(places) else None


def _place(value: Any, choices: Sequence[Any]) -> int | None:
    return next((place for place, one in enumerate(choices) if _is_same(one, value)), None)


def _is_same(one: Any, other: Any) -> bool:
    """Steps of a range add up with rounding; `true` is not 1."""
    if type(one) is float and type(other) in (int, float):
        return math.isclose(one, other, abs_tol=1e-12)
    return (type(one), one) == (type(other), other)
