"""The state of trials, in the words of the screen and the report."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from datetime import datetime

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

WORDS = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
"""What counts towards the trials that were asked for."""
UNCOUNTED = "uncounted"
"""The user attribute of a failed trial that failed by no fault of its values."""


def scores(trial: FrozenTrial, directions: Sequence[StudyDirection]) -> tuple[float, ...]:
    """One number a metric of a finished trial; of any other the best that it has reported, if it has."""
    if trial.values is not None and trial.state == TrialState.COMPLETE:
        return tuple(trial.values)
    reported = [value for value in trial.intermediate_values.values() if math.isfinite(value)]
    if len(directions) > 1 or not reported:
        return ()
    return (max(reported) if directions[0] == StudyDirection.MAXIMIZE else min(reported),)


def seconds(trial: FrozenTrial) -> float:
    """From a trial's start to its end, or until now, the time that it lay interrupted included."""
    if trial.datetime_start is None:
        return 0.0
    return ((trial.datetime_complete or datetime.now()) - trial.datetime_start).total_seconds()


def cause(trial: FrozenTrial) -> str:
    """Why a trial failed, on one line; empty for any other."""
    return " ".join(str(trial.user_attrs.get("cause", "unknown")).split()) if trial.state == TrialState.FAIL else ""


def best_numbers(trials: Iterable[FrozenTrial], directions: Sequence[StudyDirection]) -> set[int]:
    """The finished trials that no other is better than: by one score the first of the best, by several the front."""
    signs = [1 if direction == StudyDirection.MAXIMIZE else -1 for direction in directions]
    points = {
        trial.number: tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))
        for trial in trials
        if trial.state == TrialState.COMPLETE
    }
    if len(signs) == 1:
        return {max(points, key=lambda number: (points[number], -number))} if points else set()
    front: dict[int, tuple[float, ...]] = {}
    for number, point in sorted(points.items(), key=lambda one: one[1], reverse=True):
        # Sorted by the first score, so nothing further down dominates this point.
        if not any(other != point and all(map(operator.ge, other, point)) for other in front.values()):
            front[number] = point
    return set(front)


def best_finished(study: Study) -> list[FrozenTrial]:
    """The trials that `best_numbers` has."""
    trials = study.get_trials(deepcopy=False)
    best = best_numbers(trials, study.directions)
    return [trial for trial in trials if trial.number in best]


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Every key by as few of its last parts as distinguish it from the others: `lr` for `train.optimizer.lr`. A
    component's name is that of its table: `model` for `model.name`."""
    plain = {key: key.removesuffix(".name") for key in keys}
    short = {}
    for key, one in plain.items():
        parts = one.split(".")
        endings = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        fitting = (end for end in endings if sum(f".{other}".endswith(f".{end}") for other in plain.values()) == 1)
        short[key] = next(fitting, one)
    return short


def shown(value: object) -> str:
    """A tried value as short text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
