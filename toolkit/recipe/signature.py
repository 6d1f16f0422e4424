"""A factory's signature is the schema of its table in a recipe: checks values against it and describes it.

The core gives a factory its first positional parameter; every other named parameter is a key. Annotations are read one
parameter at a time, so a type imported only for type checkers hurts nobody unless it annotates a key.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, Strict, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo

from toolkit.api.errors import Problem
from toolkit.recipe.complaints import problems, shown

Factory: TypeAlias = Callable[..., Any]

_DOCUMENTED = re.compile(r"^( *)`?(\w+)`?: +(\S.*(?:\n\1 +\S.*)*)", flags=re.MULTILINE)
_SCALARS = {int: "integer", float: "number", bool: "true or false", str: "string", Path: "path", Any: "anything"}
_ARRAYS = (list, tuple, Sequence)
_TABLES = (dict, Mapping)
_UNIONS = (Union, types.UnionType)
_NOTHING = object()
_VALUES = ConfigDict(strict=True, allow_inf_nan=False)
_TABLE = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")


@dataclass(frozen=True)
class Argument:
    """One key a component understands, as text for people."""

    name: str
    type: str
    default: str
    """As TOML, `unset` where there is none."""
    required: bool
    doc: str


def check(
    factory: Factory, given: Mapping[str, Any], key: str, *, skip: Collection[str] = ()
) -> tuple[dict[str, Any], list[Problem]]:
    """The keyword arguments for `factory` (those given, converted to their annotations) and all that is wrong.

    `key` is where the table stands in the recipe; `skip` names parameters that only the core gives. A problem leaves
    the arguments empty. Raises TypeError when the signature itself cannot be used.
    """
    table = _table(factory, frozenset(skip))
    try:
        checked = table.model_validate(dict(given))
    except ValidationError as error:
        names = [name for name, _, _ in _keys(factory, frozenset(skip))]
        return {}, problems(error, given, key, lambda _: names)
    fields = table.model_fields.items()
    return {str(of.alias): getattr(checked, field) for field, of in fields if field in checked.model_fields_set}, []


def defaults(factory: Factory, *, skip: Collection[str] = ()) -> dict[str, Any]:
    """The defaults that a recipe could give itself (not None, say), converted as if it did: `0` for a float is 0.0."""
    found = {}
    for name, parameter, annotation in _keys(factory, frozenset(skip)):
        if _storable(parameter.default):
            with suppress(ValidationError):
                found[name] = TypeAdapter(annotation, config=_VALUES).validate_python(parameter.default)
    return found


def json_schema(factory: Factory, *, skip: Collection[str] = ()) -> dict[str, Any]:
    """JSON Schema of the factory's table: `properties` and, where keys are required, `required`."""
    schema = _table(factory, frozenset(skip)).model_json_schema()
    for argument in describe(factory, skip=skip):
        if argument.doc:
            schema["properties"][argument.name]["description"] = argument.doc
    return {key: schema[key] for key in ("properties", "required") if key in schema}


def describe(factory: Factory, *, skip: Collection[str] = ()) -> list[Argument]:
    """Every key of the factory's table, in the order of its signature."""
    docs = documented(inspect.getdoc(factory) or "")
    return [
        Argument(
            name=name,
            type=type_text(annotation),
            default=shown(parameter.default) if _storable(parameter.default) else "unset",
            required=parameter.default is parameter.empty,
            doc=docs.get(name, ""),
        )
        for name, parameter, annotation in _keys(factory, frozenset(skip))
    ]


def documented(docstring: str) -> dict[str, str]:
    """What a docstring says of each argument: lines `name: text`, continued by deeper indented lines."""
    return {found[2]: re.sub(r"\s+", " ", found[3]) for found in _DOCUMENTED.finditer(docstring)}


def without_arguments(docstring: str, names: Collection[str]) -> str:
    """A docstring without what it says of these arguments."""
    kept = _DOCUMENTED.sub(lambda found: "" if found[2] in names else found[0], docstring)
    return re.sub(r"\n{3,}", "\n\n", kept).strip()


