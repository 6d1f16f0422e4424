"""Kinds of values: what a recipe can give an argument, and how each kind is described, checked and stored.

`toolkit.recipe.annotations` finds the kind that an annotation means. A kind is plain data: it names the classes of a
plugin and imports them when there is a value for them. So a signature is kept as JSON, and read without its plugin.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime, time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, Union

from toolkit.recipe.complaints import shown

if TYPE_CHECKING:
    from pydantic import BaseModel

Plain: TypeAlias = Any
"""What JSON holds: of a stored object a table with its `kind` and its fields, of a tuple an array."""

_WORDS: Mapping[str, tuple[Any, str]] = {
    "any": (Any, "anything"),
    "bool": (bool, "true or false"),
    "date": (date, "date"),
    "datetime": (datetime, "date and time"),
    "float": (float, "number"),
    "int": (int, "integer"),
    "none": (type(None), "none"),
    "path": (Path, "path"),
    "str": (str, "string"),
    "time": (time, "time"),
}
SCALARS: Mapping[Any, str] = {kind: name for name, (kind, _) in _WORDS.items()}
"""The name of each type that is one value of TOML, or one in quotes."""
_LIMITS = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}


class Stored:
    """Something that JSON can hold: a dataclass of these, of tuples of these and of scalars."""

    kinds: ClassVar[dict[str, type[Stored]]] = {}

    def __init_subclass__(cls) -> None:
        Stored.kinds[cls.__name__] = cls

    def plain(self) -> Plain:
        """Raises TypeError where a part has no plain form."""
        of = {one.name: _plain(getattr(self, one.name)) for one in fields(self) if one.compare}  # type: ignore[arg-type]
        return {"kind": type(self).__name__, **of}


def _plain(part: Any) -> Plain:
    if isinstance(part, Stored):
        return part.plain()
    if isinstance(part, tuple):
        return [*map(_plain, part)]
    if part is None or type(part) in (bool, int, float, str):
        return part
    raise TypeError(f"{part!r} has no plain form")


def stored(written: Plain) -> Any:
    """What `written` is the plain form of."""
    if isinstance(written, list):
        return tuple(map(stored, written))
    if isinstance(written, dict):
        parts = {name: stored(part) for name, part in written.items() if name != "kind"}
        return Stored.kinds[written["kind"]](**parts)
    return written


@dataclass(frozen=True)
class Named(Stored):
    """A class or a function of a plugin by its place, imported when it is needed."""

    module: str
    name: str
    found: Any = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, found: Any) -> Named:
        return cls(found.__module__, found.__qualname__, found)

    def load(self) -> Any:
        return self.found if self.found is not None else _attribute(import_module(self.module), self.name)

    def plain(self) -> Plain:
        """Raises TypeError where an import would not find it."""
        if self.found is not None and _attribute(sys.modules.get(self.module), self.name) is not self.found:
            raise TypeError(f"{self.module}.{self.name} cannot be imported by its name")
        return super().plain()


def _attribute(holder: Any, name: str) -> Any:
    for step in name.split("."):
        holder = getattr(holder, step, None)
    return holder


class Value(Stored):
    """One kind of value."""

    def words(self) -> str:
        """For people: `integer, at least 0`."""
        raise NotImplementedError

    def type(self) -> Any:
        """The annotation by which pydantic checks a value from a recipe, makes of it what a factory takes, and
        describes it as JSON Schema.

        Values are checked strictly (`"3"` is not an integer), except that TOML has no paths, tuples and sets.
        """
        raise NotImplementedError

    def within(self, step: str) -> Value | None:  # noqa: ARG002 - most kinds have nothing in them
        """The kind of the values at a key, or a number, of this one."""
        return None

    def parts(self) -> tuple[Argument, ...]:
        """The keys that a value may have, where only these."""
        return ()

    def foreign(self) -> Iterator[tuple[str, str]]:
        """What in it a recipe cannot give: the dotted key below this one, and the type."""
        yield from ()


@dataclass(frozen=True)
class Foreign(Value):
    """Values of a type that no recipe can give."""

    name: str

    def words(self) -> str:
        return f"{self.name}, which a recipe cannot give"

    def type(self) -> Any:
        from pydantic import BeforeValidator

        return Annotated[Any, BeforeValidator(self._refuse)]

    def foreign(self) -> Iterator[tuple[str, str]]:
        yield "", self.name

    def _refuse(self, _: Any) -> Any:
        raise ValueError(f"is an argument of type {self.words()}")


@dataclass(frozen=True)
class Scalar(Value):
    name: str
    """A key of `_WORDS`."""

    def words(self) -> str:
        return _WORDS[self.name][1]

    def type(self) -> Any:
        kind = _WORDS[self.name][0]
        return _lax(kind) if kind is Path else kind


@dataclass(frozen=True)
class Choice(Value):
    """One of several texts, numbers, true and false."""

    options: tuple[Any, ...]

    def words(self) -> str:
        return " or ".join(map(shown, self.options))

    def type(self) -> Any:
        return Literal[self.options]


@dataclass(frozen=True)
class Member(Value):
    """A member of an enumeration, by its text as `toolkit.recipe.plain` writes it."""

    of: Named
    choice: Choice

    def words(self) -> str:
        return self.choice.words()

    def type(self) -> Any:
        from pydantic import AfterValidator

        return Annotated[self.choice.type(), AfterValidator(self._member)]

    def _member(self, text: Any) -> Any:
        from toolkit.recipe.plain import member_text

        return next(member for member in self.of.load() if member_text(member) == text)


@dataclass(frozen=True)
class Either(Value):
    members: tuple[Value, ...]

    def words(self) -> str:
        return " or ".join(one.words() for one in self.members if one != Scalar("none"))

    def type(self) -> Any:
        return Union[tuple(one.type() for one in self.members)]  # noqa: UP007 - of types that are only known here

    def within(self, step: str) -> Value | None:
        return next(filter(None, (one.within(step) for one in self.members)), None)

    def parts(self) -> tuple[Argument, ...]:
        return tuple(part for one in self.members for part in one.parts())

    def foreign(self) -> Iterator[tuple[str, str]]:
        for one in self.members:
            yield from one.foreign()


@dataclass(frozen=True)
class Array(Value):
    """Any number of values of one kind."""

    collection: str
    """A key of `COLLECTIONS`."""
    item: Value | None = None

    def words(self) -> str:
        return "array" if self.item is None else f"array of {_plural(self.item)}"

    def type(self) -> Any:
        if self.item is None:
            return _lax(COLLECTIONS[self.collection])
        inner = (self.item.type(), ...) if self.collection == "tuple" else self.item.type()
        return _lax(COLLECTIONS[self.collection][inner])

    def within(self, step: str) -> Value | None:  # noqa: ARG002 - all are of one kind
        return self.item

    def foreign(self) -> Iterator[tuple[str, str]]:
        yield from self.item.foreign() if self.item else ()


COLLECTIONS: Mapping[str, Any] = {kind.__name__: kind for kind in (list, tuple, set, frozenset)}


@dataclass(frozen=True)
class Row(Value):
    """A tuple of a certain length."""

    items: tuple[Value, ...]

    def words(self) -> str:
        if len({*self.items}) == 1 and len(self.items) > 1:
            return f"array of {len(self.items)} {_plural(self.items[0])}"
        return f"array of {' and '.join(one.words() for one in self.items)}" if self.items else "empty array"

    def type(self) -> Any:
        return _lax(tuple[tuple(one.type() for one in self.items)])  # type: ignore[misc]

    def within(self, step: str) -> Value | None:
        return self.items[int(step)] if step.isdecimal() and int(step) < len(self.items) else None

    def foreign(self) -> Iterator[tuple[str, str]]:
        for one in self.items:
            yield from one.foreign()


@dataclass(frozen=True)
class Table(Value):
    """Any keys, with values of one kind."""

    key: Value = Scalar("any")
    value: Value = Scalar("any")

    def words(self) -> str:
        return "table"

    def type(self) -> Any:
        return dict[self.key.type(), self.value.type()]  # type: ignore[misc]

    def within(self, step: str) -> Value | None:  # noqa: ARG002 - all are of one kind
        return self.value

    def foreign(self) -> Iterator[tuple[str, str]]:
        yield from self.value.foreign()


@dataclass(frozen=True)
class Argument(Stored):
    """One key that a component, or a record, understands."""

    name: str
    value: Value
    default: str
    """As TOML, `unset` where it has no such form."""
    required: bool
    doc: str


@dataclass(frozen=True)
class Record(Value):
    """The arguments of a class, as a table. A key that is not given has the default of the class."""

    of: Named
    arguments: tuple[Argument, ...]

    def words(self) -> str:
        return f"table of {', '.join(known(self.arguments))}" if self.arguments else "empty table"

    def type(self) -> Any:
        from pydantic import AfterValidator

        return Annotated[model_of(self.of.name, self.arguments), AfterValidator(self._made)]

    def _made(self, table: BaseModel) -> Any:
        from pydantic import ValidationError

        try:
            return self.of.load()(**given_to(table))
        except ValidationError as error:  # of a model of the plugin
            first = error.errors(include_url=False)[0]
            said = first.get("ctx", {}).get("error", first["msg"])
            raise ValueError(": ".join(map(str, (*first["loc"], said)))) from error

    def within(self, step: str) -> Value | None:
        return next((one.value for one in self.arguments if one.name == step), None)

    def parts(self) -> tuple[Argument, ...]:
        return self.arguments

    def foreign(self) -> Iterator[tuple[str, str]]:
        yield from foreign(self.arguments)


@dataclass(frozen=True)
class Limited(Value):
    """A kind with limits and checks, as `Annotated` has them."""

    of: Value
    extras: tuple[Any, ...]
    """`Limit`, `Described`, `Check` and `Lax`; anything else as it is, which has no plain form."""

    def words(self) -> str:
        limits = (one.values for one in self.extras if isinstance(one, (Limit, Described)))
        said = [f"{_LIMITS[name]} {value:,.10g}" for values in limits for name, value in values if name in _LIMITS]
        return ", ".join([self.of.words(), *said])

    def type(self) -> Any:
        extras = (one.made() if isinstance(one, Extra) else one for one in self.extras)
        return Annotated[self.of.type(), *extras]

    def within(self, step: str) -> Value | None:
        return self.of.within(step)

    def parts(self) -> tuple[Argument, ...]:
        return self.of.parts()

    def foreign(self) -> Iterator[tuple[str, str]]:
        yield from self.of.foreign()


class Extra(Stored):
    """What else `Annotated` says of a type."""

    def made(self) -> Any:
        """As pydantic reads it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Limit(Extra):
    """A limit of annotated-types."""

    name: str
    values: tuple[tuple[str, Any], ...]

    def made(self) -> Any:
        import annotated_types

        return getattr(annotated_types, self.name)(**dict(self.values))


