"""What the page of a study says, as plain values: every trial with its run's records, and what follows from them."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from toolkit.api.errors import ToolkitError, counted
from toolkit.runs.files import RunFiles, read_run
from toolkit.tune.aim import Aim
from toolkit.tune.best import Finalists, own_trial, read_finalists
from toolkit.tune.outcome import DONE, WORDS, best_numbers, cause, scores, seconds, short_keys
from toolkit.tune.space import Space
from toolkit.tune.storage import repeat_of, trial_run

FOR_IMPORTANCES = 2
"""Finished trials that importances need at least."""


@dataclass(frozen=True)
class Spent:
    """Seconds of a trial, or of several."""

    training: float = 0.0
    waiting: float = 0.0
    """For data, while training."""
    validation: float = 0.0
    rest: float = 0.0
    """Starting, saving, and lying interrupted."""

    def __add__(self, other: Spent) -> Spent:
        return Spent(*map(operator.add, astuple(self), astuple(other)))

    @property
    def total(self) -> float:
        return float(sum(astuple(self)))


@dataclass(frozen=True)
class Tried:
    """One trial."""

    number: int
    state: TrialState
    values: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    scores: Sequence[float]
    """One a metric; of a trial that is not finished the best that it has reported, if it has."""
    curve: Sequence[tuple[int, float]]
    """Epoch and first score of each epoch."""
    epochs: int
    """Trained, all seeds together."""
    planned: int
    spent: Spent
    cause: str
    """Why it failed."""
    best: bool
    own: bool
    """Whether it has the recipe's own values."""

    @property
    def word(self) -> str:
        return WORDS[self.state]


@dataclass(frozen=True)
class Contents:
    """All that the page shows."""

    name: str
    folder: Path
    metrics: Sequence[str]
    directions: Sequence[str]
    score: str
    """The first metric that every epoch has: that of the learning curves."""
    trials: Sequence[Tried]
    own: Tried | None
    """The trial of the recipe's own values that got furthest."""
    keys: Sequence[str]
    """Keys that any trial has tried, in the order of the space."""
    short: Mapping[str, str]
    """Each key by its last parts."""
    importances: Sequence[Mapping[str, float]]
    """For each metric the share of each key, largest first; empty where it cannot be computed."""
    why_no_importances: str
    finalists: Finalists | None
    sample: bool
    notes: Sequence[str]
    """What could not be read."""

    def in_state(self, *states: TrialState) -> list[Tried]:
        return [one for one in self.trials if one.state in states]

    @property
    def best(self) -> list[Tried]:
        return [one for one in self.trials if one.best]

    @property
    def counts(self) -> str:
        found = [(word, len(self.in_state(state))) for state, word in WORDS.items()]
        return ", ".join(f"{count} {word}" for word, count in found if count)

    @property
    def pruned_share(self) -> float:
        """0..1, of the trials that are finished or pruned."""
        done = len(self.in_state(*DONE))
        return len(self.in_state(TrialState.PRUNED)) / done if done else 0.0

    @property
    def epochs(self) -> int:
        return sum(one.epochs for one in self.trials)

    @property
    def planned(self) -> int:
        """Epochs that full runs of all trials begun would have trained."""
        return sum(one.planned for one in self.in_state(*DONE, TrialState.FAIL, TrialState.RUNNING))

    @property
    def spent(self) -> Mapping[str, Spent]:
        """Time by what became of the trials."""
        states = (*DONE, TrialState.FAIL, TrialState.RUNNING)
        sums = {WORDS[state]: sum((one.spent for one in self.in_state(state)), Spent()) for state in states}
        return {word: spent for word, spent in sums.items() if spent.total > 0}


