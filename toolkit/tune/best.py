"""The best of a study compared with the recipe's own values: finished runs of both, with as many seeds as asked for.

A trial is chosen by the score of one run, so a part of its lead is luck. Runs of the same recipe with other seeds show
how large that part is. Each lies below the run that it repeats: `trial-0007/seed-1` is trial 7 with the seed that is
one higher.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from toolkit.api.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    RunFailed,
    Stopped,
    ToolkitError,
    counted,
)
from toolkit.build.plan import plan
from toolkit.recipe.read import load, overridden
from toolkit.recipe.write import to_toml
from toolkit.runs.directory import RunDirectory, explained, nan_for_null
from toolkit.runs.files import read_run
from toolkit.runs.repeats import RepeatedRow, mean_and_deviation, repeated_rows, scores_of, scores_table
from toolkit.runs.session import resume_run
from toolkit.system.launch import launch
from toolkit.system.notices import cell, note, say, show
from toolkit.system.signals import Signals, how_ended, stopping
from toolkit.tune.outcome import best_finished
from toolkit.tune.storage import alone, repeat_of, trial_run
from toolkit.tune.study import StudyPlan

FRONT = 5
"""Trials of a Pareto front that are finished and repeated at most; evenly spread over the front."""
RESULT = "best.json"


@dataclass(frozen=True)
class Finalist:
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

    @property
    def heading(self) -> str:
        return f"{self.name}, {counted(len(self.seeds), 'seed')}"


@dataclass(frozen=True)
class Finalists:
    """The best trials of a study and the recipe's own values, the own ones last."""

    split: str
    """Which split the scores are of: `test`, or `valid` where the data has no test split."""
    sample: bool
    candidates: tuple[Finalist, ...]
    notes: tuple[str, ...]
    """What is skipped, and why."""

    @property
    def scores(self) -> list[RepeatedRow]:
        """A row for each score, a column for each candidate."""
        return repeated_rows([one.scores for one in self.candidates])


def finish_best(
    study: optuna.Study, planned: StudyPlan, folder: Path, *, ranks: int = 1, seeds: int, again: str, console: Console
) -> Finalists | None:
    """Finish the best trial's run (of several metrics, the Pareto front's) and the one of the recipe's own values, and
    repeat both until each has `seeds` runs; writes `best.json`. None while no trial is finished.

    `again` is the command that continues after a signal. What an earlier call has finished is not run again. A repeat
    that fails is listed among the failures. Raises Stopped when a signal came.
    """
    best, notes = best_trials(study)
    if not best:
        return None

    def waiting() -> None:
        show("another process is finishing the best trial's run: waiting for it", console=console)

    kept = f"{folder} keeps the study and the last checkpoint of the run under way"
    with stopping(kept, again), Signals(), alone(folder, ".best.lock", waiting=waiting):
        final = _Final(planned, folder, seeds, console, ranks)
        candidates = [final.finished(trial, trial_run(folder, trial.number)) for trial in best]
        own, why_not = final.own(own_trial(study), best)
    candidates += own
    runs = [read_run(folder / run) for one in candidates for run in one.runs]
    sample = any(run.facts["sample"] for run in runs)
    split = runs[0].split if runs else "test"
    finalists = Finalists(split, sample, tuple(candidates), (*notes, *why_not))
    write_finalists(folder, finalists)
    table = scores_table({one.heading: one.scores for one in candidates})
    for run, cause in (failed for one in candidates for failed in one.failures.items()):
        table.add_row(cell(f"{run} failed"), cell(cause))
    title = f"{study.study_name}: scores on {split}{' (SAMPLE data)' if sample else ''}"
    show(title, console=console)
    console.print(table)
    for text in finalists.notes:
        note(text, console)
    return finalists


def write_finalists(folder: Path, finalists: Finalists) -> None:
    """Write `best.json`, with the mean, the standard deviation and the values of each score."""
    table = asdict(finalists)
    for one in table["candidates"]:
        for name, values in one["scores"].items():
            mean, deviation = mean_and_deviation(values)
            one["scores"][name] = {"mean": mean, "std": deviation, "values": values}
    RunDirectory(folder).write_json(folder / RESULT, table)


def read_finalists(folder: Path) -> Finalists | None:
    """What `write_finalists` has written; None where it has not."""
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        candidates = []
        for one in table["candidates"]:
            scores = {name: tuple(nan_for_null(summary["values"])) for name, summary in one["scores"].items()}
            changed = {"seeds": tuple(one["seeds"]), "runs": tuple(one["runs"]), "scores": scores}
            candidates.append(Finalist(**{**one, **changed}))
        return Finalists(table["split"], table["sample"], tuple(candidates), tuple(table["notes"]))
    except (ValueError, TypeError, KeyError) as error:
        raise RunFailed(
            f"{path}: cannot be read: {error}", next_step=f"remove {path}, then run the tune command again"
        ) from error


def write_best(study: optuna.Study, planned: StudyPlan, folder: Path) -> list[Path]:
    """`best.toml`, or one `best-NNNN.toml` for each trial that no other is better than by all of several scores.

    Each is the complete recipe of its trial, as `run` takes it. Empty while no trial is finished. Those of trials that
    are no longer among the best are removed.
    """
    best = best_finished(study)
    written = []
    for trial in best:
        path = folder / ("best.toml" if len(study.directions) == 1 else f"best-{trial.number:04}.toml")
        RunDirectory(folder).write_text(path, _recipe_of(trial, planned, folder))
        written.append(path)
    if best:
        with explained(folder):
            for path in {*folder.glob("best-[0-9]*.toml")} - {*written}:
                path.unlink(missing_ok=True)
    return written


