"""Whether scores compare: they do where they were made in one way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolkit.api.errors import UsageError
from toolkit.data.fraction import PROTOCOL_KEY
from toolkit.runs.compare.contender import Contender, flattened

ABSENT = "absent"
OF_TRAINING = frozenset({PROTOCOL_KEY})
"""Keys of a protocol that say what was learned, not how it was scored."""


def require_like_protocols(contenders: Sequence[Contender], *, anyway: str) -> None:
    """Raise UsageError, naming every difference, where scores were made in unlike ways. `anyway` is the command that
    compares them nevertheless."""
    found = differences(contenders)
    if found:
        raise UsageError(
            "the scores do not compare: their protocols differ",
            details=found,
            next_step=f"evaluate them alike, or show the differences in the table: {anyway}",
        )


def differences(contenders: Sequence[Contender]) -> list[str]:
    """Each difference between the first contender's protocol and another's, as a sentence."""
    first, *others = contenders
    return [text for other in others for text in _between(first, other)]


def _between(first: Contender, other: Contender) -> Iterator[str]:
    if first.form != other.form:
        yield f"targets: {first.form} in {first.name}, {other.form} in {other.name}"
        return
    if first.first.split != other.first.split:
        yield f"split: {first.first.split} in {first.name}, {other.first.split} in {other.name}"
    one, two = first.protocols, other.protocols
    if len(one) != len(two):
        yield f"folds: {len(one)} in {first.name}, {len(two)} in {other.name}"
        return
    seen = dict[str, None]()
    for left, right in zip(one, two, strict=True):
        for key, (mine, theirs) in unlike(left, right).items():
            seen[f"{key}: {mine} in {first.name}, {theirs} in {other.name}"] = None
    yield from seen


def unlike(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The values of two tables by dotted keys, where they differ."""
    one, two = flattened(left), flattened(right)
    keys = dict.fromkeys((*one, *two))
    return {
        key: (one.get(key, ABSENT), two.get(key, ABSENT))
        for key in keys
        if key not in OF_TRAINING and one.get(key, ABSENT) != two.get(key, ABSENT)
    }
