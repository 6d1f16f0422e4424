"""Dividing labelled items into train, valid and test so that nothing is in two of them.

The same items, groups, shares and seed give the same splits on every machine and in every order of listing.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from toolkit.api.contracts import Target, Targets
from toolkit.api.errors import DataError, first_few
from toolkit.data.regular import require_regular
from toolkit.data.sequences import ArrayTargets

SPLITS = ("train", "valid", "test")
NO_CLASS = -1
"""What items that show no class are counted as, so that they are spread like those of a class."""
_FILLED_FIRST = ("train", "test", "valid")
_READ_BYTES = 1 << 20
_TRIALS = 100
_TRIED_UNITS = 20_000


@dataclass(frozen=True)
class Partition:
    """Positions, ascending, of the items of each split; `notes` says which classes could not be on every side."""

    train: tuple[int, ...]
    valid: tuple[int, ...]
    test: tuple[int, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contents:
    """What is known of the bytes of N files."""

    keys: tuple[str, ...]
    """N keys, hexadecimal, that change when a file does."""
    identical: tuple[tuple[int, ...], ...]
    """Positions of each set of two or more files with the same bytes."""


@dataclass(frozen=True, eq=False)
class _Unit:
    """Items that must stay together."""

    order: str
    positions: tuple[int, ...]
    counts: Mapping[int, int]


def partition(
    ids: Sequence[str],
    targets: Targets,
    *,
    classes: Sequence[str],
    valid_share: float,
    test_share: float,
    seed: int,
    groups: Sequence[str] | None = None,
) -> Partition:
    """Divide N items, class by class, so that each split gets its share of every class; whole groups stay together.

    ids: N unique names; targets: N class indices into `classes`, or N sets of them, as the strata of numbers are;
    groups: N group names (None: every item alone);
    valid_share, test_share: wanted shares of the items, 0 for none; the rest, which must be more than 0, is train.

    Groups are dealt in an order drawn from `seed`, each to the split that lacks most of its classes. Then a class that
    is absent from a split gets a group there, if it has enough groups: train is served first, then test, then valid.
    Of several such deals (the first from the largest group to the smallest) the one is taken that leaves fewest
    classes out and comes nearest to the shares. Raises DataError when there are no items.
    """
    if not ids:
        raise DataError("no items to split")
    shares = _shares(valid_share, test_share)
    units = _units(ids, targets, groups if groups is not None else ids, seed)
    deal = _best_deal(
        units, shares, Counter(sorted(number for target in targets for number in classes_of(target))), seed
    )
    train, valid, test = (
        tuple(sorted(position for unit in deal.units.get(split, ()) for position in unit.positions)) for split in SPLITS
    )
    return Partition(train, valid, test, tuple(_absent_classes(deal, classes)))


def fold_partition(
    ids: Sequence[str],
    targets: Targets,
    *,
    classes: Sequence[str],
    folds: int,
    fold: int,
    valid_share: float,
    seed: int,
    groups: Sequence[str] | None = None,
) -> Partition:
    """As `partition`, for cross-validation: the items fall into `folds` parts of about the same size and the same
    classes, and part number `fold`, from 0, is the test split. `valid_share` is taken from the other parts.

    Over all folds every item is tested once. Raises DataError where there are fewer groups than folds.
    """
    units = _units(ids, targets, groups if groups is not None else ids, seed) if ids else []
    if len(units) < folds:
        raise DataError(
            f"{len(units)} groups cannot be divided into {folds} folds",
            next_step="ask for fewer folds, or add items: `run RECIPE --folds N`",
        )
    totals = Counter(sorted(number for target in targets for number in classes_of(target)))
    deal = _best_deal(units, {str(number): 1 / folds for number in range(folds)}, totals, seed)
    held = {position for unit in deal.units[str(fold)] for position in unit.positions}
    rest = [position for position in range(len(ids)) if position not in held]
    cut = partition(
        [ids[position] for position in rest],
        [targets[position] for position in rest],
        classes=classes,
        valid_share=valid_share,
        test_share=0.0,
        seed=seed,
        groups=None if groups is None else [groups[position] for position in rest],
    )
    train, valid = (tuple(rest[position] for position in part) for part in (cut.train, cut.valid))
    absent = [classes[target] for target in deal.missing(str(fold)) if target != NO_CLASS]
    lacking = (f"fold {fold} has no item of {first_few(absent, 5)}: too few groups",) if absent else ()
    return Partition(train, valid, tuple(sorted(held)), (*lacking, *cut.notes))


def classes_of(target: Target) -> Sequence[int]:
    """The classes that an item with this target is counted under: its own, or all of its set."""
    return (target,) if isinstance(target, int) else tuple(cast(Sequence[int], target)) or (NO_CLASS,)


def count_classes(targets: Targets) -> Counter[int]:
    """Items of each class; one of several classes counts for each."""
    if isinstance(targets, ArrayTargets):
        return targets.counts()
    return Counter(number for target in targets for number in classes_of(target))


def merge_groups(groups: Sequence[str], identical: Iterable[Sequence[int]]) -> list[str]:
    """N group names in which the items of each set of positions in `identical` have come into one group."""
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for positions in identical:
        first, *others = sorted({root(groups[position]) for position in positions})
        parent.update(dict.fromkeys(others, first))
    return [root(group) for group in groups]


def split_hash(parts: Mapping[str, Sequence[str]]) -> str:
    """12 hexadecimal digits that change when an item moves, comes or goes; `parts` maps a split's name to its ids."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        for text in (name, *sorted(parts[name]), ""):
            digest.update(text.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()[:12]


def contents(paths: Sequence[Path], *, workers: int | None = None) -> Contents:
    """Find byte-identical files and give each file a key.

    Only files that share their size with another are read, in `workers` threads (None: one a core): their key is the
    SHA-256 of their bytes. Any other file cannot have a twin; its key is made by `stat_key`. Raises DataError naming
    a file that cannot be read.
    """
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        sizes = list(pool.map(_size, paths))
        shared = {size for size, count in Counter(sizes).items() if count > 1}
        hashed = [position for position, size in enumerate(sizes) if size in shared]
        digests = dict(zip(hashed, pool.map(_digest, [paths[position] for position in hashed]), strict=True))
    twins: dict[str, list[int]] = defaultdict(list)
    for position, digest in digests.items():
        twins[digest].append(position)
    keys = tuple(digests.get(position) or stat_key(path) for position, path in enumerate(paths))
    return Contents(keys, tuple(tuple(found) for found in twins.values() if len(found) > 1))


def stat_key(path: Path) -> str:
    """A key of a file from its path, size and time of change, without reading it; DataError when it is gone."""
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    require_regular(path, found)
    text = f"{path}\0{found.st_size}\0{found.st_mtime_ns}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _shares(valid_share: float, test_share: float) -> dict[str, float]:
    shares = {"train": 1.0 - valid_share - test_share, "valid": valid_share, "test": test_share}
    if shares["train"] <= 0:
        raise ValueError(f"test_share: valid_share + test_share must be below 1, got {valid_share + test_share:g}")
    return {split: share for split, share in shares.items() if share > 0}


def _units(ids: Sequence[str], targets: Targets, groups: Sequence[str], seed: int) -> list[_Unit]:
    members: dict[str, list[int]] = defaultdict(list)
    for position, group in enumerate(groups):
        members[group].append(position)
    units = [
        _Unit(
            _drawn(seed, min(ids[position] for position in positions)),
            tuple(positions),
            Counter(sorted(number for position in positions for number in classes_of(targets[position]))),
        )
        for positions in members.values()
    ]
    return sorted(units, key=lambda unit: (-len(unit.positions), unit.order))


def _drawn(seed: int | str, name: str) -> str:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).hexdigest()


