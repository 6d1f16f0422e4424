"""What the signature of a factory says, as plain data: all that checks, listings and schemas need of a component.

The core gives a factory its first positional parameter; every other named parameter is a key of the component's table.
`toolkit.recipe.reading` makes a signature of a live factory, `toolkit.recipe.checking` checks tables against it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.recipe.values import Argument, foreign, known, stored
from toolkit.recipe.write import tables_to_toml


@dataclass(frozen=True, eq=False)
class Signature:
    """What is known of a component without its factory."""

    arguments: tuple[Argument, ...]
    """In the order of the factory's parameters, those among them that a recipe cannot give."""
    defaults: Mapping[str, Any]
    """The defaults that a recipe could give itself (not None, say), in the types of TOML: `0` for a float is 0.0."""
    given: tuple[str, ...]
    """Which of the arguments that only the core gives the factory takes."""
    description: str
    """The docstring without its lines about arguments."""
    factory: str
    """The name of the factory in its module."""
    source: str | None
    """The file where it is written, if Python knows."""

    @property
    def names(self) -> list[str]:
        """The keys that a recipe may give."""
        return known(self.arguments)

    @property
    def foreign(self) -> dict[str, str]:
        """What a recipe cannot give, an argument or a key below one, with its type."""
        return dict(foreign(self.arguments))

    def keys_at(self, table: str) -> list[str]:
        """The keys that the table with this dotted name below the component's may have; empty where it may have any."""
        if not table:
            return self.names
        first, *rest = table.split(".")
        value = next((one.value for one in self.arguments if one.name == first), None)
        for step in rest:
            value = value.within(step) if value else None
        return known(value.parts()) if value else []

    def plain(self) -> list[Any]:
        """All of it as a list for JSON. Raises TypeError where an argument's kind of values has no plain form."""
        arguments = [one.plain() for one in self.arguments]
        defaults = tables_to_toml(self.defaults) if self.defaults else ""
        return [arguments, defaults, list(self.given), self.description, self.factory, self.source]

    @classmethod
    def of(cls, plain: list[Any]) -> Signature:
        """The signature that `plain` was made of."""
        arguments, defaults, given, description, factory, source = plain
        return cls(stored(arguments), tomllib.loads(defaults), tuple(given), description, factory, source)
