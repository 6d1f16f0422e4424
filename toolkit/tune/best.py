"""The best of a study beside the recipe's own values: finished runs of both, each with as many seeds as asked for.

A trial is chosen by the score of one run, so a part of its lead is luck. Runs of the same recipe with other seeds tell
how large that part is. Each stands below the run that it repeats: `trial-0007/seed-1` is trial 7 with the seed that is
one higher.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from toolkit.api.errors import RunFailed, Stopped, ToolkitError
from toolkit.recipe.read import load, overridden
from toolkit.recipe.write import to_toml
from toolkit.runs.directory import RunDirectory, explained
from toolkit.runs.session import resume_run
from toolkit.system.signals import Signalled, Signals, exit_code
from toolkit.tune.folder import alone, repeat_of, trial_run
from toolkit.tune.outcome import best_finished
from toolkit.tune.space import Space

FRONT = 5
"""Trials of a Pareto front that are finished and repeated at most; evenly spread over the front."""
RESULT = "best.json"


@dataclass(frozen=True)
class Candidate:
    """One trial's values, judged by runs with one seed or several."""

    trial: int
    own: bool
    """Whether these are the recipe's own values."""
    values: Mapping[str, Any]
    """What the trial tried, by key."""
    seeds: tuple[int, ...]
    """Seeds of the runs that reached their end."""
    runs: tuple[str, ...]
    """Those runs, relative to the study's folder."""
    scores: Mapping[str, tuple[float, ...]]
    """By name, one number a run; NaN where it is undefined."""
    failures: Mapping[str, str]
    """Runs that failed, with the cause."""

    @property
    def name(self) -> str:
        return "own values" if self.own else f"trial {self.trial}"


