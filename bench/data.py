"""Where the real data lies that a bench was given."""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from bench.pairs import Effort

SECONDS = 300.0


def at_least_two(text: str) -> int:
    """The number of pairs that an argument names."""
    if not text.isdecimal() or int(text) < 2:
        raise ArgumentTypeError(f"must be a whole number, at least 2, got {text}")
    return int(text)


def above_zero(text: str) -> float:
    """The seconds or minutes that an argument names."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not (isfinite(number) and number > 0):
        raise ArgumentTypeError(f"must be a number above 0, got {text}")
    return number


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    pairs: int | None
    """Pairs of the first round of each figure; None: the bench's own number."""
    data: Path | None
    """A folder that holds the folders below, or is one of them; None: the one named by TOOLKIT_DATA, if any."""
    run: Path | None = None
    """A trained run, for benches of what comes after training; None: random weights."""
    seconds: float = SECONDS
    """Time of each figure with a target, after which no more pairs are taken."""

    def effort(self, pairs: int) -> Effort:
        """`pairs` where the command line says no other number."""
        return Effort(self.pairs or pairs, self.seconds)

    def har(self) -> Path | None:
        """HAR as published: train/ and Training_set.csv."""
        return self._find("har-subset", "Training_set.csv")

    def cifar10(self) -> Path | None:
        """CIFAR-10 as image folders: train/<class>/ and test/<class>/."""
        return self._find("cifar10-jpeg", "test")

    def folder(self, name: str) -> Path | None:
        """The folder of this name."""
        places = (place for folder in self._folders() for place in (folder / name, folder))
        return next((place.resolve() for place in places if place.name == name and place.is_dir()), None)

    def _find(self, name: str, mark: str) -> Path | None:
        places = (place for folder in self._folders() for place in (folder / name, folder))
        return next((place.resolve() for place in places if (place / mark).exists()), None)

    def _folders(self) -> Iterator[Path]:
        if self.data is not None:
            yield self.data
        named = os.environ.get("TOOLKIT_DATA")
        if named:
            yield Path(named)
