"""The space of a study: which keys of a recipe are tried with which values, checked before the first trial.

A key is written as for `--set`, and what a trial tries becomes overrides, so a trial's recipe is made and checked by
the code that makes everyone's. Whether a key exists and which values it takes is found by trying the ends of its range,
or its choices, on the recipe.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from toolkit.api.errors import Problem, RecipeError
from toolkit.build.plan import plan
from toolkit.host.registry import Registry
from toolkit.recipe.complaints import problems
from toolkit.recipe.kinds import KINDS
from toolkit.recipe.read import overridden
from toolkit.recipe.tables import Recipe, TomlArray, Use, table_of
from toolkit.recipe.write import inline

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Scalar: TypeAlias = bool | int | float | str

TABLES: Mapping[str, type[Use]] = {kind.place: table_of(kind.word) for kind in KINDS.values() if not kind.several}
"""Where a recipe holds one component, and which keys of that table belong to the recipe whatever the component is."""


class Values(BaseModel):
    """What a key is tried with: a range, both ends in it, or choices."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: Annotated[int | float, Field(gt=0)] | None = None
    choices: TomlArray[Any] | None = None


@dataclass(frozen=True)
class Dimension:
    """One key of the space, found right."""

    key: str
    values: Values
    integer: bool = False
    """Whether only integers are tried; of a range."""
    components: frozenset[str] | None = None
    """The components that have this key, where the component itself is tried; None: the key is always there."""

    @property
    def choices(self) -> list[Scalar]:
        """As Optuna keeps them: arrays and tables as TOML. Empty for a range."""
        return [label(value) for value in self.values.choices or ()]

    @property
    def step(self) -> int | float | None:
        """From one value of a range to the next; None where all between its ends are tried."""
        return self.values.step or (1 if self.integer else None)

    @property
    def samples(self) -> list[tuple[str, Any]]:
        """What is checked before the first trial, each with its key: the ends of a range, or all choices."""
        if self.values.choices is None:
            return [("low", self.values.low), ("high", self.values.high)]
        return [(f"choices.{place}", value) for place, value in enumerate(self.values.choices)]

    def suggest(self, trial: BaseTrial) -> Any:
        """The value that the trial tries."""
        low, high, step, log = self.values.low, self.values.high, self.step, self.values.log
        if self.values.choices is not None:
            chosen = trial.suggest_categorical(self.key, self.choices)
            return self.values.choices[_place(chosen, self.choices)]
        if low is None or high is None:
            raise AssertionError("unreachable: a range is checked before it becomes a dimension")
        if self.integer:
            return trial.suggest_int(self.key, int(low), int(high), step=int(step or 1), log=log)
        return trial.suggest_float(self.key, float(low), float(high), step=step, log=log)

    def holds(self, value: Any) -> bool:
        """Whether the dimension could have suggested `value`."""
        low, high, step = self.values.low, self.values.high, self.step
        if self.values.choices is not None:
            return _place(label(value), self.choices) >= 0
        if low is None or high is None or isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        steps = (value - low) / step if step else 0
        return low <= value <= high and math.isclose(steps, round(steps), abs_tol=1e-9)


