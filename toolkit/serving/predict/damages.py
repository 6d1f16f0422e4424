"""Frames that could not be decoded, of the videos and streams that were answered nevertheless."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from toolkit.api.errors import first_few, printable
from toolkit.data.damage import Damage, hearing_of_damage
from toolkit.serving.predict.inputs import Source

NAMED = 5
"""Most damaged inputs that are named."""


class Damages:
    """The damage of each source, as far as reading it met any."""

    def __init__(self) -> None:
        self._found: dict[str, Damage] = {}

    @contextmanager
    def of(self, source: Source) -> Iterator[None]:
        """Take note of the damage that this thread meets inside, where it reads `source`."""
        with hearing_of_damage() as found:
            try:
                yield
            finally:
                self._found |= {printable(source.name): damage for damage in found}

    def lines(self) -> Iterator[str]:
        """What a user reads of it, if there is any."""
        if self._found:
            yield f"damaged: {first_few([f'{name}: {damage}' for name, damage in self._found.items()], NAMED)}"