def gather(study: optuna.Study, folder: Path, aim: Aim, space: Space, seeds: int) -> Contents:
    """Decide what a page of the study says."""
    trials = study.get_trials(deepcopy=False)
    runs, notes = _read_runs(folder, trials, seeds)
    best, own = best_numbers(trials, study.directions), own_trial(study)
    tried = []
    for trial in trials:
        here = runs.get(trial.number, [])
        epochs = int(here[0].facts.get("epochs", space.recipe.train.epochs)) if here else space.recipe.train.epochs
        reached = scores(trial, study.directions)
        tried.append(_tried(trial, here, reached, aim.scores[0], seeds * epochs, best=trial.number in best))
    asked = [one.key for one in space.dimensions]
    importances, why_not = _importances(study, trials, len(aim.metrics))
    finalists = None
    try:
        finalists = read_finalists(folder)
    except ToolkitError as error:
        notes.append(error.message)
    return Contents(
        name=study.study_name,
        folder=folder,
        metrics=aim.metrics,
        directions=aim.directions,
        score=aim.scores[0],
        trials=tried,
        own=None if own is None else tried[own.number],
        keys=[key for key in asked if any(key in one.values for one in tried)],
        short=short_keys(asked),
        importances=importances,
        why_no_importances=why_not,
        finalists=finalists,
        sample=any(run.facts.get("sample") for found in runs.values() for run in found),
        notes=notes,
    )


def _read_runs(folder: Path, trials: Sequence[FrozenTrial], seeds: int) -> tuple[dict[int, list[RunFiles]], list[str]]:
    """The runs of each trial that are here, the recipe's seed first; and what could not be read."""
    runs: dict[int, list[RunFiles]] = {}
    notes = []
    for trial in trials:
        first = trial_run(folder, trial.number)
        for run in (repeat_of(first, number) for number in range(seeds)):
            if not run.recipe.is_file():
                continue
            try:
                runs.setdefault(trial.number, []).append(read_run(run.path))
            except ToolkitError as error:
                notes.append(error.message)
    return runs, notes


def _tried(
    trial: FrozenTrial, runs: Sequence[RunFiles], scores: Sequence[float], metric: str, planned: int, *, best: bool
) -> Tried:
    """A trial by its runs where they are here, else by what it has reported; `metric` is that of its curve."""
    records = [record for run in runs for record in run.records]
    first = runs[0].records if runs else ()
    curve = [(record.epoch, record.valid[metric]) for record in first if metric in record.valid]
    waiting = sum(record.seconds * record.waiting for record in records)
    training = sum(record.seconds for record in records) - waiting
    validation = sum(record.valid_seconds for record in records)
    rest = max(0.0, seconds(trial) - training - waiting - validation)
    return Tried(
        number=trial.number,
        state=trial.state,
        values=trial.params,
        distributions=trial.distributions,
        scores=scores,
        curve=curve if first else sorted(trial.intermediate_values.items()),
        epochs=len(records) if runs else max(trial.intermediate_values, default=0),
        planned=max(planned, len(records)),
        spent=Spent(training, waiting, validation, rest),
        cause=cause(trial),
        best=best,
        own="own" in trial.user_attrs,
    )


def _importances(
    study: optuna.Study, trials: Sequence[FrozenTrial], metrics: int
) -> tuple[list[dict[str, float]], str]:
    """By Optuna's own choice of method; or the reason why they cannot be computed."""
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(finished) < FOR_IMPORTANCES:
        found = counted(len(finished), "finished trial")
        return [], f"Importances need {FOR_IMPORTANCES} finished trials; the study has {found}."
    if len({tuple(trial.values) for trial in finished}) == 1:
        return [], "Importances cannot be computed: all finished trials have the same score."

    def importances(place: int) -> dict[str, float]:
        target = (lambda trial: float(trial.values[place])) if metrics > 1 else None
        return optuna.importance.get_param_importances(study, target=target)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Optuna calls experimental, and where it knows little
        try:
            return [importances(place) for place in range(metrics)], ""
        except (ValueError, RuntimeError) as error:
            return [], f"Importances cannot be computed: {error}"