@dataclass(frozen=True)
class Space:
    """All dimensions, those that choose a component before those below it."""

    recipe: Recipe
    dimensions: tuple[Dimension, ...]

    def suggest(self, trial: BaseTrial) -> list[str]:
        """The overrides of a trial; a key of a component that was not chosen is not asked for."""
        return [override_text(self.recipe, one.key, value) for one, value in self._values(trial)]

    def _values(self, trial: BaseTrial) -> Iterator[tuple[Dimension, Any]]:
        chosen: dict[str, str] = {}
        for one in self.dimensions:
            at = component_of(one.key)
            if one.components is not None and chosen.get(at) not in one.components:
                continue
            value = one.suggest(trial)
            yield one, value
            if chooses(one.key):
                chosen[at] = component_name(value)

    def asked(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Those of a value for every key, as Optuna keeps them, that a trial would ask for."""
        from optuna.trial import FixedTrial

        if all(one.components is None for one in self.dimensions):
            return dict(values)
        return {one.key: values[one.key] for one, _ in self._values(FixedTrial(dict(values)))}

    def own(self, resolved: Recipe) -> dict[str, Scalar]:
        """The values of the recipe itself, as Optuna keeps them, where the space holds them."""
        tables = resolved.tables()
        found = {one.key: (one, _at(tables, one.key)) for one in self.dimensions}
        return {key: label(value) for key, (one, value) in found.items() if value is not None and one.holds(value)}

    def described(self) -> dict[str, Any]:
        """What identifies the space, as JSON has it."""
        return {one.key: one.values.model_dump(mode="json", exclude_none=True) for one in self.dimensions}


def check_space(recipe: Recipe, source: str, registry: Registry) -> Space:
    """The space of a recipe's `[tune]` table.

    Raises RecipeError with every problem of the space: keys that neither the recipe nor a chosen component has, empty
    ranges, values a key does not take, `log` of what is not positive.
    """
    asked = flattened(recipe.tune.space if recipe.tune else {})
    fixed = flattened(recipe.tune.fixed if recipe.tune else {})
    plain_recipe = recipe.model_copy(update={"tune": None})
    found: list[Problem] = [] if asked else [Problem("tune.space", "has no keys to tune")]
    found += [
        Problem(f"tune.fixed.{key}", "is also in tune.space: remove it from one of the two")
        for key in fixed
        if key in asked
    ]
    sound: list[Dimension] = []
    for key, table in asked.items():
        values, wrong = _read(key, table)
        found += wrong
        if values is not None:
            sound.append(Dimension(key, values))
    sound.sort(key=lambda one: not chooses(one.key))
    probe = Probe(plain_recipe, source, registry, tuple(sound))
    dimensions = []
    for one in sound:
        dimension, wrong = probe.check(one)
        found += wrong
        dimensions.append(dimension)
    if found:
        raise RecipeError(source, found, next_step=f"correct [tune.space] in {source}, then run the same command again")
    return Space(plain_recipe, tuple(dimensions))


def flattened(space: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Dotted key to table: TOML reads a key such as `train.epochs = {...}` as tables in tables."""
    found: dict[str, Any] = {}
    for key, value in space.items():
        dotted = f"{above}.{key}" if above else key
        # An argument may be called `low`, but what it holds is then a table.
        nested = isinstance(value, Mapping) and not any(
            name in Values.model_fields and not isinstance(inner, Mapping) for name, inner in value.items()
        )
        found |= flattened(value, dotted) if nested and value else {dotted: value}
    return found


def _read(key: str, table: Any) -> tuple[Values | None, list[Problem]]:
    """A key's table alone."""
    at = f"tune.space.{key}"
    if not isinstance(table, Mapping):
        return None, [Problem(at, "must be a table with low and high, or with choices")]
    try:
        values = Values.model_validate(table)
    except ValidationError as error:
        return None, problems(error, table, at, lambda _: list(Values.model_fields))
    wrong = [Problem(at, message) for message in _wrong(values)]
    return (None if wrong else values), wrong


def _wrong(values: Values) -> Iterator[str]:
    if values.choices is not None:
        if values.model_fields_set != {"choices"}:
            yield "has choices, so it takes no low, high, log or step"
        if not values.choices:
            yield "has no choices"
        labels = [repr(label(value)) for value in values.choices]
        yield from (f"has the choice {one} twice" for one in sorted({one for one in labels if labels.count(one) > 1}))
        return
    if values.low is None or values.high is None:
        yield "needs both low and high, or choices"
        return
    if values.low >= values.high:
        yield f"is an empty range: low {values.low:g} is not below high {values.high:g}"
    if values.log and values.low <= 0:
        yield f"cannot be logarithmic: low {values.low:g} is not above 0"
    if values.log and values.step is not None:
        yield "cannot have both log and step"
    if values.step is not None and values.step > values.high - values.low > 0:
        yield f"has a step of {values.step:g}, wider than the range"


@dataclass(frozen=True)
class Probe:
    """Tries values on the recipe, to hear from the recipe's own checks what is wrong with them."""

    recipe: Recipe
    source: str
    registry: Registry
    dimensions: tuple[Dimension, ...]

    def check(self, one: Dimension) -> tuple[Dimension, list[Problem]]:
        """The dimension with what was found out of it, and all that is wrong with it."""
        contexts = self._contexts(one)
        absent = {name: self._unknown(one, context) for name, context in contexts.items()}
        known = {name: context for name, context in contexts.items() if not absent[name]}
        if not known:
            return one, [_at_space(one, problem, "") for problem in next(iter(absent.values()))]
        found = [problem for context in known.values() for problem in self._refused(one, context)]
        components = frozenset(name for name in known if name is not None)
        low, high, integer = one.values.low, one.values.high, False
        if isinstance(low, int) and isinstance(high, int) and not isinstance(one.values.step, float):
            between = self._set(one, low + 0.5)  # refused where only integers are tried
            refused = (problem.key for context in known.values() for problem in self._problems([*context, between]))
            integer = one.key in refused
        return replace(one, components=components or None, integer=integer), list(dict.fromkeys(found))

    def _contexts(self, one: Dimension) -> dict[str | None, list[str]]:
        """Overrides that choose each component this key may be below; none where its component is the recipe's."""
        at = component_of(one.key)
        choosers = (other for other in self.dimensions if chooses(other.key) and component_of(other.key) == at)
        choosing = next(choosers, None)
        below = one.key.removeprefix(f"{at}.").partition(".")[0]
        if not at or choosing is None or chooses(one.key) or below in TABLES[at].model_fields:
            return {None: []}
        contexts: dict[str | None, list[str]] = {}
        for value in choosing.values.choices or ():
            context = [self._set(choosing, value)]
            # Nothing can be said of the keys of a component that does not exist.
            if all(problem.key != f"{at}.name" for problem in self._problems(context)):
                contexts[component_name(value)] = context
        return contexts or {None: []}

    def _set(self, one: Dimension, value: Any) -> str:
        return override_text(self.recipe, one.key, value)

    def _unknown(self, one: Dimension, context: Sequence[str]) -> list[Problem]:
        """Problems that say there is no such key, or nothing that could hold it."""
        return [
            problem
            for problem in self._problems([*context, self._set(one, one.samples[0][1])])
            if f"{one.key}.".startswith(f"{problem.key}.") and problem.fault == "unknown key"
        ]

    def _refused(self, one: Dimension, context: Sequence[str]) -> Iterator[Problem]:
        """What is wrong with each value, beyond what is wrong without it."""
        before = set() if chooses(one.key) else {problem.key for problem in self._problems(context)}
        for place, value in one.samples:
            setting = self._set(one, value)
            below = self._below(one, setting) if chooses(one.key) else []
            for problem in self._problems([*context, setting, *below]):
                if problem.key == one.key or problem.key not in before:
                    yield _at_space(one, problem, place)

    def _below(self, one: Dimension, setting: str) -> list[str]:
        """The first value of every dimension below a component that has it: some may be required."""
        at = component_of(one.key)
        inner = [other for other in self.dimensions if component_of(other.key) == at and not chooses(other.key)]
        return [self._set(other, other.samples[0][1]) for other in inner if not self._unknown(other, [setting])]

    def _problems(self, overrides: Sequence[str]) -> tuple[Problem, ...]:
        try:
            plan(overridden(self.recipe, self.source, overrides), self.registry)
        except RecipeError as error:
            return error.problems
        return ()


def component_of(key: str) -> str:
    """The table of the component that `key` names, or is below; empty for the recipe's own keys."""
    return next((table for table in TABLES if key == table or key.startswith(f"{table}.")), "")


def chooses(key: str) -> bool:
    """Whether `key` chooses a component."""
    return key.removesuffix(".name") in TABLES


def component_name(value: Any) -> str:
    return str(value.get("name", "")) if isinstance(value, Mapping) else str(value)


def override_text(recipe: Recipe, key: str, value: Any) -> str:
    """`--set` for one value. Another component than the recipe's own takes none of the arguments of that one."""
    at = component_of(key)
    if at and chooses(key):
        table = _at(recipe.tables(), at) or {}
        if isinstance(value, str):
            value = table if value == table.get("name") else {"name": value}
        own = {name: inner for name, inner in table.items() if name in TABLES[at].model_fields}
        return f"{at}={inline({**own, **value})}" if isinstance(value, Mapping) else f"{at}.name={inline(value)}"
    return f"{key}={inline(value)}"


def label(value: Any) -> Scalar:
    """A value as Optuna keeps it."""
    return value if isinstance(value, (bool, int, float, str)) else inline(value)


def _place(value: Scalar | None, choices: Sequence[Scalar]) -> int:
    """The index of `value` among the choices, -1 if absent; `true` is not 1."""
    return next((n for n, one in enumerate(choices) if (type(one), one) == (type(value), value)), -1)


def _at_space(one: Dimension, problem: Problem, place: str) -> Problem:
    """A problem of the recipe with a value, as one of the space."""
    at = ".".join(filter(None, ("tune.space", one.key, place)))
    same = problem.key == one.key or not place or (chooses(one.key) and problem.key == f"{component_of(one.key)}.name")
    return Problem(at, problem.message if same else f"{problem.key}: {problem.message}", problem.suggestion)


def _at(tables: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, an element of an array by its `name` or number; None where it is missing."""
    found: Any = tables
    for step in key.split("."):
        if isinstance(found, list):
            named = [one for one in found if isinstance(one, Mapping) and one.get("name") == step]
            numbered = found[int(step) : int(step) + 1] if step.isdecimal() else []
            found = next(iter([*named, *numbered]), None)
        else:
            found = found.get(step) if isinstance(found, Mapping) else None
    return found