def _best_deal(units: Sequence[_Unit], shares: Mapping[str, float], totals: Mapping[int, int], seed: int) -> _Deal:
    if len(units[0].positions) == 1:
        return _dealt(units, shares, totals)
    orders = [
        units,
        *(_shuffled(units, f"{seed}\0{trial}") for trial in range(min(_TRIALS, _TRIED_UNITS // len(units)))),
    ]
    return min((_dealt(order, shares, totals) for order in orders), key=_Deal.cost)


def _shuffled(units: Sequence[_Unit], drawn_from: str) -> list[_Unit]:
    """The units in a random order, but those of twice the size before the others."""
    return sorted(units, key=lambda unit: (-len(unit.positions).bit_length(), _drawn(drawn_from, unit.order)))


def _dealt(units: Sequence[_Unit], shares: Mapping[str, float], totals: Mapping[int, int]) -> _Deal:
    deal = _Deal(shares, totals)
    for unit in units:
        deal.place(unit)
    for rank, receiver in enumerate(_FILLED_FIRST):
        for target in deal.missing(receiver):
            deal.fetch(target, receiver, served=_FILLED_FIRST[:rank])
    return deal


class _Deal:
    """Where each unit has been put so far."""

    def __init__(self, shares: Mapping[str, float], totals: Mapping[int, int]) -> None:
        self.totals = totals
        self.units: dict[str, list[_Unit]] = {split: [] for split in shares}
        self.lacking = {split: {target: share * n for target, n in totals.items()} for split, share in shares.items()}
        self.holding = {split: Counter[int]() for split in shares}

    def place(self, unit: _Unit) -> None:
        """Put a unit where that lowers the squared distance to the wanted class counts most."""
        self._put(unit, max(self.units, key=lambda split: self._gain(split, unit)))

    def missing(self, split: str) -> list[int]:
        """The classes of which a split has no unit."""
        return [target for target in self.totals if not self.holding[split][target]] if split in self.holding else []

    def fetch(self, target: int, receiver: str, *, served: Sequence[str]) -> None:
        """Move a unit with this class to `receiver`, if a split can spare one: those in `served` keep their classes."""
        spare = [
            (-self.holding[split][target], len(unit.positions), unit.order, split, unit)
            for split, units in self.units.items()
            for unit in units
            if target in unit.counts and (split not in served or self._keeps_classes(split, unit))
        ]
        if spare:
            *_, donor, unit = min(spare, key=lambda one: one[:3])
            self.units[donor].remove(unit)
            self._count(unit, donor, sign=-1)
            self._put(unit, receiver)

    def cost(self) -> tuple[int, float]:
        """How many classes are missing, and the squared distance to the wanted class counts."""
        distances = (lack / self.totals[target] for wanted in self.lacking.values() for target, lack in wanted.items())
        return sum(len(self.missing(split)) for split in self.units), sum(distance**2 for distance in distances)

    def _gain(self, split: str, unit: _Unit) -> float:
        lacking = self.lacking[split]
        return sum(lacking[target] * count / self.totals[target] for target, count in unit.counts.items())

    def _keeps_classes(self, split: str, unit: _Unit) -> bool:
        return all(self.holding[split][target] > 1 for target in unit.counts)

    def _put(self, unit: _Unit, split: str) -> None:
        self.units[split].append(unit)
        self._count(unit, split, sign=1)

    def _count(self, unit: _Unit, split: str, *, sign: int) -> None:
        for target, count in unit.counts.items():
            self.lacking[split][target] -= sign * count
            self.holding[split][target] += sign


def _absent_classes(deal: _Deal, classes: Sequence[str]) -> Iterator[str]:
    for split in deal.units:
        names = [classes[target] for target in deal.missing(split) if target != NO_CLASS]
        if names:
            yield f"the {split} split has no item of {first_few(names, 5)}: too few groups to be on every side"


def _size(path: Path) -> int:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    require_regular(path, found)
    return found.st_size


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot be read: {error.strerror or error}", path=path, next_step="Check that the file exists and may be read."
    )
