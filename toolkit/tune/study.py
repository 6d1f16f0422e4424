"""A study: a recipe with a `[tune]` table, checked whole before any trial, and Optuna's study of its trials."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from toolkit.api.errors import Problem, RecipeError, UsageError
from toolkit.build.plan import plan, with_usual
from toolkit.host.registry import Registry
from toolkit.recipe.draft import Draft
from toolkit.recipe.read import overridden
from toolkit.recipe.tables import Recipe, TuneTable
from toolkit.recipe.write import computed, digest, inline
from toolkit.tune.aim import Aim, aim_of
from toolkit.tune.space import Scalar, Space, check_space, flattened

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage

    from toolkit.tune.search import Search


BATCH = "train.batch"


@dataclass(frozen=True)
class StudyPlan:
    """What a recipe's `[tune]` table means."""

    recipe: Recipe
    """With the values of `[tune.fixed]`."""
    source: str
    """The recipe's file."""
    registry: Registry
    tune: TuneTable
    space: Space
    aim: Aim
    search: Search
    own: Mapping[str, Scalar]
    """The recipe's own values, as Optuna keeps them, where the space holds them."""


def plan_study(draft: Draft, registry: Registry) -> StudyPlan:
    """The study of a recipe. Raises RecipeError with all that is wrong with the recipe, or with its `[tune]` table."""
    from toolkit.tune.search import search_of

    outline, problems = _outlined(draft, registry)
    recipe, tune, source = outline.recipe, outline.tune, draft.source
    search, wrong_search = search_of(recipe, tune, outline.space)
    problems += wrong_search
    if problems or search is None:
        raise _invalid(source, problems)
    own = outline.space.own(outline.resolved)
    return StudyPlan(recipe, source, registry, tune, outline.space, outline.aim, search, own)


def check_study(draft: Draft, registry: Registry) -> None:
    """Raise what `plan_study` would raise. Optuna is imported only where no earlier command has checked the same
    sampler and pruner: that takes longer than all other checks."""
    outline, problems = _outlined(draft, registry)
    recipe, tune, space = outline.recipe, outline.tune, outline.space

    def wrong_search() -> list[Any]:
        from toolkit.tune.search import search_of

        return [list(problem) for problem in search_of(recipe, tune, space)[1]]

    chosen = tune.model_dump(mode="json", include={"sampler", "pruner", "seeds_per_trial"})
    dimensions = [(one.key, one.integer, sorted(one.components or ())) for one in space.dimensions]
    decisive = [chosen, recipe.train.epochs, space.described(), dimensions]
    key = json.dumps(decisive, sort_keys=True, default=str)
    problems += [Problem(*parts) for parts in registry.kept(f"search {key}", wrong_search)]
    if problems:
        raise _invalid(draft.source, problems)


@dataclass(frozen=True)
class _Outline:
    """A study but for Optuna's part."""

    recipe: Recipe
    resolved: Recipe
    tune: TuneTable
    space: Space
    aim: Aim


def _outlined(draft: Draft, registry: Registry) -> tuple[_Outline, list[Problem]]:
    """The study, and what is wrong with its space and its aim. Raises RecipeError where the recipe itself is wrong."""
    # Before the trials: their recipes say everything, and so are no longer silent about metrics.
    draft = _with_fixed(with_usual(draft, registry))
    resolved = plan(draft, registry).resolved
    recipe, source = draft.recipe or resolved, draft.source
    if recipe.tune is None:
        problem = Problem("tune", "is required: a table with trials and the space of values to try")
        raise RecipeError(source, [problem], next_step=f"add [tune] to {source}, or try rates: {_rates(resolved)}")
    problems: list[Problem] = []
    try:
        space = check_space(recipe, source, registry)
    except RecipeError as error:
        problems += error.problems
        space = Space(recipe, ())
    aim, wrong_aim = aim_of(recipe, recipe.tune)
    tried = flattened(recipe.tune.space).get(BATCH)
    chosen = [recipe.train.batch] if tried is None else tried.get("choices") or () if isinstance(tried, dict) else ()
    if "auto" in chosen:
        message = '"auto" could choose another batch on each worker: expected a number, or numbers in tune.space'
        problems.append(Problem(BATCH, message))
    return _Outline(recipe, resolved, recipe.tune, space, aim), [*problems, *wrong_aim]


