"""All runs of a series, checked before the first one is trained. No torch is imported here."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.api.errors import RecipeError, UsageError
from toolkit.build.plan import Plan, plan
from toolkit.host.registry import Registry, discover
from toolkit.recipe.read import parse
from toolkit.recipe.tables import Recipe
from toolkit.runs.series.members import FOLDS, Asked, Member, members_of


@dataclass(frozen=True)
class SeriesPlan:
    """What a series will train."""

    name: str
    """Of the recipe."""
    recipes: tuple[tuple[Member, Recipe], ...]
    """Each member with its recipe, defaults filled in."""

    @property
    def members(self) -> list[Member]:
        return [member for member, _ in self.recipes]


def plan_series(recipe: Path, overrides: Sequence[str], asked: Asked, *, name: str | None) -> SeriesPlan:
    """Raises RecipeError where one of the recipes is invalid, UsageError where the dataset takes no folds."""
    registry = discover()
    base = _planned(recipe, overrides, name, registry)
    if asked.folds is not None:
        _require_folds(base, recipe)
    members = members_of(asked, base.resolved.seed)
    recipes = [
        (one, _varied(recipe, [*overrides, *one.overrides(asked.folds)], one, name, registry)) for one in members
    ]
    return SeriesPlan(base.resolved.name, tuple(recipes))


def _planned(recipe: Path, overrides: Sequence[str], name: str | None, registry: Registry) -> Plan:
    return plan(parse(recipe, overrides, name=name), registry)


def _varied(recipe: Path, overrides: Sequence[str], one: Member, name: str | None, registry: Registry) -> Recipe:
    """The recipe of one member. An error names its values, which no argument of `--set` gave."""
    try:
        return _planned(recipe, overrides, name, registry).resolved
    except RecipeError as error:
        problems = [problem._replace(flag="") for problem in error.problems]
        step = "fix the values of --grid, then run the same command again"
        raise RecipeError(f"{recipe} with {one.label}", problems, next_step=step) from error


def _require_folds(planned: Plan, recipe: Path) -> None:
    """Raise UsageError where the dataset cannot be divided into folds."""
    if FOLDS.partition(".")[2] not in planned.one("dataset").signature.names:
        seeds = shlex.join(["python", "-m", "toolkit", "run", str(recipe), "--seeds", "5"])
        name = planned.resolved.data.name
        raise UsageError(
            f'run: --folds: the dataset "{name}" has a test split of its own, so it takes no folds',
            next_step=f"repeat it with other seeds: {seeds}",
        )
