"""A factory's signature as data: the schema of its table in a recipe, its defaults and what its docstring says.

Annotations are read one parameter at a time, so a type imported only for type checkers hurts nobody unless it annotates
a key.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from pydantic import ValidationError

from toolkit.recipe.annotations import argument, text_of, value_of
from toolkit.recipe.checking import converted, table_of
from toolkit.recipe.docstrings import documented, without_arguments
from toolkit.recipe.plain import alike, plain, storable
from toolkit.recipe.signature import Signature
from toolkit.recipe.values import Foreign, Value

Factory: TypeAlias = Callable[..., Any]


@functools.lru_cache(maxsize=512)
def read_signature(factory: Factory, given: tuple[str, ...] = ()) -> Signature:
    """What the signature of `factory` says; `given` names arguments that only the core gives.

    Raises TypeError or ValueError where the signature cannot be used.
    """
    keys = _keys(factory, given)
    docstring = inspect.getdoc(factory) or ""
    docs = documented(docstring)
    signature = Signature(
        arguments=tuple(
            argument(one.name, value, one.default, docs.get(one.name) or text, required=one.default is one.empty)
            for one, value, text in keys
        ),
        defaults=_defaults([(one, value) for one, value, _ in keys]),
        given=tuple(name for name in inspect.signature(factory).parameters if name in given),
        description=without_arguments(docstring, [one.name for one, _, _ in keys]),
        factory=getattr(factory, "__qualname__", repr(factory)),
        source=_source(factory),
    )
    table_of(signature)  # raises TypeError where limits do not suit their type
    return signature


def _defaults(keys: Sequence[tuple[inspect.Parameter, Value]]) -> dict[str, Any]:
    """The defaults that the recipe's own values could be: reading them gives what the factory has."""
    found = {}
    for one, value in keys:
        if not isinstance(value, Foreign) and storable(one.default):
            with suppress(ValidationError):
                checked = converted(plain(one.default), value)
                if alike(checked, one.default):
                    found[one.name] = plain(checked)
    return found


def _source(factory: Factory) -> str | None:
    with suppress(TypeError, ValueError):  # Python does not know of every factory where it is written
        return inspect.getsourcefile(inspect.unwrap(factory))
    return None


def _keys(factory: Factory, given: Collection[str]) -> list[tuple[inspect.Parameter, Value, str]]:
    """Each parameter that is a key of the factory's table, with the kind of its values and what its annotation says."""
    found = []
    for one in _parameters(factory):
        if one.name in given:
            continue
        annotation = _annotation(factory, one)
        value = value_of(annotation)
        if one.kind is one.POSITIONAL_ONLY:
            value = Foreign(f"{value.words()} (positional-only)")
        if isinstance(value, Foreign) and one.default is one.empty:
            raise TypeError(f"argument {one.name}: a recipe cannot give {value.name}")
        found.append((one, value, text_of(annotation)))
    return found


def _parameters(factory: Factory) -> list[inspect.Parameter]:
    """All but the first, which the core gives. TypeError where there is no first, or nobody could give another."""
    found = list(inspect.signature(factory).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not found or found[0].kind not in (*positional, inspect.Parameter.VAR_POSITIONAL):
        raise TypeError("takes no positional argument, but the toolkit passes one to every factory")
    for parameter in found[1:]:
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise TypeError(f"argument {parameter.name}: is positional-only, so no recipe can give it")
    own = found[1:] if found[0].kind in positional else found
    return [parameter for parameter in own if parameter.kind in (*positional, inspect.Parameter.KEYWORD_ONLY)]


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
