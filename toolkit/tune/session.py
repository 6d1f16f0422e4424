"""Tuning: a study of many runs that tries values of a recipe's keys, and the recipe of the best of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from optuna.trial import TrialState
from rich.console import Console

from toolkit.build.plan import plan
from toolkit.host.registry import discover
from toolkit.recipe.draft import Draft
from toolkit.tune.best import export_best, finish_best
from toolkit.tune.checked import checked, of_study
from toolkit.tune.folder import alone
from toolkit.tune.outcome import best_finished
from toolkit.tune.queue import enqueue, enqueue_own
from toolkit.tune.report import write_study_report
from toolkit.tune.screen import StudyScreen
from toolkit.tune.search import drawn_at_random, short_of_grid
from toolkit.tune.worker.join import Job, joined
from toolkit.tune.worker.trial import Worker, write_best
from toolkit.tune.worker.workers import Workers

__all__ = ["Job", "tune_recipe"]


def tune_recipe(
    draft: Draft,
    job: Job,
    *,
    enqueued: Sequence[str] = (),
    workers: int = 1,
    seeds: int = 1,
    exports: Path | None = None,
    console: Console,
) -> Path:
    """Work on the study of a recipe until it has all its trials, then finish its best; the study's folder
    `runs/<recipe>`.

    Begins the study, goes on with it or joins it, in this process or in several `workers`. `enqueued` are values to be
    tried next, each text `key=value,key=value`. The best trial and the recipe's own values get `seeds` runs each; the
    best is exported into `exports` where that is given. Raises RecipeError with all that is wrong before any trial.
    """
    registry, draft = discover(), of_study(draft)
    planned = plan(draft, registry)
    recipe = draft.recipe or planned.resolved
    found = checked(recipe, draft.source, registry)
    with joined(job, recipe, draft.source, found, registry) as worker:
        study, folder = worker.study, worker.folder
        with alone(folder):
            enqueue_own(study, found.space, planned.resolved)
            passed_over = enqueue(study, found.space, enqueued, trials=found.tune.trials)
        console.print(f"study {folder}", markup=False, soft_wrap=True)
        for told in passed_over:
            console.print(f"note: {told}", markup=False, soft_wrap=True)
        for key in drawn_at_random(found.search, found.space, planned.resolved):
            told = "the recipe's own value is outside the space, so this sampler draws every trial's at random"
            console.print(f"note: tune.space.{key}: {told}", markup=False, soft_wrap=True)
        if short := short_of_grid(found.search, found.space, planned.resolved, found.tune.trials):
            console.print(f"note: tune.trials: {short}", markup=False, soft_wrap=True)
        with at_the_end(lambda: _report(worker, console), console):
            with at_the_end(lambda: _tell(worker, console), console), StudyScreen(console, study, found.tune, folder):
                if workers == 1:
                    worker.work()
                else:
                    Workers(recipe, draft.source, job, workers, console).work()
            finish_best(study, found.space, draft.source, folder, seeds=seeds, again=job.again, console=console)
        if exports is not None:
            export_best(study, folder, exports=exports, console=console)
        return folder


@contextmanager
def at_the_end(act: Callable[[], None], console: Console) -> Iterator[None]:
    """Do `act` after the block, also where the block fails: then what fails in `act` is told, and no more."""
    try:
        yield
    except BaseException:
        try:
            act()
        except Exception as error:  # must not take the place of what has ended the block
            console.print(f"warning: {type(error).__name__}: {error}", style="yellow", markup=False, soft_wrap=True)
        raise
    act()


def _tell(worker: Worker, console: Console) -> None:
    """How many trials there are and which is best, on screen and as a recipe."""
    states = [trial.state for trial in worker.study.get_trials(deepcopy=False)]
    told = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    counts = ", ".join(f"{states.count(state)} {word}" for word, state in told.items())
    console.print(f"trials: {counts}", markup=False)
    for trial in best_finished(worker.study):
        values = ", ".join(f"{value:g}" for value in trial.values)
        console.print(f"trial {trial.number}: {values} with {trial.params}", markup=False, soft_wrap=True)
    for path in write_best(worker):
        console.print(f"best {path}", markup=False, soft_wrap=True)


def _report(worker: Worker, console: Console) -> None:
    scoring = worker.scoring
    if all(trial.state == TrialState.WAITING for trial in worker.study.get_trials(deepcopy=False)):
        return
    seeds = scoring.tune.seeds_per_trial
    page = write_study_report(worker.study, worker.folder, scoring.aim, scoring.space, seeds=seeds)
    console.print(f"report {page}", markup=False, soft_wrap=True)