@dataclass(frozen=True)
class Comparison:
    """The best trials of a study and the recipe's own values, the own ones last."""

    split: str
    """Which split the scores are of: `test`, or `valid` where the data has no test split."""
    sample: bool
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]
    """What is not in the comparison, and why."""

    @property
    def scores(self) -> list[str]:
        """Names of all scores."""
        return list(dict.fromkeys(name for one in self.candidates for name in one.scores))


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter is NaN of a single value, both are where a value is."""
    if not all(math.isfinite(value) for value in values):
        return math.nan, math.nan
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def told(values: Sequence[float]) -> str:
    """Mean and standard deviation as text."""
    if not values:
        return "—"
    mean, deviation = mean_and_deviation(values)
    if math.isnan(mean):
        return "undefined"
    return f"{mean:.4f}" if math.isnan(deviation) else f"{mean:.4f} ± {deviation:.4f}"


def finish_best(
    study: optuna.Study, space: Space, source: str, folder: Path, *, seeds: int, again: str, console: Console
) -> Comparison | None:
    """Finish the best trial's run (of several metrics, the Pareto front's) and the one of the recipe's own values, and
    repeat both until each has `seeds` runs; writes `best.json`. None while no trial is finished.

    `source` is the recipe's file, `again` the command that goes on after a signal. What an earlier call has finished
    is not run again. A repeat that fails is told in the comparison. Raises Stopped when a signal came.
    """
    best, notes = best_trials(study)
    if not best:
        return None

    def waiting() -> None:
        console.print("another process is finishing the best trial's run: waiting for it", markup=False)

    try:
        with Signals(), alone(folder, ".best.lock", waiting=waiting):
            runs = Runs(study, space, source, folder, seeds, console)
            candidates = [runs.candidate(trial, trial_run(folder, trial.number)) for trial in best]
            own, why_not = runs.own(best)
            compared = _compared(folder, [*candidates, *own], [*notes, *why_not])
    except (Signalled, Stopped) as stopped:
        raise Stopped(
            f"stopped by a signal; {folder} keeps the study and the last checkpoint of the run under way",
            exit_code=exit_code(stopped.number) if isinstance(stopped, Signalled) else stopped.exit_code,
            next_step=again,
        ) from stopped
    RunDirectory(folder).write_json(RESULT, _as_json(compared))
    console.print(comparison_table(compared, study.study_name))
    for note in compared.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    return compared


def export_best(study: optuna.Study, folder: Path, *, exports: Path, console: Console) -> list[Path]:
    """Export the best trial's run as `exports/<study>`; of several metrics, the Pareto front's as
    `exports/<study>-0007` and so on. The bundles; empty while no trial is finished.

    What is exported is the trial itself, with the recipe's seed: not the luckiest of its repeats. Raises ParityError
    where an exported model does not answer as the trained one does.
    """
    from toolkit.export.write import export_run

    single = len(study.directions) == 1
    best, _ = best_trials(study)
    bundles = []
    for trial in best:
        name = study.study_name if single else f"{study.study_name}-{trial.number:04}"
        run = trial_run(folder, trial.number).path
        bundle = export_run(run, name=name, exports=exports, overrides=(), triton=False, console=console)
        console.print(f"bundle {bundle}", markup=False, soft_wrap=True)
        bundles.append(bundle)
    return bundles


def read_comparison(folder: Path) -> Comparison | None:
    """What `finish_best` has written; None where it has not."""
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        candidates = tuple(_read_candidate(one) for one in table["candidates"])
        return Comparison(table["split"], table["sample"], candidates, tuple(table["notes"]))
    except (ValueError, TypeError, KeyError) as error:
        raise RunFailed(
            f"{path}: cannot be read: {error}", next_step=f"remove {path}, then give the tune command again"
        ) from error


def best_trials(study: optuna.Study) -> tuple[list[FrozenTrial], list[str]]:
    """The best trial, or the Pareto front by its first metric, thinned to `FRONT`; and what was left out."""
    front = sorted(best_finished(study), key=lambda trial: trial.values)
    if len(front) <= FRONT:
        return front, []
    places = [round(place * (len(front) - 1) / (FRONT - 1)) for place in range(FRONT)]
    return [front[place] for place in places], [f"{FRONT} of the {len(front)} trials of the Pareto front are compared"]


def own_trial(study: optuna.Study) -> FrozenTrial | None:
    """The trial of the recipe's own values; where it was interrupted and begun again, the one that got furthest."""
    order = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING)
    found = [trial for trial in study.get_trials(deepcopy=False) if "own" in trial.user_attrs]
    return min(found, key=lambda trial: order.index(trial.state), default=None)


@dataclass(frozen=True)
class Runs:
    """Finishes the runs of trials and repeats them."""

    study: optuna.Study
    space: Space
    source: str
    folder: Path
    seeds: int
    console: Console

    def own(self, best: Sequence[FrozenTrial]) -> tuple[list[Candidate], list[str]]:
        """The recipe's own values as a candidate, unless they are among the best; or why they are none."""
        trial = own_trial(self.study)
        if trial is None or trial.number in {one.number for one in best}:
            return [], []
        if trial.state == TrialState.COMPLETE:
            return [self.candidate(trial, trial_run(self.folder, trial.number))], []
        if trial.state == TrialState.FAIL:
            return [], [f"the recipe's own values failed: {trial.user_attrs.get('cause')}"]
        if trial.state == TrialState.PRUNED and self.seeds > 1:
            return [self.candidate(trial, RunDirectory(self.folder / "own"))], []
        what = "were pruned" if trial.state == TrialState.PRUNED else "have not been tried to their end"
        return [], [f"the recipe's own values {what}; two seeds or more run them whole"]

    def candidate(self, trial: FrozenTrial, first: RunDirectory) -> Candidate:
        """The trial's values, after runs with all seeds; `first` is that with the recipe's seed."""
        self._begin(first, self._recipe(trial))
        seed = load(first.recipe).seed
        runs, failures = {}, {}
        for number in range(self.seeds):
            run = repeat_of(first, number)
            self._begin(run, to_toml(load(first.recipe).model_copy(update={"seed": seed + number})))
            try:
                self._finish(run, f"trial {trial.number}, seed {seed + number}")
            except Stopped:
                raise
            except ToolkitError as error:
                failures[str(run.path.relative_to(self.folder))] = error.message
            else:
                runs[seed + number] = run
        return Candidate(
            trial=trial.number,
            own="own" in trial.user_attrs,
            values=dict(trial.params),
            seeds=tuple(runs),
            runs=tuple(str(run.path.relative_to(self.folder)) for run in runs.values()),
            scores=_scores(list(runs.values())),
            failures=failures,
        )

    def _recipe(self, trial: FrozenTrial) -> str:
        """The trial's recipe: as it was run here, or by its values where another machine has run it."""
        run = trial_run(self.folder, trial.number)
        if run.recipe.is_file():
            return run.recipe.read_text(encoding="utf-8")
        overrides = [] if "own" in trial.user_attrs else self.space.suggest(trial)
        draft = overridden(self.space.recipe, self.source, overrides)
        if draft.recipe is None:
            raise AssertionError("unreachable: a finished trial has a valid recipe")
        return to_toml(draft.recipe)

    def _begin(self, run: RunDirectory, recipe: str) -> None:
        if not run.recipe.is_file():
            with explained(self.folder):
                run.path.mkdir(parents=True, exist_ok=True)
            run.write_text(run.recipe.name, recipe)

    def _finish(self, run: RunDirectory, title: str) -> None:
        if run.scores.is_file() and (run.path / "report.html").is_file():
            return
        self.console.print(title, style="bold", markup=False)
        resume_run(run.path, recipe=None, overrides=(), console=self.console)


