"""What pydantic found wrong, in this project's words: one `Problem` a place, with the nearest valid key."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, time
from typing import TYPE_CHECKING, Any, TypeAlias

from toolkit.api.errors import Problem, counted, nearest
from toolkit.recipe.foreign import value_of

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

Place: TypeAlias = tuple[str | int, ...]

_TYPES = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "path_type": "a path in quotes",
    "tuple_type": "an array",
    "list_type": "an array",
    "set_type": "an array",
    "frozen_set_type": "an array",
    "date_type": "a date such as 2026-01-31",
    "datetime_type": "a date with a time such as 2026-01-31T12:00:00",
    "time_type": "a time such as 12:00:00",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "finite_number": "a finite number",
}
_LIMITS = {
    "greater_than_equal": "at least {ge:,.10g}",
    "greater_than": "greater than {gt:,.10g}",
    "less_than_equal": "at most {le:,.10g}",
    "less_than": "less than {lt:,.10g}",
    "multiple_of": "a multiple of {multiple_of:,.10g}",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_short": "text of length {min_length} or more",
    "string_too_long": "text of length {max_length} or less",
}


def dotted(key: str, *place: str | int) -> str:
    """The key of the value at `place` below `key`, which is empty at the top of the file."""
    return ".".join([*([key] if key else []), *map(str, place)])


def shown(value: Any, limit: int = 60) -> str:
    """`value` about as TOML writes it, cut to `limit` characters."""
    bare = isinstance(value, (date, time))
    text = value.isoformat() if bare else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def problems(error: ValidationError, given: Any, key: str, known: Callable[[str], Iterable[str]]) -> list[Problem]:
    """Every problem in `error`, raised by validating `given`, the value of `key`.

    `known(key of a table)` lists the keys that table may have. The complaints of all members of a union become one.
    """
    places: dict[Place, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        # pydantic counts the right items of an array alone, and reports the wrong ones too: it may be long enough
        if details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]:
            continue
        places.setdefault(_place(details, given), []).append(details)
    found = []
    for place, here in places.items():
        # one member of a union may like the value well enough to complain only of something inside it
        deeper = any(len(other) > len(place) and other[: len(place)] == place for other in places)
        if deeper and not any(map(_right_type, here)):
            continue
        if here[0]["type"] == "extra_forbidden":
            suggestion = nearest(str(place[-1]), known(dotted(key, *place[:-1])))
            found.append(Problem(dotted(key, *place), "unknown key", suggestion, fault="unknown key"))
        else:
            found.append(_problem(here, dotted(key, *place)))
    return found


def _place(details: ErrorDetails, given: Any) -> Place:
    """Where in `given` it is; pydantic's location also names members of unions, which are no keys: leave them out."""
    place: list[str | int] = []
    for step in details["loc"]:
        in_array = isinstance(given, (list, tuple)) and isinstance(step, int) and step < len(given)
        if in_array or (isinstance(given, Mapping) and step in given):
            place.append(step)
            given = given[step]
        elif details["type"] == "missing" and isinstance(step, str) and step == details["loc"][-1]:
            place.append(step)
    return tuple(place)


def _problem(found: Sequence[ErrorDetails], key: str) -> Problem:
    close = [details for details in found if _right_type(details)] or found
    first = close[0]
    if first["type"] == "missing" and isinstance(first["loc"][-1], str):
        return Problem(key, "is required")
    if first["type"] == "value_error":  # of a validator, which says what is wrong in its own words
        return Problem(key, str(first["ctx"]["error"]), _suggested(key, first["input"], ()))
    if first["type"] in {"missing", "too_long", "too_short"}:
        return Problem(key, _wrong_length(close[-1]))
    wanted = list(dict.fromkeys(_wanted(details) for details in close))
    literals = [value for details in close if details["type"] == "literal_error" for value in _literals(details)]
    names = [value for value in literals if isinstance(value, str)]
    suggestion = _suggested(key, first["input"], names)
    return Problem(key, f"must be {' or '.join(wanted)}, got {shown(first['input'])}", suggestion)


def _suggested(key: str, given: Any, names: Sequence[str]) -> str | None:
    """What the value is called here, or the nearest of the `names` that are allowed there."""
    if given in ("True", "False"):
        return str(given).lower()
    foreign = value_of(key, str(given))
    if foreign != str(given) and (not names or foreign in names):
        return foreign
    return nearest(given, names) if names and isinstance(given, str) else None


def _right_type(details: ErrorDetails) -> bool:
    """Whether the value is of the kind this member of a union wants, only outside its limits."""
    return details["type"] not in {*_TYPES, "literal_error"}


def _wanted(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind in _LIMITS:
        return _LIMITS[kind].format(**context)
    if kind == "literal_error":
        names = [shown(name) for name in _literals(details)]
        return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    return _TYPES.get(kind) or f"valid ({details['msg']})"


def _wrong_length(last: ErrorDetails) -> str:
    """pydantic reports a short fixed-length array once for every missing element, the last naming the length."""
    context = last.get("ctx", {})
    if last["type"] == "too_short":
        words, count, got = "at least ", context["min_length"], context["actual_length"]
    elif last["type"] == "too_long":
        words, count, got = "at most ", context["max_length"], len(last["input"])
    else:
        words, count, got = "", int(last["loc"][-1]) + 1, len(last["input"])
    return f"must have {words}{counted(count, 'item')}, got {got}"


def _literals(details: ErrorDetails) -> list[Any]:
    """The values that pydantic names, as Python writes them: `'a', "it's" or 3`."""
    written = re.findall(r"""'[^']*'|"[^"]*"|-?\d+|True|False""", details.get("ctx", {})["expected"])
    return [ast.literal_eval(value) for value in written]
