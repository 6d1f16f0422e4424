"""How a study looks: Optuna's samplers and pruners, chosen by a recipe."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import optuna

from toolkit.api.errors import Problem, nearest
from toolkit.recipe.checking import check
from toolkit.recipe.reading import read_signature
from toolkit.recipe.tables import Recipe, TuneTable, Use
from toolkit.system.randomness import derive
from toolkit.tune.grid import Grid
from toolkit.tune.space import Scalar, Space

SAMPLERS = {
    "tpe": "TPESampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "random": "RandomSampler",
    "grid": "GridSampler",
    "nsga2": "NSGAIISampler",
}

PRUNERS = {
    "hyperband": "HyperbandPruner",
    "asha": "SuccessiveHalvingPruner",
    "median": "MedianPruner",
    "wilcoxon": "WilcoxonPruner",
    "none": "NopPruner",
}

NEEDS = {"CmaEsSampler": "cmaes", "GPSampler": "scipy"}
"""What a sampler imports that Optuna does not bring."""

_GIVEN = {"GridSampler": ("search_space", "asked"), "HyperbandPruner": ("max_resource",)}
"""Arguments that follow from the recipe: they are no keys."""

_ABSENT = ("BaseSampler", "BaseGASampler", "BasePruner", "BruteForceSampler")
"""What cannot be chosen: bases, and a sampler that stops a study that Optuna runs itself. `grid` tries all."""

_LEARN_WHAT_ALL_HAVE = (
    optuna.samplers.GPSampler,
    optuna.samplers.CmaEsSampler,
    optuna.samplers.NSGAIISampler,
    optuna.samplers.NSGAIIISampler,
)

Maker: TypeAlias = partial[Any]
"""What makes one object of a class of Optuna, arguments included."""


@dataclass(frozen=True)
class Search:
    """How a study proposes trials and ends poor ones."""

    sampler: optuna.samplers.BaseSampler
    pruner: optuna.pruners.BasePruner
    seeded: Callable[[int], optuna.samplers.BaseSampler] | None = None
    """The sampler with the seed of one trial, by its number; None where the recipe gives no seed."""

    def sampler_of(self, number: int) -> optuna.samplers.BaseSampler:
        """What proposes the values of a trial. A seeded sampler draws by the trial's number, whichever worker asks and
        however often the study was stopped; with the seed alone, two workers would draw the same values."""
        return self.seeded(number) if self.seeded else self.sampler


def search_of(recipe: Recipe, tune: TuneTable, space: Space) -> tuple[Search | None, list[Problem]]:
    """The recipe's sampler and pruner, and what is wrong with their names and arguments."""
    grid, found = _grid(space) if SAMPLERS.get(tune.sampler.name, tune.sampler.name) == "GridSampler" else ({}, [])
    given = {"search_space": grid, "asked": space.asked, "max_resource": recipe.train.epochs}
    sampler, wrong_sampler = _maker("sampler", tune.sampler, SAMPLERS, optuna.samplers, given)
    pruner, wrong_pruner = _maker("pruner", tune.pruner, PRUNERS, optuna.pruners, given)
    found += [*wrong_sampler, *wrong_pruner]
    if PRUNERS.get(tune.pruner.name, tune.pruner.name) == "WilcoxonPruner" and tune.seeds_per_trial == 1:
        message = f'"{tune.pruner.name}" compares seeds: it needs tune.seeds_per_trial above 1'
        found.append(Problem("tune.pruner.name", message))
    if found or sampler is None or pruner is None:
        return None, found
    seed = sampler.keywords.get("seed")
    if seed is None or issubclass(sampler.args[0], (Grid, optuna.samplers.QMCSampler)):
        return Search(sampler(), pruner()), []  # all workers share a grid or a sequence, so it keeps its one seed
    return Search(sampler(), pruner(), lambda number: sampler(seed=derive(seed, "trial", number) % 2**32)), []


