"""A study: Optuna's, in a storage that outlives every worker, of one space and one aim."""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from toolkit.api.contracts import Direction
from toolkit.api.errors import Problem, RunFailed, UsageError, nearest
from toolkit.recipe import signature as arguments
from toolkit.recipe.overrides import from_inline
from toolkit.recipe.tables import Recipe, TuneTable, Use
from toolkit.recipe.write import computed, digest, inline
from toolkit.system.randomness import derive
from toolkit.tune.outcome import cause
from toolkit.tune.space import Space, label

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
LATENCY = "latency"
"""The metric that is no score: milliseconds that the exported model takes to answer one item."""
UNCOUNTED = "uncounted"
"""The user attribute of a failed trial that failed by no fault of its values."""

Maker: TypeAlias = partial[Any]
"""What makes one object of a class of Optuna, arguments included."""


class Grid(optuna.samplers.GridSampler):
    """Optuna's, which stops a study that it runs itself; a worker asks `is_exhausted`.

    Here no point is tried twice: neither for each value of a key that its components do not have, nor by a second
    worker while it is under way, nor where a queued trial has its values.
    """

    def __init__(
        self,
        search_space: Mapping[str, Sequence[Any]],
        seed: int | None = None,
        *,
        asked: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ) -> None:
        """`asked` gives those of the values of all keys that a trial would ask for."""
        super().__init__(search_space, seed)
        points = [(point, asked(dict(zip(self._param_names, point, strict=True)))) for point in self._all_grids]
        distinct = {repr(values): (point, values) for point, values in points}
        self._all_grids = [point for point, _ in distinct.values()]
        self._points = [values for _, values in distinct.values()]
        self._n_min_trials = len(self._all_grids)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if "grid_id" in trial.system_attrs or trial.state.is_finished():
            return
        place = self._place(study, trial)
        if place is not None:
            study._storage.set_trial_system_attr(trial._trial_id, "search_space", self._search_space)
            study._storage.set_trial_system_attr(trial._trial_id, "grid_id", place)

    def _place(self, study: optuna.Study, trial: FrozenTrial) -> int | None:
        """The point that a trial is to try: that of its number, as Optuna has it, unless it has been tried; of a queued
        trial one that has its values."""
        queued = trial.system_attrs.get("fixed_params", {})
        if "own" in trial.user_attrs:
            return self._place_of(queued)
        unvisited = self._get_unvisited_grid_ids(study)
        if not queued:
            return trial.number if trial.number in unvisited else int(self._rng.rng.choice(unvisited or self._all()))
        fitting = [place for place in self._all() if _is_in(queued, self._points[place])]
        return next((place for place in fitting if place in unvisited), next(iter(fitting), None))

    def _all(self) -> range:
        return range(len(self._points))

    def _get_unvisited_grid_ids(self, study: optuna.Study) -> list[int]:
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        told = [trial.system_attrs for trial in trials if "grid_id" in trial.system_attrs]
        visited = {attrs["grid_id"] for attrs in told if self._same_search_space(attrs["search_space"])}
        return [place for place in self._all() if place not in visited]

    def _place_of(self, values: Mapping[str, Any]) -> int | None:
        same = (place for place in self._all() if len(values) == len(self._points[place]))
        return next((place for place in same if _is_in(values, self._points[place])), None)

    def trials(self, own: Mapping[str, Any]) -> int:
        """How many it takes to see every point; the recipe's `own` values are one of them or one trial more."""
        return len(self._points) + (self._place_of(own) is None)

    def after_trial(self, *_: Any) -> None:
        pass


