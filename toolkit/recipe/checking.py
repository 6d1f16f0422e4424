"""Checks the table of a component against its signature, and describes it as JSON Schema."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ValidationError

from toolkit.api.errors import Problem
from toolkit.recipe.complaints import problems
from toolkit.recipe.plain import alike, plain
from toolkit.recipe.signature import Signature
from toolkit.recipe.values import Argument, Foreign, Value, given_to, model_of


def check(signature: Signature, given: Mapping[str, Any], key: str) -> tuple[dict[str, Any], list[Problem]]:
    """The keyword arguments for the factory (those given, converted to their annotations) and all that is wrong.

    `key` is the table's key in the recipe. A problem leaves the arguments empty.
    """
    try:
        checked = table_of(signature).model_validate(dict(given))
    except ValidationError as error:
        below = len(key) + 1
        return {}, problems(error, given, key, lambda table: signature.keys_at(table[below:]))
    return given_to(checked), []


def as_written(signature: Signature, given: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """The values of TOML from which `check` makes `args` again, with what the classes in them have by default.

    A class that does not keep what it was made of has no such values: its table stays as it was `given`.
    """
    kinds = {one.name: one.value for one in signature.arguments}
    return {name: _written(given[name], value, kinds[name]) for name, value in args.items()}


def _written(given: Any, value: Any, kind: Value) -> Any:
    if type(value) is type(given) and isinstance(given, (str, int, float)) and value == given:
        return given  # as nearly all are: nothing was converted
    try:
        written = plain(value)
        return written if alike(converted(written, kind), value) else given
    except (AttributeError, ValueError, TypeError):
        return given


def json_schema(signature: Signature) -> dict[str, Any]:
    """JSON Schema of the table: `properties` and, where keys are required, `required`."""
    schema = table_of(signature).model_json_schema()
    whole: dict[str, Any] = _inlined(schema, schema.get("$defs", {}))
    for one in signature.arguments:
        if isinstance(one.value, Foreign):
            del whole["properties"][one.name]
    return {key: whole[key] for key in ("properties", "required") if key in whole}


def _inlined(schema: Any, tables: Mapping[str, Any]) -> Any:
    """The schema with its tables in their places: no table of a component has itself inside."""
    if isinstance(schema, list):
        return [_inlined(one, tables) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        table = tables[schema["$ref"].rpartition("/")[2]]
        return _inlined({**table, **{key: value for key, value in schema.items() if key != "$ref"}}, tables)
    dropped: tuple[str, ...] = (
        "$defs",
        "uniqueItems",
    )  # a set is written as an array, in which a value may stand twice
    if schema.get("format") in ("date-time", "time"):  # in JSON these have an offset, which in TOML is optional
        dropped += ("format",)
    return {key: _inlined(value, tables) for key, value in schema.items() if key not in dropped}


@functools.lru_cache(maxsize=512)
def table_of(signature: Signature) -> type[BaseModel]:
    """A pydantic model of the table. Raises TypeError where the limits of an argument do not suit its type."""
    with _suitable_limits():
        return model_of("Arguments", signature.arguments, signature.defaults)


def converted(value: Any, kind: Value) -> Any:
    """`value` as a recipe's would be converted. Raises ValidationError where it is not valid, TypeError where the
    limits of its kind do not suit its type."""
    with _suitable_limits():
        table = model_of("Value", [Argument("value", kind, "", True, "")])
    return given_to(table.model_validate({"value": value}))["value"]


@contextmanager
def _suitable_limits() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise TypeError(f"an argument's limits do not suit its type: {error}") from error