def drawn_at_random(search: Search, space: Space, own: Mapping[str, Scalar]) -> list[str]:
    """Keys that the sampler learns nothing of: some samplers learn only keys that all finished trials have, and the
    trial of the recipe's `own` values lacks these."""
    if not isinstance(search.sampler, _LEARN_WHAT_ALL_HAVE):
        return []
    return [one.key for one in space.dimensions if one.components is None and one.key not in own]


def short_of_grid(search: Search, own: Mapping[str, Scalar], trials: int) -> str | None:
    """A note where so many trials do not cover a grid."""
    if not isinstance(search.sampler, Grid) or trials >= (whole := search.sampler.trials(own)):
        return None
    return f"the grid has {whole} points, the study tries {trials}; for all of them: --set tune.trials={whole}"


def _grid(space: Space) -> tuple[dict[str, list[Any]], list[Problem]]:
    """Every value of every dimension; a range needs a step, but one of integers, which has all of them."""
    grid: dict[str, list[Any]] = {}
    found = []
    for one in space.dimensions:
        low, high, step = one.values.low, one.values.high, one.step
        if low is None or high is None:
            grid[one.key] = one.choices
        elif step is None:
            found.append(Problem(f"tune.space.{one.key}", "needs a step, or choices, for a grid"))
        else:
            values = [min(low + number * step, high) for number in range(int((high - low) / step + 1e-9) + 1)]
            grid[one.key] = values if one.integer else [float(value) for value in values]
    return grid, found


def _maker(
    kind: str, use: Use, short: Mapping[str, str], module: Any, given: Mapping[str, Any]
) -> tuple[Maker | None, list[Problem]]:
    """One of Optuna's classes by its short name or its own, with checked arguments."""
    key = f"tune.{kind}"
    known = [name for name in module.__all__ if name.endswith(kind.capitalize()) and name not in _ABSENT]
    name = short.get(use.name, use.name)
    if name not in known:
        near = nearest(use.name, [*short, *known])
        message = f'unknown {kind} "{use.name}" (choose from {", ".join(short)})'
        return None, [Problem(f"{key}.name", message, near, fault="unknown name", given=use.name)]
    if (needed := NEEDS.get(name)) and importlib.util.find_spec(needed) is None:
        return None, [Problem(f"{key}.name", f'"{use.name}" needs the package {needed}: pip install {needed}')]
    asked = Grid if name == "GridSampler" else getattr(module, name)
    own = {argument: given[argument] for argument in _GIVEN.get(name, ())}
    try:
        args, found = check(read_signature(_as_factory(asked), tuple(own)), use.args, key)
    except TypeError as error:
        return None, [Problem(f"{key}.name", f'"{use.name}" cannot be given in a recipe: {error}')]
    maker = partial(_made, asked, **args, **own)
    if not found:
        try:
            maker()
        except (TypeError, ValueError) as error:
            found = [Problem(key, str(error))]
    return (None if found else maker), found


def _made(kind: type[Any], **arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return kind(**arguments)


def _as_factory(kind: type[Any]) -> Callable[..., Any]:
    """A class of Optuna as `toolkit.recipe.signature` reads factories: a first parameter of the core's, then keys.

    A parameter whose annotation only type checkers can resolve is skipped where it has a default: no recipe could
    give it.
    """
    names = vars(sys.modules[kind.__module__])
    keys = []
    for parameter in inspect.signature(kind).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        annotation = parameter.annotation
        try:
            annotation = eval(annotation, dict(names)) if isinstance(annotation, str) else annotation  # noqa: S307 - Optuna's own code
        except NameError:
            if parameter.default is not parameter.empty:
                continue
            annotation = object
        keys.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=annotation))

    def build(_: None, **given: Any) -> Any:
        return kind(**given)

    first = inspect.Parameter("_", inspect.Parameter.POSITIONAL_ONLY)
    build.__signature__ = inspect.Signature([first, *keys])  # type: ignore[attr-defined]
    return build
