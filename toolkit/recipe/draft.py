"""A recipe as read, right or wrong, and the components it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from toolkit.api.errors import Problem
from toolkit.recipe.kinds import KINDS
from toolkit.recipe.tables import Recipe, table_of


class Source(str):
    """The source of a recipe, as problems name it, with the arguments of `--set` that change it."""

    overrides: tuple[str, ...]
    elements: Mapping[str, Sequence[str]]

    def __new__(cls, name: str, overrides: Sequence[str] = (), tables: Mapping[str, Any] | None = None) -> Self:
        """`tables` are those of the recipe, with the overrides in them."""
        made = super().__new__(cls, name)
        made.overrides = tuple(overrides)
        made.elements = {key: places(value) for key, value in (tables or {}).items() if isinstance(value, list)}
        return made

    def flag(self, key: str) -> str:
        """The last argument that sets the value at `key`, alone or with its table, else one of its keys; empty where
        none does."""
        found, below, place = "", "", self._numbered(key)
        for text in self.overrides:
            own = self._numbered(text.partition("=")[0].strip())
            if key == text or place == own or place.startswith(f"{own}."):
                found = text
            elif own.startswith(f"{place}."):
                below = text
        return found or below

    def _numbered(self, key: str) -> str:
        """`key` with the number of an element of an array in place of its name: both are written."""
        table, dot, rest = key.partition(".")
        name, *below = rest.split(".")
        names = self.elements.get(table, ())
        return ".".join([table, str(names.index(name)), *below]) if dot and name in names else key


@dataclass(frozen=True)
class Draft:
    """A recipe that was read but may be wrong: its tables, what the core found wrong, and the recipe if nothing was.

    `toolkit.build.plan.plan` takes a draft and adds what it finds wrong with the components, so that all problems of
    both layers are reported at once.
    """

    source: str
    tables: Mapping[str, Any]
    problems: tuple[Problem, ...]
    recipe: Recipe | None
    changed: Mapping[str, str] = field(default_factory=dict)
    """Keys that overrides gave another value than the file, with that value as it was written."""

    @classmethod
    def of(cls, recipe: Recipe) -> Draft:
        return cls(f"recipe {recipe.name}", recipe.tables(), (), recipe)


class Used(NamedTuple):
    """One component a draft asks for: its table's key, its kind, its name and its arguments as written."""

    key: str
    kind: str
    name: str
    args: dict[str, Any]


def used(draft: Draft) -> Iterator[Used]:
    """Every component a draft asks for, except those whose table or name is itself wrong."""
    tables = draft.recipe.tables() if draft.recipe else draft.tables
    for word, kind in sorted(KINDS.items(), key=lambda item: item[1].several):
        found: Any = tables
        for step in kind.place.split("."):
            found = found.get(step) if isinstance(found, Mapping) else None
        if kind.several:
            array = kind.usual if found is None else found
            elements = array if isinstance(array, (list, tuple)) else ()
            asked = [(f"{kind.place}.{place}", one) for place, one in zip(places(elements), elements, strict=True)]
        else:
            asked = [(kind.place, {} if found is None else found)]
        own, usual = table_of(word).model_fields, next(iter(kind.usual), None)
        for key, table in asked:
            given = {"name": table} if isinstance(table, str) else table
            name = given.get("name", None if kind.several else usual) if isinstance(given, Mapping) else None
            if name and isinstance(name, str):
                yield Used(key, word, name, {arg: value for arg, value in given.items() if arg not in own})


def places(elements: Sequence[Any]) -> list[str]:
    """What addresses each element of `[[augment]]` and its like: its name, or its number where names repeat."""
    names = [element.get("name") if isinstance(element, Mapping) else element for element in elements]
    texts = [name if isinstance(name, str) else None for name in names]
    return [name if name and texts.count(name) == 1 else str(place) for place, name in enumerate(texts)]
