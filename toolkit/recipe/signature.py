"""What the signature of a factory says, as plain data: all that checks, listings and schemas need of a component.

The core gives a factory its first positional parameter; every other named parameter is a key of the component's table.
`toolkit.recipe.reading` makes a signature of a live factory, `toolkit.recipe.checking` checks tables against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Argument:
    """One key that a component understands."""

    name: str
    type: str
    """For people: `integer, at least 0`."""
    default: str
    """As TOML, `unset` where there is none."""
    required: bool
    doc: str
    annotation: Any
    """The type as `toolkit.recipe.annotations` writes it."""


@dataclass(frozen=True, eq=False)
class Signature:
    """What is known of a component without its factory. One that holds only plain values can be stored as JSON."""

    arguments: tuple[Argument, ...]
    """In the order of the factory's parameters."""
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
        return [argument.name for argument in self.arguments]

    def plain(self) -> list[Any]:
        """All of it as a list for JSON."""
        arguments = [list(vars(argument).values()) for argument in self.arguments]
        return [arguments, dict(self.defaults), list(self.given), self.description, self.factory, self.source]

    @classmethod
    def of(cls, plain: list[Any]) -> Signature:
        """The signature that `plain` was made of."""
        arguments, defaults, given, description, factory, source = plain
        read = tuple(Argument(*argument) for argument in arguments)
        return cls(read, defaults, tuple(given), description, factory, source)
