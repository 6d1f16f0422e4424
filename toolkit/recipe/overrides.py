"""`--set a.b=value`: changes any key of a recipe's tables before they are checked."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from toolkit.api.errors import Problem, nearest
from toolkit.recipe.draft import places
from toolkit.recipe.kinds import KINDS

DEPTH = 50
"""Values in values that a recipe may have."""
_COMPONENTS = frozenset(kind.place.rpartition(".")[2] for kind in KINDS.values() if not kind.several)
_LISTS = {kind.place: kind.usual for kind in KINDS.values() if kind.several}
"""The arrays of components, with what they are where a recipe is silent."""


def override(tables: dict[str, Any], text: str) -> Problem | None:
    """Apply one `a.b=value` to `tables` in place; the problem, if it cannot be.

    The value is read as TOML, else taken as a string. An element of an array is addressed by its `name`, or by its
    number from 0: `augment.random_crop.padding=2`, `augment.0.padding=2`.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    steps = key.split(".")
    if not equals or not all(steps):
        return Problem(text, "an override must look like key=value, such as train.epochs=20")
    if not value:
        return Problem(key, 'needs a value after "=" (write "" for an empty string)')
    if len(steps) > DEPTH:
        return Problem(key, f"has {len(steps):,} parts, at most {DEPTH} are read")
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # how Python passes bytes that are not UTF-8
        return Problem(key, "is not valid UTF-8")
    if steps[0] in _LISTS:
        tables.setdefault(steps[0], list(_LISTS[steps[0]]))
    return _put(tables, steps, from_inline(value), key)


def from_inline(text: str) -> Any:
    """The value that `text` is as TOML, else the text itself."""
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return read["value"] if len(read) == 1 else text


def _put(holder: Any, steps: Sequence[str], value: Any, key: str) -> Problem | None:
    step, *rest = steps
    place: Any = step
    if isinstance(holder, list):
        known = places(holder)
        is_number = step.isdecimal() and int(step) < len(holder)
        if step not in known and not is_number:
            return Problem(key, f'there is no element "{step}"', nearest(step, known), fault="unknown key")
        place = known.index(step) if step in known else int(step)
    elif not isinstance(holder, dict):
        return Problem(key, f'cannot be set: the parent of "{step}" is a value, not a table', fault="unknown key")
    if not rest:
        holder[place] = value
        return None
    if isinstance(holder, dict):
        holder.setdefault(place, {})
    if isinstance(holder[place], str) and (isinstance(holder, list) or step in _COMPONENTS):
        holder[place] = {"name": holder[place]}
    return _put(holder[place], rest, value, key)
