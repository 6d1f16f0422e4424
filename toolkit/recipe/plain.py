"""From the values that factories take to the values of TOML."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date, time
from enum import Enum, Flag
from math import isfinite
from pathlib import PurePath
from typing import Any

_FIELDS = "__dataclass_fields__"
"""The fields of a dataclass by their names; `dataclasses.fields` has none that is passed to the constructor alone."""


_PLAIN = frozenset({str, int, float, bool, type(None)})
"""Types of which most values are: asked first, for every recipe that is read is made plain several times."""


def plain(value: Any) -> Any:
    """`value` in the types that TOML reads: paths as strings, tuples as lists, sets as sorted lists, members of
    enumerations by their text, and instances of classes as tables, without what is None."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Enum):
        return member_text(value)
    if isinstance(value, PurePath):
        return str(value)
    parts = parts_of(value)
    if parts is not None:
        value = {key: inner for key, inner in parts.items() if inner is not None}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, AbstractSet):
        return sorted(map(plain, value), key=_order)
    return [*map(plain, value)] if isinstance(value, (list, tuple)) else value


def storable(value: Any) -> bool:
    """Whether TOML can hold `value`, so that a recipe could give it."""
    if isinstance(value, Flag):
        return False
    try:
        parts = parts_of(value)
    except AttributeError:  # what the class was made of is no longer there
        return False
    if parts is not None:
        return all(inner is None or storable(inner) for inner in parts.values())
    if isinstance(value, Mapping):
        return all(isinstance(key, (str, int)) and storable(inner) for key, inner in value.items())
    if isinstance(value, (list, tuple, AbstractSet)):
        return all(map(storable, value))
    return isinstance(value, (bool, int, str, PurePath, Enum, date, time)) or (
        isinstance(value, float) and isfinite(value)
    )


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same to a recipe, and what it omits, since it is None, is None in both."""
    parts, others = parts_of(one), parts_of(other)
    if parts is None or others is None:
        return parts is others and bool(plain(one) == plain(other))
    return parts.keys() == others.keys() and all(alike(parts[key], others[key]) for key in parts)


def member_text(member: Enum) -> Any:
    """What a recipe writes for a member of an enumeration: its value where all are strings, or integers of an
    `IntEnum`; else its name."""
    of = type(member)
    by_value = issubclass(of, int) or all(isinstance(one.value, str) for one in of)
    if not by_value:
        return member.name
    return int(member) if isinstance(member, int) else str(member.value)


def parts_of(value: Any) -> dict[str, Any] | None:
    """The arguments that an instance of a dataclass, a named tuple or a model of pydantic was made of; None for any
    other value. Raises AttributeError where one of them was not kept."""
    if isinstance(value, type):
        return None
    if isinstance(value, tuple):
        return value._asdict() if hasattr(value, "_asdict") else None
    if dataclasses.is_dataclass(value):
        every: dict[str, dataclasses.Field[Any]] = getattr(value, _FIELDS)
        return {one.name: getattr(value, one.name) for one in every.values() if one.init and _is_argument(one)}
    pydantic = sys.modules.get("pydantic")  # without which there is no model of it
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return {alias_of(name, one): getattr(value, name) for name, one in type(value).model_fields.items()}
    return None


def alias_of(name: str, model_field: Any) -> str:
    """The key that a model of pydantic reads a field from."""
    alias = model_field.validation_alias or model_field.alias
    return alias if isinstance(alias, str) else name


def _is_argument(one: dataclasses.Field[Any]) -> bool:
    """Whether a field belongs to instances of a dataclass, not to the class."""
    return getattr(one, "_field_type", None) is not dataclasses._FIELD_CLASSVAR  # type: ignore[attr-defined]


def _order(value: Any) -> tuple[str, Any]:
    """What plain values of any kinds are sorted by."""
    return (type(value).__name__, json.dumps(value, default=str) if isinstance(value, list) else value)
