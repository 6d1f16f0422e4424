"""Tuning: a study of many runs that tries values of a recipe's keys, and the recipe of the best of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from optuna.trial import TrialState
from rich.console import Console

from toolkit.host.registry import discover
from toolkit.recipe.draft import Draft
from toolkit.system.notices import note, show, warn
from toolkit.tune.best import export_best, finish_best, print_next_steps, write_best
from toolkit.tune.outcome import WORDS, best_finished
from toolkit.tune.queue import enqueue, enqueue_own
from toolkit.tune.report import write_study_report
from toolkit.tune.screen import StudyScreen, best_line
from toolkit.tune.search import drawn_at_random, short_of_grid
from toolkit.tune.storage import alone, dashboard_command, storage_failures, why_failed
from toolkit.tune.study import StudyPlan, plan_study
from toolkit.tune.worker.trial import StudyLocation, Worker, joined
from toolkit.tune.worker.workers import Workers, resources

__all__ = ["StudyLocation", "tune_recipe"]


def tune_recipe(
    draft: Draft,
    location: StudyLocation,
    *,
    enqueued: Sequence[str] = (),
    workers: int = 1,
    ranks: int = 1,
    seeds: int = 1,
    exports: Path | None = None,
    console: Console,
) -> Path:
    """Work on the study of a recipe until it has all its trials, then finish its best; the study's folder
    `runs/<recipe>`.

    Begins the study, goes on with it or joins it, in this process or in several `workers`, each trial on so many
    `ranks`. `enqueued` are values to be tried next, each text `key=value,key=value`. The best trial and the recipe's
    own values get `seeds` runs each; the best is exported into `exports` where that is given. Raises RecipeError with
    all that is wrong before any trial.
    """
    planned = plan_study(draft, discover())
    threads = resources(planned.recipe, 1, ranks)[0].threads if ranks > 1 else None
    with joined(location, planned, threads=threads, ranks=ranks) as worker:
        study, folder = worker.study, worker.folder
        with alone(folder):
            enqueue_own(study, planned.own)
            skipped = enqueue(study, planned.space, enqueued, trials=planned.tune.trials)
        show(f"study {folder}", console=console)
        dashboard = dashboard_command(folder, location.storage)
        if dashboard:
            show(f"view {dashboard}", console=console)
        for text in [*skipped, *_notes(planned)]:
            note(text, console)
        screen = StudyScreen(console, study, planned.tune, folder, leave=worker.storage.remove_session)
        with at_the_end(lambda: _report(worker, console), console):
            with at_the_end(lambda: _print_best(worker, console), console), screen:
                if workers == 1:
                    worker.work()
                else:
                    Workers(planned.recipe, draft.source, location, workers, console, ranks).work()
            finish_best(study, planned, folder, ranks=ranks, seeds=seeds, again=location.again, console=console)
        if exports is not None:
            export_best(study, folder, exports=exports, console=console)
        if dashboard:
            show(f"view {dashboard}", console=console)
        if exports is None:
            print_next_steps(study, folder, console)
        return folder


def _notes(planned: StudyPlan) -> Iterator[str]:
    """What the study will not try as its recipe suggests."""
    for key in drawn_at_random(planned.search, planned.space, planned.own):
        reason = "the recipe's own value is outside the space, so this sampler draws all its values at random"
        yield f"tune.space.{key}: {reason}"
    if short := short_of_grid(planned.search, planned.own, planned.tune.trials):
        yield f"tune.trials: {short}"


@contextmanager
def at_the_end(act: Callable[[], None], console: Console) -> Iterator[None]:
    """Do `act` after the block, also where the block fails: then what fails in `act` is a warning, and no more."""
    try:
        yield
    except BaseException:
        try:
            act()
        except storage_failures() as error:
            warn(f"the storage does not answer: {why_failed(error)}", console)
        except Exception as error:  # must not take the place of what has ended the block
            warn(f"{type(error).__name__}: {error}", console)
        raise
    act()


def _print_best(worker: Worker, console: Console) -> None:
    """Print how many trials there are and which is best, and write the best one as a recipe."""
    states = [trial.state for trial in worker.study.get_trials(deepcopy=False)]
    ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    counts = ", ".join(f"{states.count(state)} {WORDS[state]}" for state in ended)
    show(f"trials: {counts}", console=console)
    for trial in best_finished(worker.study):
        line = best_line(trial, worker.planned.aim.metrics)
        show(line, console=console)
    for path in write_best(worker.study, worker.planned, worker.folder):
        show(f"best {path}", console=console)


def _report(worker: Worker, console: Console) -> None:
    if all(trial.state == TrialState.WAITING for trial in worker.study.get_trials(deepcopy=False)):
        return
    planned = worker.planned
    seeds = planned.tune.seeds_per_trial
    page = write_study_report(worker.study, worker.folder, planned.aim, planned.space, seeds=seeds)
    show(f"report {page}", console=console)
