"""All that a `[tune]` table says, found right before any trial; every problem of it is told at once."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from toolkit.api.errors import Problem, RecipeError
from toolkit.host.registry import Registry
from toolkit.recipe.draft import Draft
from toolkit.recipe.read import overridden
from toolkit.recipe.tables import Recipe, TuneTable
from toolkit.recipe.write import inline
from toolkit.tune.aim import Aim, aim_of
from toolkit.tune.search import Search, search_of
from toolkit.tune.space import Space, check_space, flattened


class Checked(NamedTuple):
    """A `[tune]` table and what it means."""

    tune: TuneTable
    space: Space
    aim: Aim
    search: Search


def of_study(draft: Draft) -> Draft:
    """The draft with the values that `[tune.fixed]` gives all trials, and what is wrong with them."""
    if draft.recipe is None or draft.recipe.tune is None:
        return draft
    fixed = flattened(draft.recipe.tune.fixed)
    changed = overridden(draft.recipe, draft.source, [f"{key}={inline(value)}" for key, value in fixed.items()])
    problems = tuple(replace(problem, key=f"tune.fixed.{problem.key}") for problem in changed.problems)
    return replace(changed, problems=problems)


def checked(recipe: Recipe, source: str, registry: Registry) -> Checked:
    """What the recipe's `[tune]` table says. Raises RecipeError, with `source`, the recipe's file, for all that is
    wrong with it."""
    if recipe.tune is None:
        problem = Problem("tune", "is required: a table with trials and the space of values to try")
        raise RecipeError(source, [problem], next_step=f"add [tune] and [tune.space] to {source}")
    problems: list[Problem] = []
    try:
        space = check_space(recipe, source, registry)
    except RecipeError as error:
        problems += error.problems
        space = Space(recipe, ())
    aim, wrong_aim = aim_of(recipe, recipe.tune)
    search, wrong_search = search_of(recipe, recipe.tune, space)
    problems += [*wrong_aim, *wrong_search]
    if problems or search is None:
        raise RecipeError(source, problems, next_step=f"correct [tune] in {source}, then give the command again")
    return Checked(recipe.tune, space, aim, search)