def type_text(annotation: Any) -> str:
    """An annotation in words: `integer, at least 0`, `"a" or "b"`, `array of number`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return ", ".join([type_text(inner[0]), *_limits(inner[1:])])
    if origin is Literal:
        return " or ".join(shown(value) for value in inner)
    if origin in _UNIONS:
        return " or ".join(type_text(member) for member in inner if member is not type(None))
    if (origin or annotation) not in _ARRAYS:
        return _SCALARS.get(annotation, "table")
    if not inner:
        return "array"
    count = f"{len(inner)} " if len(inner) > 1 and inner[-1] is not ... else ""
    plural = "s" if _SCALARS.get(inner[0], "").isalpha() else ""
    return f"array of {count}{type_text(inner[0])}{plural}"


def _limits(metadata: Sequence[Any]) -> Iterator[str]:
    words = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}
    for item in metadata:
        for limit in item.metadata if isinstance(item, FieldInfo) else [item]:
            yield from (f"{text} {getattr(limit, name):g}" for name, text in words.items() if hasattr(limit, name))


def _storable(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) for key in value) and all(_storable(inner) for inner in value.values())
    if isinstance(value, (list, tuple)):
        return all(_storable(inner) for inner in value)
    return isinstance(value, (bool, int, str, Path)) or (isinstance(value, float) and isfinite(value))


@functools.lru_cache(maxsize=512)
def _table(factory: Factory, skip: frozenset[str]) -> type[BaseModel]:
    """A pydantic model with one field a key, known by its alias so that a key may have any name (`copy`, `json`)."""
    fields: dict[str, Any] = {}
    for number, (name, parameter, annotation) in enumerate(_keys(factory, skip)):
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[f"key_{number}"] = (annotation, Field(default, alias=name))
    try:
        return create_model("Arguments", __config__=_TABLE, **fields)
    except Exception as error:
        raise TypeError(f"an argument's limits do not suit its type: {error}") from error


def _keys(factory: Factory, skip: frozenset[str]) -> list[tuple[str, inspect.Parameter, Any]]:
    """Name, parameter and the part of its annotation that TOML can express, for each key of the factory's table."""
    found = []
    for parameter in _parameters(factory):
        annotation = _NOTHING if parameter.name in skip else _expressible(_annotation(factory, parameter))
        if annotation is not _NOTHING:
            found.append((parameter.name, parameter, annotation))
        elif parameter.default is parameter.empty and parameter.name not in skip:
            raise TypeError(f"argument {parameter.name}: a recipe cannot give {parameter.annotation}")
    return found


def _parameters(factory: Factory) -> list[inspect.Parameter]:
    """All but the first, which the core gives. TypeError where there is no first, or nobody could give another."""
    found = list(inspect.signature(factory).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    if not found or found[0].kind not in (*positional, inspect.Parameter.VAR_POSITIONAL):
        raise TypeError("takes no positional argument, but the core gives every factory one")
    for parameter in found[1:]:
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise TypeError(f"argument {parameter.name}: is positional-only, so no recipe can give it")
    own = found[1:] if found[0].kind in positional else found
    return [parameter for parameter in own if parameter.kind in named]


def _annotation(factory: Factory, parameter: inspect.Parameter) -> Any:
    """The parameter's annotation; without one, the type of its default, unless that is None."""
    annotation = parameter.annotation
    if annotation is parameter.empty:
        tells = parameter.default is not parameter.empty and parameter.default is not None
        return type(parameter.default) if tells else Any
    try:
        while isinstance(annotation, str):  # twice where it stands in quotes below `from __future__ import annotations`
            annotation = eval(annotation, _globals(factory))  # noqa: S307 - the plugin's own code, already imported
        return annotation
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise TypeError(f"argument {parameter.name}: annotation {parameter.annotation}: {cause}") from error


def _globals(factory: Any) -> dict[str, Any]:
    """The names the annotations of a function, class, partial or callable object were written among."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    if isinstance(factory, type):
        factory = factory.__init__  # type: ignore[misc]
    elif not inspect.isroutine(factory):
        factory = type(factory).__call__
    return getattr(inspect.unwrap(factory), "__globals__", {})


def _expressible(annotation: Any) -> Any:
    """`annotation` without what TOML cannot express (tensors in `float | Tensor`); `_NOTHING` if nothing is left.

    Values are checked strictly (`"3"` is no integer), except that TOML has no paths and no tuples.
    """
    annotation = getattr(annotation, "__value__", annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kept = _expressible(inner[0])
        return kept if kept is _NOTHING else Annotated[kept, *inner[1:]]
    if origin in _UNIONS:
        members = [kept for member in inner if (kept := _expressible(member)) is not _NOTHING]
        return Union[tuple(members)] if any(member is not type(None) for member in members) else _NOTHING  # noqa: UP007
    if origin is Literal or annotation is type(None) or annotation in (int, float, bool, str, Any):
        return annotation
    kind = origin or annotation
    kept = tuple(member if member is ... else _expressible(member) for member in inner)
    if kind not in (Path, *_ARRAYS, *_TABLES) or _NOTHING in kept:
        return _NOTHING
    if kind in _TABLES:
        return dict[kept] if kept else dict  # type: ignore[valid-type,misc]
    if kind is Sequence:
        kind, kept = tuple, (*kept, ...) if kept else ()
    return Annotated[kind[kept] if kept else kind, Strict(False)]
