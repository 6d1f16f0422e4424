"""The runs of a series, and the file that lists them: `series.json` in the folder that holds them all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from toolkit.api.errors import UsageError
from toolkit.runs.directory import SERIES, RunDirectory

FOLDS, FOLD, SEED, FRACTION = "data.folds", "data.fold", "seed", "data.fraction"


@dataclass(frozen=True)
class Asked:
    """What a series repeats or varies."""

    seeds: int = 1
    """Runs of each point and fold, each with another seed."""
    folds: int | None = None
    """Parts of the data, each of which is the test split once; None: the recipe's own splits."""
    grid: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Keys with the values to try, as written."""


@dataclass(frozen=True)
class Member:
    """One run of a series."""

    run: str
    """Its folder in that of the series."""
    point: Mapping[str, str]
    """The values of the grid that it has, by key, as written."""
    fold: int | None
    seed: int

    @property
    def label(self) -> str:
        """The point in words; empty without a grid."""
        return ", ".join(f"{key}={value}" for key, value in self.point.items())

    def overrides(self, folds: int | None) -> list[str]:
        """What it changes in the recipe of the series."""
        divided = [] if self.fold is None else [f"{FOLDS}={folds}", f"{FOLD}={self.fold}"]
        return [*(f"{key}={value}" for key, value in self.point.items()), *divided, f"{SEED}={self.seed}"]


def members_of(asked: Asked, seed: int) -> list[Member]:
    """Every run: all points of the grid, each with all folds and all seeds from `seed` on."""
    keys = [key for key, _ in asked.grid]
    points = [dict(zip(keys, values, strict=True)) for values in product(*(values for _, values in asked.grid))]
    folds = [None] if asked.folds is None else list(range(asked.folds))
    return [
        Member(_name(asked, place, fold, number), point, fold, number)
        for place, point in enumerate(points)
        for fold in folds
        for number in range(seed, seed + asked.seeds)
    ]


def _name(asked: Asked, place: int, fold: int | None, seed: int) -> str:
    parts = [f"point-{place:02}" if asked.grid else "", "" if fold is None else f"fold-{fold}"]
    repeated = asked.seeds > 1 or not any(parts)
    return "_".join(part for part in (*parts, f"seed-{seed}" if repeated else "") if part)


def is_series(folder: Path) -> bool:
    return (folder / SERIES).is_file()


def write_members(folder: Path, members: Sequence[Member]) -> None:
    RunDirectory(folder).write_json(folder / SERIES, {"members": [asdict(one) for one in members]})


def read_members(folder: Path) -> list[Member]:
    """Raises UsageError where the folder's series.json is damaged."""
    try:
        table = json.loads((folder / SERIES).read_text(encoding="utf-8"))
        return [Member(**one) for one in table["members"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{folder / SERIES}: cannot be read: {error}", next_step=f"start the series again, or remove {folder}"
        ) from error


def split_values(text: str) -> tuple[str, tuple[str, ...]]:
    """The key and the values of `key=a,b`: commas inside of brackets, braces and quotes part no values. Raises
    UsageError where one of them is empty."""
    key, _, values = text.partition("=")
    found = tuple(part.strip() for part in _parted(values))
    if not key.strip() or not all(found):
        raise UsageError(
            f"--grid {text}: expected KEY=VALUE,VALUE", next_step="such as --grid train.optimizer.lr=0.1,0.3"
        )
    return key.strip(), found


def fractions(text: str) -> tuple[str, tuple[str, ...]]:
    """The key and the values of a learning curve over `0.1,0.3,1`. Raises UsageError unless they are at least two
    different shares above 0 and up to 1."""
    values = tuple(part.strip() for part in text.split(","))
    shares = [_share(value) for value in values]
    if len({*shares}) != len(values) or len(values) < 2 or not all(0 < share <= 1 for share in shares):
        raise UsageError(
            f"--fractions {text}: expected different shares of the training items, above 0 and up to 1",
            next_step="such as --fractions 0.1,0.3,1",
        )
    return FRACTION, values


def _share(text: str) -> float:
    """NaN where it is not a number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _parted(text: str) -> Iterator[str]:
    depth, quote, part = 0, "", ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        depth += (char in "[{") - (char in "]}") if not quote else 0
        if char == "," and not depth and not quote:
            yield part
            part = ""
        else:
            part += char
    yield part


def points(folder: Path, members: Sequence[Member]) -> dict[str, list[RunDirectory]]:
    """The runs of each point of the grid, by its label."""
    found: dict[str, list[RunDirectory]] = {}
    for one in members:
        found.setdefault(one.label, []).append(RunDirectory(folder / one.run))
    return found