def export_best(study: optuna.Study, folder: Path, *, exports: Path, console: Console) -> list[Path]:
    """Export the best trial's run as `exports/<study>`; of several metrics, the Pareto front's as
    `exports/<study>-0007` and so on. The bundles; empty while no trial is finished.

    What is exported is the trial itself, with the recipe's seed: not the luckiest of its repeats. Raises ParityError
    where an exported model does not answer as the trained one does.
    """
    from toolkit.export.write import export_run

    best, _ = best_trials(study)
    bundles = []
    for trial in best:
        name = study.study_name if len(study.directions) == 1 else f"{study.study_name}-{trial.number:04}"
        run = trial_run(folder, trial.number).path
        bundle = export_run(run, name=name, exports=exports, overrides=(), console=console)
        show(f"bundle {bundle}", console=console)
        bundles.append(bundle)
    return bundles


def print_next_steps(study: optuna.Study, folder: Path, console: Console) -> None:
    """Print the commands that export the best trial's run; of several metrics, those of the Pareto front."""
    for trial in best_trials(study)[0]:
        run = trial_run(folder, trial.number).path
        command = shlex.join(["python", "-m", "toolkit", "export", str(run)])
        show(f"next:  export trial {trial.number}", f"  {command}", console=console)


def best_trials(study: optuna.Study) -> tuple[list[FrozenTrial], list[str]]:
    """The best trial, or the Pareto front by its first metric, thinned to `FRONT`; and a note on what was skipped."""
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


def _recipe_of(trial: FrozenTrial, planned: StudyPlan, folder: Path) -> str:
    """The trial's recipe: as it was run here, or by its values where another machine has run it."""
    run = trial_run(folder, trial.number)
    if run.recipe.is_file():
        return run.recipe.read_text(encoding="utf-8")
    overrides = [] if "own" in trial.user_attrs else planned.space.suggest(trial)
    draft = overridden(planned.space.recipe, planned.source, overrides)
    return to_toml(plan(draft, planned.registry).resolved)


@dataclass(frozen=True)
class _Final:
    """Finishes the runs of trials and repeats them."""

    planned: StudyPlan
    folder: Path
    seeds: int
    console: Console
    ranks: int

    def own(self, trial: FrozenTrial | None, best: Sequence[FrozenTrial]) -> tuple[list[Finalist], list[str]]:
        """The recipe's own values, unless they are among the best; or why they cannot be compared."""
        if trial is None or trial.number in {one.number for one in best}:
            return [], []
        if trial.state == TrialState.COMPLETE:
            return [self.finished(trial, trial_run(self.folder, trial.number))], []
        if trial.state == TrialState.FAIL:
            return [], [f"the recipe's own values failed: {trial.user_attrs.get('cause')}"]
        if trial.state == TrialState.PRUNED and self.seeds > 1:
            return [self.finished(trial, RunDirectory(self.folder / "own"))], []
        state = "were pruned" if trial.state == TrialState.PRUNED else "have not been tried to their end"
        return [], [f"the recipe's own values {state}; two seeds or more run them whole"]

    def finished(self, trial: FrozenTrial, first: RunDirectory) -> Finalist:
        """The trial's values, after runs with all seeds; `first` is that with the recipe's seed."""
        self._begin(first, _recipe_of(trial, self.planned, self.folder))
        recipe = load(first.recipe)
        runs, failures = {}, {}
        for seed in range(recipe.seed, recipe.seed + self.seeds):
            run = repeat_of(first, seed - recipe.seed)
            self._begin(run, to_toml(recipe.model_copy(update={"seed": seed})))
            try:
                if not (run.scores.is_file() and run.report.is_file()):
                    say(f"trial {trial.number}, seed {seed}", self.console, style="bold")
                    self._finish(run)
            except Stopped:
                raise
            except ToolkitError as error:
                failures[str(run.path.relative_to(self.folder))] = error.message
            else:
                runs[seed] = run
        return Finalist(
            trial=trial.number,
            own="own" in trial.user_attrs,
            values=dict(trial.params),
            seeds=tuple(runs),
            runs=tuple(str(run.path.relative_to(self.folder)) for run in runs.values()),
            scores=scores_of([read_run(run.path) for run in runs.values()]),
            failures=failures,
        )

    def _finish(self, run: RunDirectory) -> None:
        if self.ranks == 1:
            resume_run(run.path, recipe=None, overrides=(), console=self.console)
            return
        code = launch(["run", "--resume", str(run.path)], self.ranks)
        if code in (EXIT_STOPPED, EXIT_INTERRUPTED):
            raise Stopped(how_ended(code), exit_code=code, next_step=run.resume_command)
        if code != EXIT_DONE:
            raise RunFailed(f"its ranks ended with exit code {code}")

    def _begin(self, run: RunDirectory, recipe: str) -> None:
        if not run.recipe.is_file():
            with explained(self.folder):
                run.path.mkdir(parents=True, exist_ok=True)
            run.write_text(run.recipe, recipe)
