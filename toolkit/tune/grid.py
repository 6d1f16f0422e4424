"""The sampler that tries every point of a grid once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial


class Grid(optuna.samplers.GridSampler):
    """Optuna's, which stops a study that it runs itself; a worker asks `is_exhausted`.

    Here no point is tried twice: neither for each value of a key that its components do not have, nor by a second
    worker while it is under way, nor where a queued trial has its values.
    """

    def __init__(
        self,
        search_space: Mapping[str, Sequence[Any]],
        seed: int | None = None,
        *,
        asked: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ) -> None:
        """`asked` gives those of the values of all keys that a trial would ask for."""
        super().__init__(search_space, seed)
        points = [(point, asked(dict(zip(self._param_names, point, strict=True)))) for point in self._all_grids]
        distinct = {repr(values): (point, values) for point, values in points}
        self._all_grids = [point for point, _ in distinct.values()]
        self._points = [values for _, values in distinct.values()]
        self._n_min_trials = len(self._all_grids)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if "grid_id" in trial.system_attrs or trial.state.is_finished():
            return
        place = self._place(study, trial)
        if place is not None:
            study._storage.set_trial_system_attr(trial._trial_id, "search_space", self._search_space)
            study._storage.set_trial_system_attr(trial._trial_id, "grid_id", place)

    def _place(self, study: optuna.Study, trial: FrozenTrial) -> int | None:
        """The point that a trial is to try: that of its number, as Optuna has it, unless it has been tried; of a queued
        trial one that has its values."""
        queued = trial.system_attrs.get("fixed_params", {})
        if "own" in trial.user_attrs:
            return self._place_of(queued)
        unvisited = self._get_unvisited_grid_ids(study)
        if not queued:
            return trial.number if trial.number in unvisited else int(self._rng.rng.choice(unvisited or self._all()))
        fitting = [place for place in self._all() if _is_in(queued, self._points[place])]
        return next((place for place in fitting if place in unvisited), next(iter(fitting), None))

    def _all(self) -> range:
        return range(len(self._points))

    def _get_unvisited_grid_ids(self, study: optuna.Study) -> list[int]:
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        told = [trial.system_attrs for trial in trials if "grid_id" in trial.system_attrs]
        visited = {attrs["grid_id"] for attrs in told if self._same_search_space(attrs["search_space"])}
        return [place for place in self._all() if place not in visited]

    def _place_of(self, values: Mapping[str, Any]) -> int | None:
        same = (place for place in self._all() if len(values) == len(self._points[place]))
        return next((place for place in same if _is_in(values, self._points[place])), None)

    def trials(self, own: Mapping[str, Any]) -> int:
        """How many it takes to see every point; the recipe's `own` values are one of them or one trial more."""
        return len(self._points) + (self._place_of(own) is None)

    def after_trial(self, *_: Any) -> None:
        pass


def _is_in(values: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    """Whether a point of a grid, whose steps add up with rounding, has these values."""
    return all(key in point and _is_same(point[key], value) for key, value in values.items())


def _is_same(one: Any, other: Any) -> bool:
    if type(one) is float and type(other) in (int, float):
        return math.isclose(one, other, abs_tol=1e-12)
    return (type(one), one) == (type(other), other)
