"""Damage that the reading of a video survives: the code that reads hears of it, whatever code lies between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Damage(NamedTuple):
    """Frames of a video that cannot be decoded, or not without errors."""

    frames: int
    total: int
    """Frames of the video, those that its end should have and does not included."""

    @property
    def share(self) -> float:
        return self.frames / self.total

    def __str__(self) -> str:
        return f"{self.frames:,} of {self.total:,} frames cannot be decoded"


_heard: ContextVar[list[Damage] | None] = ContextVar("heard", default=None)


@contextmanager
def hearing_of_damage() -> Iterator[list[Damage]]:
    """What the readings inside, in this thread, notice: each adds the damage of a whole video."""
    found, before = list[Damage](), _heard.get()
    _heard.set(found)
    try:
        yield found
    finally:
        _heard.set(before)


def is_heard() -> bool:
    """Whether anyone wants to know: to count takes a while."""
    return _heard.get() is not None


def notice(damage: Damage) -> None:
    """Report it to the code that reads."""
    found = _heard.get()
    if found is not None and damage.frames:
        found.append(damage)
