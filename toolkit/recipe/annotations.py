"""The types of arguments as plain values that JSON holds, and back: `"int"`, `["union", "float", "none"]`.

What has no plain form (a check that is a lambda, say) stays as it is, in a `Live`; JSON refuses to store that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import annotated_types
from pydantic import AfterValidator, BeforeValidator, Field, Strict
from pydantic.fields import FieldInfo

Plain: TypeAlias = Any
"""A name of `_NAMED`, or a list of a word and what belongs to it."""

_NAMED: Mapping[str, Any] = {
    "any": Any,
    "bool": bool,
    "dict": dict,
    "float": float,
    "int": int,
    "list": list,
    "none": type(None),
    "path": Path,
    "rest": ...,
    "str": str,
    "tuple": tuple,
}
_LIMITS = {
    name: getattr(annotated_types, name)
    for name in ("Ge", "Gt", "Interval", "Le", "Lt", "MaxLen", "MinLen", "MultipleOf")
}
_CHECKS: Mapping[str, Any] = {"AfterValidator": AfterValidator, "BeforeValidator": BeforeValidator}
_DESCRIBED = ("title", "description", "examples")


@dataclass(frozen=True)
class Live:
    """An annotation that only its plugin can give."""

    annotation: Any


@dataclass(frozen=True)
class Imported:
    """A check that a plugin wrote itself, imported when there is a value to check."""

    module: str
    name: str

    def __call__(self, value: Any) -> Any:
        return getattr(import_module(self.module), self.name)(value)


def plain(annotation: Any) -> Plain:
    """The plain form of an annotation that TOML can express."""
    try:
        written: Plain = json.loads(json.dumps(_written(annotation)))
        return written
    except (AttributeError, TypeError, ValueError):
        return Live(annotation)


def annotated(written: Plain) -> Any:
    """The annotation that `written` is the plain form of."""
    if isinstance(written, Live):
        return written.annotation
    if isinstance(written, str):
        return _NAMED[written]
    word, *parts = written
    return _READERS[word](*parts)


def _written(annotation: Any) -> Plain:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return ["annotated", _written(inner[0]), *map(_metadata, inner[1:])]
    if origin is Literal:
        if not all(type(value) in (str, int, bool, type(None)) for value in inner):
            raise TypeError(f"no plain form of {annotation!r}")
        return ["literal", *inner]
    if origin is Union:
        return ["union", *map(_written, inner)]
    if origin in (list, tuple, dict):
        return [origin.__name__, *map(_written, inner)]
    for name, kind in _NAMED.items():
        if kind is annotation:
            return name
    raise TypeError(f"no plain form of {annotation!r}")


def _metadata(one: Any) -> Plain:
    if isinstance(one, Strict):
        return ["strict", one.strict]
    name = type(one).__name__
    if _LIMITS.get(name) is type(one):
        return ["limit", name, _values(one)]
    if isinstance(one, FieldInfo):
        given = {name: value for name in _DESCRIBED if (value := getattr(one, name)) is not None}
        given |= {key: value for limit in one.metadata for key, value in _values(limit).items()}
        if repr(Field(**given)) == repr(one):
            return ["field", given]
    if _CHECKS.get(name) is type(one):
        return ["check", name, *_importable(one.func)]
    raise TypeError(f"no plain form of {one!r}")


def _importable(function: Any) -> tuple[str, str]:
    """The module and the name of a function of one argument. Raises TypeError where it is not found by them."""
    if isinstance(function, Imported):
        return function.module, function.name
    module, name = function.__module__, function.__qualname__
    found: Any = getattr(sys.modules.get(module), name, None)
    if found is not function or len(signature(function).parameters) != 1:
        raise TypeError(f"{function} cannot be imported by its name")
    return module, name


def _values(limit: Any) -> dict[str, Any]:
    if is_dataclass(limit):
        return {field.name: getattr(limit, field.name) for field in fields(limit)}
    values: dict[str, Any] = vars(limit)
    return values


def _literal(*values: Any) -> Any:
    return Literal[values]


def _union(*members: Plain) -> Any:
    return Union[tuple(map(annotated, members))]  # noqa: UP007 - of types that are only known here


def _annotated(of: Plain, *metadata: Plain) -> Any:
    return Annotated[annotated(of), *(_READERS[word](*parts) for word, *parts in metadata)]


def _check(name: str, module: str, function: str) -> Any:
    return _CHECKS[name](Imported(module, function))


def _limit(name: str, values: Mapping[str, Any]) -> Any:
    return _LIMITS[name](**values)


_READERS: Mapping[str, Callable[..., Any]] = {
    "annotated": _annotated,
    "check": _check,
    "dict": lambda *inner: dict[tuple(map(annotated, inner))],  # type: ignore[misc]
    "field": lambda given: Field(**given),
    "limit": _limit,
    "list": lambda inner: list[annotated(inner)],  # type: ignore[misc]
    "literal": _literal,
    "strict": Strict,
    "tuple": lambda *inner: tuple[tuple(map(annotated, inner))],  # type: ignore[misc]
    "union": _union,
}
