"""A recipe as read, right or wrong, and the components it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from toolkit.api.errors import Problem
from toolkit.recipe.tables import METRICS, DataTable, OptimizerTable, Recipe, ScheduleTable, Use

_SINGLE: tuple[tuple[str, str, type[Use]], ...] = (
    ("data", "dataset", DataTable),
    ("model", "model", Use),
    ("task", "task", Use),
    ("train.optimizer", "optimizer", OptimizerTable),
    ("train.schedule", "schedule", ScheduleTable),
)
_UNNAMED = {"schedule": "constant", "task": "classification"}
"""What is meant where a table has no name."""
_LISTS = {"augment": "augmentation", "metrics": "metric", "trackers": "tracker"}


@dataclass(frozen=True)
class Draft:
    """A recipe that was read but may be wrong: its tables, what the core found wrong, and the recipe if nothing was.

    `toolkit.build.plan.plan` takes a draft and adds what it finds wrong with the components, so that all problems of
    both layers are told at once.
    """

    source: str
    tables: Mapping[str, Any]
    problems: tuple[Problem, ...]
    recipe: Recipe | None

    @classmethod
    def of(cls, recipe: Recipe) -> Draft:
        return cls(f"recipe {recipe.name}", recipe.tables(), (), recipe)


class Used(NamedTuple):
    """One component a draft asks for: where its table stands, its kind, its name and its arguments as written."""

    key: str
    kind: str
    name: str
    args: dict[str, Any]


def used(draft: Draft) -> Iterator[Used]:
    """Every component a draft asks for, leaving out those whose table or name is itself wrong."""
    tables = draft.recipe.tables() if draft.recipe else draft.tables
    for key, kind, table in _SINGLE:
        own = set(table.model_fields)
        yield from _use(key, kind, _at(tables, key), own)
    for key, kind in _LISTS.items():
        elements = _elements(tables.get(key, METRICS if key == "metrics" else ()))
        for place, element in zip(places(elements), elements, strict=True):
            yield from _use(f"{key}.{place}", kind, element, {"name"})


def _use(key: str, kind: str, table: Any, own: set[str]) -> Iterator[Used]:
    table = {"name": table} if isinstance(table, str) else table
    name = table.get("name", _UNNAMED.get(kind)) if isinstance(table, Mapping) else None
    if name and isinstance(name, str):
        yield Used(key, kind, name, {arg: value for arg, value in table.items() if arg not in own})


def _at(tables: Mapping[str, Any], key: str) -> Any:
    found: Any = tables
    for step in key.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return {} if found is None else found


def _elements(array: Any) -> Sequence[Any]:
    return array if isinstance(array, (list, tuple)) else ()


def places(elements: Sequence[Any]) -> list[str]:
    """What addresses each element of `[[augment]]` and its like: its name, or its number where names repeat."""
    names = [_name(element) for element in elements]
    return [name if name and names.count(name) == 1 else str(place) for place, name in enumerate(names)]


def _name(element: Any) -> str | None:
    name = element.get("name") if isinstance(element, Mapping) else element
    return name if isinstance(name, str) else None