def _compared(folder: Path, candidates: Sequence[Candidate], notes: Sequence[str]) -> Comparison:
    finished = [folder / run for one in candidates for run in one.runs]
    facts = [json.loads((run / "facts.json").read_text(encoding="utf-8")) for run in finished]
    split = _judged_on(finished[0]) if finished else "test"
    return Comparison(split, any(one["sample"] for one in facts), tuple(candidates), tuple(notes))


def _scores(runs: Sequence[RunDirectory]) -> dict[str, tuple[float, ...]]:
    """Scalar scores that all runs have."""
    found = [json.loads(run.scores.read_text(encoding="utf-8"))[_judged_on(run.path)] for run in runs]
    names = [name for name, score in found[0].items() if score is None or isinstance(score, float)] if found else []
    return {name: tuple(_number(one.get(name)) for one in found) for name in names}


def _judged_on(run: Path) -> str:
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    return "test" if scores["test"] else "valid"


def _number(score: Any) -> float:
    return math.nan if score is None else float(score)


def _read_candidate(table: Mapping[str, Any]) -> Candidate:
    scores = {name: tuple(_number(value) for value in one["values"]) for name, one in table["scores"].items()}
    sequences = {"seeds": tuple(table["seeds"]), "runs": tuple(table["runs"])}
    return Candidate(**{**table, **sequences, "scores": scores})


def _as_json(compared: Comparison) -> dict[str, Any]:
    """With mean and standard deviation beside the values, for who reads the file."""
    table = asdict(compared)
    for one in table["candidates"]:
        one["scores"] = {name: _summary(values) for name, values in one["scores"].items()}
    return table


def _summary(values: Sequence[float]) -> dict[str, Any]:
    mean, deviation = mean_and_deviation(values)
    return {"mean": mean, "std": deviation, "values": list(values)}


def comparison_table(compared: Comparison, study: str) -> Table:
    """Every score of every candidate: mean and standard deviation over its seeds."""
    sample = " (SAMPLE data)" if compared.sample else ""
    table = Table(title=f"{study}: scores on {compared.split}{sample}", title_justify="left")
    table.add_column("score")
    for one in compared.candidates:
        table.add_column(f"{one.name}, {len(one.seeds)} seed{'s' if len(one.seeds) != 1 else ''}", justify="right")
    for name in compared.scores:
        table.add_row(name, *(told(one.scores.get(name, ())) for one in compared.candidates))
    for one in compared.candidates:
        for run, cause in one.failures.items():
            table.add_row(f"{run} failed", cause)
    return table
