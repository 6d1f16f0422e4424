"""A factory's signature as data: the schema of its table in a recipe, its defaults and what its docstring says.

Annotations are read one parameter at a time, so a type imported only for type checkers hurts nobody unless it annotates
a key.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import Strict, ValidationError
from pydantic.fields import FieldInfo

from toolkit.recipe.annotations import plain as plain_annotation
from toolkit.recipe.checking import converted, table_of
from toolkit.recipe.complaints import shown
from toolkit.recipe.signature import Argument, Signature
from toolkit.recipe.tables import plain

Factory: TypeAlias = Callable[..., Any]

_DOCUMENTED = re.compile(r"^( *)`?(\w+)`?: +(\S.*(?:\n\1 +\S.*)*)", flags=re.MULTILINE)
_SCALARS = {int: "integer", float: "number", bool: "true or false", str: "string", Path: "path", Any: "anything"}
_ARRAYS = (list, tuple, Sequence)
_TABLES = (dict, Mapping)
_UNIONS = (Union, types.UnionType)
_NOTHING = object()


@functools.lru_cache(maxsize=512)
def read_signature(factory: Factory, given: tuple[str, ...] = ()) -> Signature:
    """What the signature of `factory` says; `given` names arguments that only the core gives.

    Raises TypeError or ValueError where the signature cannot be used.
    """
    keys = _keys(factory, given)
    docstring = inspect.getdoc(factory) or ""
    docs = documented(docstring)
    names = [name for name, _, _ in keys]
    signature = Signature(
        arguments=tuple(_argument(*key, docs.get(key[0], "")) for key in keys),
        defaults=_defaults(keys),
        given=tuple(name for name in inspect.signature(factory).parameters if name in given),
        description=without_arguments(docstring, names),
        factory=getattr(factory, "__qualname__", repr(factory)),
        source=_source(factory),
    )
    table_of(signature)  # raises TypeError where limits do not suit their type
    return signature


def _argument(name: str, parameter: inspect.Parameter, annotation: Any, doc: str) -> Argument:
    return Argument(
        name=name,
        type=type_text(annotation),
        default=shown(parameter.default) if _storable(parameter.default) else "unset",
        required=parameter.default is parameter.empty,
        doc=doc,
        annotation=plain_annotation(annotation),
    )


def _defaults(keys: Sequence[tuple[str, inspect.Parameter, Any]]) -> dict[str, Any]:
    found = {}
    for name, parameter, annotation in keys:
        if _storable(parameter.default):
            with suppress(ValidationError):
                found[name] = plain(converted(parameter.default, annotation))
    return found


def _source(factory: Factory) -> str | None:
    with suppress(TypeError, ValueError):  # Python does not know of every factory where it is written
        return inspect.getsourcefile(inspect.unwrap(factory))
    return None


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


def _keys(factory: Factory, given: Collection[str]) -> list[tuple[str, inspect.Parameter, Any]]:
    """Name, parameter and the part of its annotation that TOML can express, for each key of the factory's table."""
    found = []
    for parameter in _parameters(factory):
        annotation = _NOTHING if parameter.name in given else _expressible(_annotation(factory, parameter))
        if annotation is not _NOTHING:
            found.append((parameter.name, parameter, annotation))
        elif parameter.default is parameter.empty and parameter.name not in given:
            raise TypeError(f"argument {parameter.name}: a recipe cannot give {parameter.annotation}")
    return found


def _parameters(factory: Factory) -> list[inspect.Parameter]:
    """All but the first, which the core gives. TypeError where there is no first, or nobody could give another."""
    found = list(inspect.signature(factory).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    if not found or found[0].kind not in (*positional, inspect.Parameter.VAR_POSITIONAL):
        raise TypeError("takes no positional argument, but the toolkit passes one to every factory")
    for parameter in found[1:]:
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise TypeError(f"argument {parameter.name}: is positional-only, so no recipe can give it")
    own = found[1:] if found[0].kind in positional else found
    return [parameter for parameter in own if parameter.kind in named]


def _annotation(factory: Factory, parameter: inspect.Parameter) -> Any:
    """The parameter's annotation; without one, the type of its default, unless that is None."""
    annotation = parameter.annotation
    if annotation is parameter.empty:
        typed = parameter.default is not parameter.empty and parameter.default is not None
        return type(parameter.default) if typed else Any
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

    Values are checked strictly (`"3"` is not an integer), except that TOML has no paths and no tuples.
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