def _rates(recipe: Recipe) -> str:
    """Overrides that make a study of a recipe without one: learning rates around its own."""
    lr = recipe.train.optimizer.lr
    space = f"{{train.optimizer.lr={{low={inline(lr / 10)},high={inline(lr * 10)},log=true}}}}"
    return f"--set tune.trials=10 --set 'tune.space={space}'"


def _invalid(source: str, problems: list[Problem]) -> RecipeError:
    return RecipeError(source, problems, next_step=f"correct [tune] in {source}, then run the same command again")


def _with_fixed(draft: Draft) -> Draft:
    """The draft with the values that `[tune.fixed]` gives all trials, and what is wrong with them."""
    if draft.recipe is None or draft.recipe.tune is None:
        return draft
    fixed = flattened(draft.recipe.tune.fixed)
    changed = overridden(draft.recipe, draft.source, [f"{key}={inline(value)}" for key, value in fixed.items()])
    problems = tuple(problem.below("tune.fixed") for problem in changed.problems)
    return replace(changed, problems=problems)


def open_study(planned: StudyPlan, storage: BaseStorage) -> optuna.Study:
    """The study in `storage`, created if needed.

    A study is what its recipe, space and aim are; sampler, pruner and number of trials may change. Raises UsageError
    where the storage has another study of this name.
    """
    import optuna

    from toolkit.tune.grid import Grid

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search, name = planned.search, planned.recipe.name
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=list(planned.aim.directions),
        sampler=search.sampler,
        pruner=search.pruner,
        load_if_exists=True,
    )
    _name_metrics(study, planned.aim.metrics)
    if isinstance(search.sampler, Grid):
        search.sampler.study = study
    now, before = identity(planned), study.user_attrs.get("identity")
    if before is None:
        study.set_user_attr("identity", now)
    elif changed := differences(before, now):
        raise UsageError(
            f"study {name} already exists with different settings: {'; '.join(changed)}",
            next_step="undo the change, or tune a copy of the recipe under another name",
        )
    return study


def _name_metrics(study: optuna.Study, metrics: Sequence[str]) -> None:
    """Name the objectives after their metrics, which optuna-dashboard shows."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if study.metric_names is None:
            study.set_metric_names(list(metrics))


def identity(planned: StudyPlan) -> dict[str, Any]:
    """What distinguishes one study from another, as JSON has it."""
    return {
        "recipe": digest(planned.recipe),
        "values": {key: inline(value) for key, value in flattened(computed(planned.recipe)).items()},
        "metrics": list(planned.aim.metrics),
        "directions": list(planned.aim.directions),
        "seeds_per_trial": planned.tune.seeds_per_trial,
        "space": planned.space.described(),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed of a study's identity, as text."""
    found = [
        f"{key} {', '.join(before[key])}, now {', '.join(now[key])}"
        for key in ("metrics", "directions")
        if before[key] != now[key]
    ]
    if before["seeds_per_trial"] != now["seeds_per_trial"]:
        found.append(f"seeds_per_trial {before['seeds_per_trial']}, now {now['seeds_per_trial']}")
    spaces = [one["space"].items() for one in (before, now)]
    found += _changed(*({f"tune.space.{key}": json.dumps(values) for key, values in space} for space in spaces))
    if before["recipe"] != now["recipe"]:
        found += _changed(before["values"], now["values"]) or ["the recipe itself has other values"]
    return found


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"{key} {before.get(key, 'absent')}, now {now.get(key, 'absent')}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