def _is_in(values: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    """Whether a point of a grid, whose steps add up with rounding, has these values."""
    return all(key in point and _is_same(point[key], value) for key, value in values.items())


def _is_same(one: Any, other: Any) -> bool:
    if type(one) is float and type(other) in (int, float):
        return math.isclose(one, other, abs_tol=1e-12)
    return (type(one), one) == (type(other), other)


@dataclass(frozen=True)
class Aim:
    """What a study looks for: scores on the validation split, or the latency, and which way is better."""

    metrics: tuple[str, ...]
    directions: tuple[Direction, ...]

    @property
    def scores(self) -> tuple[str, ...]:
        """The metrics that an epoch has."""
        return tuple(metric for metric in self.metrics if metric != LATENCY)

    @property
    def times(self) -> bool:
        """Whether the latency is among the metrics."""
        return LATENCY in self.metrics


def aim_of(recipe: Recipe, tune: TuneTable) -> tuple[Aim, list[Problem]]:
    """The aim, the recipe's own where `[tune]` names none, and what is wrong with it."""
    if not tune.metrics and not tune.directions:
        metric = tune.metric or recipe.train.metric
        usual: Direction = "minimize" if metric == LATENCY else recipe.train.direction
        aim = Aim((metric,), (tune.direction or usual,))
        wrong_latency = _wrong_latency(recipe, aim, "tune.metric", "tune.direction")
        return aim, [*_wrong_direction(recipe, tune, metric), *wrong_latency]
    found = []
    if tune.metric or tune.direction:
        found.append(Problem("tune.metric", "cannot stand beside metrics and directions: one score or several"))
    if len(tune.metrics) != len(tune.directions):
        message = f"has {len(tune.directions)} directions for {len(tune.metrics)} metrics"
        found.append(Problem("tune.directions", message))
    found += [
        Problem("tune.metrics", f'has "{metric}" twice')
        for metric in dict.fromkeys(tune.metrics)
        if tune.metrics.count(metric) > 1
    ]
    aim = Aim(tuple(tune.metrics), tuple(tune.directions))
    return aim, [*found, *_wrong_latency(recipe, aim, "tune.metrics", "tune.directions")]


def _wrong_direction(recipe: Recipe, tune: TuneTable, metric: str) -> list[Problem]:
    usual, way = recipe.train.metric, recipe.train.direction
    if metric not in (usual, LATENCY) and not tune.direction:
        message = f'is required for "{metric}": train.direction says which way "{usual}" is better'
        return [Problem("tune.direction", message)]
    if metric == usual and tune.direction not in (None, way):
        end = "highest" if way == "maximize" else "lowest"
        message = f'is "{tune.direction}", but train.direction keeps the epoch of each run with the {end} "{usual}"'
        return [Problem("tune.direction", f'{message}: set both to "minimize" or both to "maximize"')]
    return []


def _wrong_latency(recipe: Recipe, aim: Aim, key: str, direction_key: str) -> list[Problem]:
    if not aim.times:
        return []
    found = []
    if not aim.scores:
        found.append(Problem(key, f'"{LATENCY}" alone would be best of a model that knows nothing: name a score too'))
    if (LATENCY, "maximize") in zip(aim.metrics, aim.directions, strict=False):
        found.append(Problem(direction_key, f'"{LATENCY}" is time: it can only be minimized'))
    if any(use.name.rpartition(":")[2] == LATENCY for use in recipe.metrics):
        message = f'"{LATENCY}" is the recipe\'s own metric and the time that the exported model takes'
        found.append(Problem(key, f"{message}: leave one of them out"))
    return found


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
    grid, wrong = _grid(space) if SAMPLERS.get(tune.sampler.name, tune.sampler.name) == "GridSampler" else ({}, [])
    given = {"search_space": grid, "asked": space.asked, "max_resource": recipe.train.epochs}
    sampler, found = _maker("sampler", tune.sampler, SAMPLERS, optuna.samplers, given)
    pruner, more = _maker("pruner", tune.pruner, PRUNERS, optuna.pruners, given)
    problems = [*wrong, *found, *more, *_wrong_seeds(tune)]
    if problems or sampler is None or pruner is None:
        return None, problems
    return Search(sampler(), pruner(), _seeded(sampler)), []


def _wrong_seeds(tune: TuneTable) -> list[Problem]:
    if PRUNERS.get(tune.pruner.name, tune.pruner.name) != "WilcoxonPruner" or tune.seeds_per_trial > 1:
        return []
    return [Problem("tune.pruner.name", f'"{tune.pruner.name}" compares seeds: it needs tune.seeds_per_trial above 1')]


def _seeded(sampler: Maker) -> Callable[[int], optuna.samplers.BaseSampler] | None:
    """Grids and quasi-random sequences are shared by all workers, so they keep their one seed."""
    seed = sampler.keywords.get("seed")
    if seed is None or issubclass(sampler.args[0], (optuna.samplers.GridSampler, optuna.samplers.QMCSampler)):
        return None
    return lambda number: sampler(seed=derive(seed, "trial", number) % 2**32)


def open_study(
    recipe: Recipe, tune: TuneTable, space: Space, aim: Aim, search: Search, storage: BaseStorage
) -> optuna.Study:
    """The study of this recipe in `storage`, made now or gone on with.

    A study is what its recipe, space and aim are; sampler, pruner and number of trials may change. Raises UsageError
    where the storage has a study of this name that is another.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=storage,
        study_name=recipe.name,
        directions=list(aim.directions),
        sampler=search.sampler,
        pruner=search.pruner,
        load_if_exists=True,
    )
    now = identity(recipe, tune, space, aim)
    before = study.user_attrs.get("identity")
    if before is None:
        study.set_user_attr("identity", now)
    elif changed := differences(before, now):
        raise UsageError(
            f"study {recipe.name} was begun otherwise: {'; '.join(changed)}",
            next_step="take the change back, or tune a copy of the recipe under another name",
        )
    return study


def identity(recipe: Recipe, tune: TuneTable, space: Space, aim: Aim) -> dict[str, Any]:
    """What tells one study from another, as JSON has it."""
    return {
        "recipe": digest(recipe),
        "values": {key: inline(value) for key, value in _flat(computed(recipe)).items()},
        "metrics": list(aim.metrics),
        "directions": list(aim.directions),
        "seeds_per_trial": tune.seeds_per_trial,
        "space": space.described(),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of a study's identity has changed, in words."""
    found = [
        f"{key} {', '.join(before[key])}, now {', '.join(now[key])}"
        for key in ("metrics", "directions")
        if before[key] != now[key]
    ]
    if before["seeds_per_trial"] != now["seeds_per_trial"]:
        found.append(f"seeds_per_trial {before['seeds_per_trial']}, now {now['seeds_per_trial']}")
    old, new = before["space"], now["space"]
    found += [
        f"tune.space.{key} {_told(old.get(key))}, now {_told(new.get(key))}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    if before["recipe"] != now["recipe"]:
        old, new = before.get("values", {}), now["values"]
        found += [
            f"{key} {old.get(key, 'absent')}, now {new.get(key, 'absent')}"
            for key in sorted({*old, *new} if old else ())
            if old.get(key) != new.get(key)
        ] or ["the recipe itself has other values"]
    return found


def _flat(tables: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Dotted key to value, of tables in tables."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) and value else {f"{above}{key}": value}
    return found


def enqueue_own(study: optuna.Study, space: Space, resolved: Recipe) -> None:
    """Let the recipe's own values be the first trial of a new study."""
    if not study.get_trials(deepcopy=False):
        own = space.own(resolved)
        study.enqueue_trial(own, user_attrs={"own": sorted(own)})


def drawn_at_random(search: Search, space: Space, resolved: Recipe) -> list[str]:
    """Keys that the sampler learns nothing of: some draw by what all finished trials have, and the trial of the
    recipe's own values has no value of these."""
    if not isinstance(search.sampler, _LEARN_WHAT_ALL_HAVE):
        return []
    own = space.own(resolved)
    return [one.key for one in space.dimensions if one.components is None and one.key not in own]


def short_of_grid(search: Search, space: Space, resolved: Recipe, trials: int) -> str | None:
    """That a grid will not be seen whole, where so many trials leave points out."""
    if not isinstance(search.sampler, Grid) or trials >= (whole := search.sampler.trials(space.own(resolved))):
        return None
    return f"{trials} of the {whole} that it takes to see the whole grid: --set tune.trials={whole}"


def enqueue(study: optuna.Study, space: Space, asked: Sequence[str], *, trials: int) -> list[str]:
    """Let known-good values be tried next: each text is `key=value,key=value`. Those the study has are passed over,
    which is what is returned, in words.

    Raises UsageError, before any is queued, for what is not of the space and where the study would end at its `trials`
    without them.
    """
    new, had = [], []
    for text in asked:
        values = _values(space, text)
        trial = _with_values(study, values)
        if trial is not None:
            failed = f" and failed: {cause(trial)}" if trial.state == TrialState.FAIL else ""
            had.append(f"--enqueue {text}: trial {trial.number} has these values{failed}")
        elif values not in new:
            new.append(values)
    taken = sum(trial.state != TrialState.FAIL for trial in study.get_trials(deepcopy=False))
    if new and taken + len(new) > trials:
        raise UsageError(
            f"study {study.study_name} has {taken} of its {trials} trials, begun or queued: "
            f"--enqueue asks for {len(new)} more",
            next_step=f"give the same command with --set tune.trials={taken + len(new)}",
        )
    for values in new:
        study.enqueue_trial(values)
    return had


def _with_values(study: optuna.Study, values: Mapping[str, Any]) -> FrozenTrial | None:
    """The trial that has these values, or was queued with them; not one that failed by no fault of them."""
    trials = (trial for trial in study.get_trials(deepcopy=False) if UNCOUNTED not in trial.user_attrs)
    return next((trial for trial in trials if values == trial.system_attrs.get("fixed_params", trial.params)), None)


def _values(space: Space, text: str) -> dict[str, Any]:
    known = {one.key: one for one in space.dimensions}
    found: dict[str, Any] = {}
    for part in _parts(text):
        key, equals, written = (piece.strip() for piece in part.partition("="))
        value = from_inline(written)
        if not equals:
            raise _not_enqueued(text, f'"{part}" does not look like key=value', known)
        if key not in known:
            raise _not_enqueued(text, str(Problem(key, "is not in the space", nearest(key, known))), known)
        if not known[key].holds(value):
            raise _not_enqueued(text, f"{written} is outside what the space has for {key}", known)
        found[key] = label(value)
    return found


def _parts(text: str) -> Iterator[str]:
    """`a=1,b=[{c = 2, d = 3}]` -> `a=1` and `b=[{c = 2, d = 3}]`."""
    part = ""
    for piece in re.split(r",(?=[^,=]+=)", text):
        part = f"{part},{piece}" if part else piece
        if _is_whole(part):
            yield part
            part = ""
    if part:
        yield part


def _is_whole(text: str) -> bool:
    """Whether every bracket and quote of this TOML is closed."""
    unquoted = re.sub(r'"(?:\\.|[^"\\])*"|\'[^\']*\'', "", text)
    pairs = (unquoted.count(left) == unquoted.count(right) for left, right in ("[]", "{}"))
    return all(pairs) and not {'"', "'"} & {*unquoted}


def _not_enqueued(text: str, why: str, known: Mapping[str, Any]) -> UsageError:
    return UsageError(f"--enqueue {text}: {why}", next_step=f"give values of {', '.join(known)} that are in the space")


def _told(values: Any) -> str:
    return "absent" if values is None else json.dumps(values)


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
        return None, [Problem(f"{key}.name", f'unknown {kind} "{use.name}"; there are {", ".join(short)}', near)]
    if missing := _missing(name):
        message = f'"{use.name}" needs the package {missing}: pip install {missing}'
        return None, [Problem(f"{key}.name", message)]
    own = {argument: given[argument] for argument in _GIVEN.get(name, ())}
    return _tried(Grid if name == "GridSampler" else getattr(module, name), use, key, own)


def _tried(kind: type[Any], use: Use, key: str, own: Mapping[str, Any]) -> tuple[Maker | None, list[Problem]]:
    factory = _as_factory(kind)
    try:
        args, found = arguments.check(factory, use.args, key, skip=tuple(own))
    except TypeError as error:
        return None, [Problem(f"{key}.name", f'"{use.name}" cannot be given in a recipe: {error}')]
    if found:
        return None, found
    maker = partial(_made, kind, **args, **own)
    try:
        maker()
    except (TypeError, ValueError) as error:
        return None, [Problem(key, str(error))]
    return maker, []


def _made(kind: type[Any], **arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return kind(**arguments)


def _missing(name: str) -> str | None:
    needed = NEEDS.get(name)
    return needed if needed and importlib.util.find_spec(needed) is None else None


def _evaluated(annotation: Any, names: Mapping[str, Any]) -> Any:
    return eval(annotation, dict(names)) if isinstance(annotation, str) else annotation  # noqa: S307 - Optuna's own code


def _as_factory(kind: type[Any]) -> Callable[..., Any]:
    """A class of Optuna as `toolkit.recipe.signature` reads factories: a first parameter of the core's, then keys.

    What is annotated by names that only type checkers import is left out where it has a default: no recipe could give
    it.
    """
    names = vars(sys.modules[kind.__module__])
    keys = []
    for parameter in list(inspect.signature(kind).parameters.values()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        try:
            annotation = _evaluated(parameter.annotation, names)
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


def too_many_failures(study: optuna.Study, limit: int) -> RunFailed | None:
    """The error that ends a study, once `limit` trials have failed by what they tried."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    failed = [trial for trial in ended if UNCOUNTED not in trial.user_attrs]
    if len(failed) < limit:
        return None
    return RunFailed(
        f"study {study.study_name}: {len(failed)} trials failed, the last by {failed[-1].user_attrs.get('cause')}",
        next_step="mend the cause or narrow the space; more are allowed with --set tune.max_failures=N",
    )