@dataclass(frozen=True)
class Described(Extra):
    """A `Field` of pydantic that describes and limits."""

    values: tuple[tuple[str, Any], ...]

    def made(self) -> Any:
        from pydantic import Field

        said: dict[str, Any] = {name: list(value) if isinstance(value, tuple) else value for name, value in self.values}
        return Field(**said)


@dataclass(frozen=True)
class Check(Extra):
    """A check that a plugin wrote itself, imported when there is a value to check."""

    name: str
    """Of pydantic's class: `AfterValidator` or `BeforeValidator`."""
    function: Named

    def made(self) -> Any:
        import pydantic

        return getattr(pydantic, self.name)(self._checked)

    def _checked(self, value: Any) -> Any:
        return self.function.load()(value)


@dataclass(frozen=True)
class Lax(Extra):
    """Whether pydantic converts values, or takes those of the very type alone."""

    strict: bool

    def made(self) -> Any:
        from pydantic import Strict

        return Strict(self.strict)


def known(arguments: Sequence[Argument]) -> list[str]:
    """The names of those that a recipe can give."""
    return [one.name for one in arguments if not isinstance(one.value, Foreign)]


def foreign(arguments: Sequence[Argument]) -> Iterator[tuple[str, str]]:
    """What a recipe cannot give: the dotted name and the type."""
    for one in arguments:
        yield from ((f"{one.name}.{below}" if below else one.name, kind) for below, kind in one.value.foreign())


def model_of(name: str, arguments: Sequence[Argument], defaults: Mapping[str, Any] | None = None) -> type[BaseModel]:
    """A pydantic model with one field an argument, known by its alias so that it may have any name (`copy`, `json`)."""
    from pydantic import ConfigDict, Field, create_model

    of: dict[str, Any] = {}
    for number, one in enumerate(arguments):
        default: Any = ... if one.required else (defaults or {}).get(one.name)
        said: dict[str, Any] = {"description": one.doc} if one.doc else {}
        of[f"key_{number}"] = (one.value.type(), Field(default, alias=one.name, **said))
    return create_model(name, __config__=ConfigDict(strict=True, allow_inf_nan=False, extra="forbid"), **of)


def given_to(table: BaseModel) -> dict[str, Any]:
    """What a model that `model_of` made was given, by the names of the arguments."""
    of = type(table).model_fields.items()
    return {str(one.alias): getattr(table, name) for name, one in of if name in table.model_fields_set}


def _lax(kind: Any) -> Any:
    from pydantic import Strict

    return Annotated[kind, Strict(False)]


def _plural(item: Value) -> str:
    words = item.words()
    return f"{words}s" if isinstance(item, Scalar) and words.isalpha() and item.name != "any" else words
