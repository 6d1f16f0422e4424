"""A recipe as read, right or wrong, and the components it asks for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from toolkit.api.errors import Problem
from toolkit.recipe.tables import METRICS, DataTable, OptimizerTable, Recipe, ScheduleTable, TaskTable, Use

_SINGLE: tuple[tuple[str, str, type[Use]], ...] = (
    ("data", "dataset", DataTable),
    ("model", "model", Use),
    ("task", "task", TaskTable),
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
    asked: list[tuple[str, str, Any, Collection[str]]] = []
    for key, kind, model in _SINGLE:
        table: Any = tables
        for step in key.split("."):
            table = table.get(step) if isinstance(table, Mapping) else None
        asked.append((key, kind, {} if table is None else table, model.model_fields))
    for key, kind in _LISTS.items():
        array = tables.get(key, METRICS if key == "metrics" else ())
        elements = array if isinstance(array, (list, tuple)) else ()
        addresses = [f"{key}.{place}" for place in places(elements)]
        asked += [(address, kind, one, {"name"}) for address, one in zip(addresses, elements, strict=True)]
    for key, kind, table, own in asked:
        given = {"name": table} if isinstance(table, str) else table
        name = given.get("name", _UNNAMED.get(kind)) if isinstance(given, Mapping) else None
        if name and isinstance(name, str):
            yield Used(key, kind, name, {arg: value for arg, value in given.items() if arg not in own})


def places(elements: Sequence[Any]) -> list[str]:
    """What addresses each element of `[[augment]]` and its like: its name, or its number where names repeat."""
    names = [element.get("name") if isinstance(element, Mapping) else element for element in elements]
    texts = [name if isinstance(name, str) else None for name in names]
    return [name if name and texts.count(name) == 1 else str(place) for place, name in enumerate(texts)]
