"""Tuning: a study of many runs that tries values of a recipe's keys, and the recipe of the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.trial import TrialState
from rich.console import Console

from toolkit.components import plan
from toolkit.errors import Problem, RecipeError
from toolkit.recipe import Draft, Recipe, TuneTable
from toolkit.registry import Registry, discover
from toolkit.tune.space import Space, check_space
from toolkit.tune.study import Aim, Search, aim_of, enqueue, enqueue_own, open_storage, open_study, search_of
from toolkit.tune.trial import Worker, write_best

__all__ = ["tune_recipe"]


def tune_recipe(
    draft: Draft, *, runs: Path, storage: str | None, enqueued: Sequence[str], again: str, console: Console
) -> Path:
    """Work on the study of a recipe until it has all its trials; the study's folder `runs/<recipe>`.

    Begins the study, goes on with it or joins it. `storage` is a database's URL, None for the journal file in the
    folder; `again` is the command that does the same. Raises RecipeError with all that is wrong before any trial.
    """
    registry = discover()
    planned = plan(draft, registry)
    recipe = draft.recipe or planned.resolved
    if recipe.tune is None:
        problem = Problem("tune", "is required: a table with trials and the space of values to try")
        raise RecipeError(draft.source, [problem], next_step=f"add [tune] and [tune.space] to {draft.source}")
    space, aim, search = _checked(recipe, recipe.tune, draft.source, registry)
    folder = runs / recipe.name
    study = open_study(recipe, space, aim, search, open_storage(folder, storage))
    enqueue_own(study, space, planned.resolved)
    enqueue(study, space, enqueued)
    console.print(f"study {folder}", markup=False, soft_wrap=True)
    worker = Worker(study, space, aim, recipe.tune, draft.source, folder, again)
    worker.work()
    _show(console, study)
    for path in write_best(worker):
        console.print(f"best {path}", markup=False, soft_wrap=True)
    return folder


def _checked(recipe: Recipe, tune: TuneTable, source: str, registry: Registry) -> tuple[Space, Aim, Search]:
    """Everything of a `[tune]` table, found right; RecipeError with all that is not."""
    problems: list[Problem] = []
    try:
        space = check_space(recipe, source, registry)
    except RecipeError as error:
        problems += error.problems
        space = Space(recipe, ())
    aim, wrong_aim = aim_of(recipe, tune)
    search, wrong_search = search_of(recipe, tune, space)
    problems += [*wrong_aim, *wrong_search]
    if problems or search is None:
        raise RecipeError(source, problems, next_step=f"correct [tune] in {source}, then give the command again")
    return space, aim, search


def _show(console: Console, study: optuna.Study) -> None:
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    told = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    counts = ", ".join(f"{states.count(state)} {word}" for word, state in told.items())
    console.print(f"trials: {counts}", markup=False)
    for trial in study.best_trials:
        values = ", ".join(f"{value:g}" for value in trial.values)
        console.print(f"trial {trial.number}: {values} with {trial.params}", markup=False, soft_wrap=True)
