"""Checks the table of a component against its signature, and describes it as JSON Schema."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from toolkit.api.errors import Problem
from toolkit.recipe.annotations import annotated
from toolkit.recipe.complaints import problems
from toolkit.recipe.signature import Signature

_VALUES = ConfigDict(strict=True, allow_inf_nan=False)
_TABLE = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")


def check(signature: Signature, given: Mapping[str, Any], key: str) -> tuple[dict[str, Any], list[Problem]]:
    """The keyword arguments for the factory (those given, converted to their annotations) and all that is wrong.

    `key` is the table's key in the recipe. A problem leaves the arguments empty.
    """
    table = table_of(signature)
    try:
        checked = table.model_validate(dict(given))
    except ValidationError as error:
        return {}, problems(error, given, key, lambda _: signature.names)
    fields = table.model_fields.items()
    return {str(of.alias): getattr(checked, field) for field, of in fields if field in checked.model_fields_set}, []


def json_schema(signature: Signature) -> dict[str, Any]:
    """JSON Schema of the table: `properties` and, where keys are required, `required`."""
    schema = table_of(signature).model_json_schema()
    for argument in signature.arguments:
        if argument.doc:
            schema["properties"][argument.name]["description"] = argument.doc
    return {key: schema[key] for key in ("properties", "required") if key in schema}


@functools.lru_cache(maxsize=512)
def table_of(signature: Signature) -> type[BaseModel]:
    """A pydantic model with one field a key, known by its alias so that a key may have any name (`copy`, `json`).
    Raises TypeError where the limits of an argument do not suit its type."""
    fields: dict[str, Any] = {}
    for number, argument in enumerate(signature.arguments):
        default = ... if argument.required else signature.defaults.get(argument.name)
        fields[f"key_{number}"] = (annotated(argument.annotation), Field(default, alias=argument.name))
    with _suitable_limits():
        return create_model("Arguments", __config__=_TABLE, **fields)


def converted(value: Any, annotation: Any) -> Any:
    """`value` as a recipe's would be converted. Raises ValidationError where it is not valid, TypeError where the
    limits of the annotation do not suit its type."""
    with _suitable_limits():
        adapter = TypeAdapter(annotation, config=_VALUES)
    return adapter.validate_python(value)


@contextmanager
def _suitable_limits() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise TypeError(f"an argument's limits do not suit its type: {error}") from error
