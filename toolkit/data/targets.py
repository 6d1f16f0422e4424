"""What differs by the form of targets: their tensor, the strata by which splits are balanced, and what tables say."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from toolkit.api.answers import SEPARATOR, label
from toolkit.api.contracts import TargetForm, Targets

if TYPE_CHECKING:
    from torch import Tensor

MOST_STRATA = 10
"""Ranges of one output's numbers, at most."""
ITEMS_OF_STRATUM = 20
"""Items of each range, at least: fewer could not be in every split."""


class Strata(NamedTuple):
    """Class indices, or sets of them, that splits are balanced by, and the names of these classes."""

    targets: Targets
    names: Sequence[str]


class Form(Protocol):
    """One form of targets."""

    noun: str
    """What a table says of an item."""

    def tensor(self, targets: Targets, outputs: int) -> Tensor:
        """The targets of N items as an objective takes them; `outputs` is C."""

    def strata(self, targets: Targets, names: Sequence[str]) -> Strata: ...

    def holds(self, target: object, outputs: int) -> bool:
        """Whether this is a target of the form."""

    def in_words(self, names: Sequence[str], target: object) -> str:
        """A target as a table of labels writes it."""

    def as_written(self, names: Sequence[str], cell: str) -> str:
        """The cell of a table as `in_words` would write it."""


class _OneClass:
    noun = "label"

    def tensor(self, targets: Targets, outputs: int) -> Tensor:  # noqa: ARG002
        """int64 `[N]`."""
        import numpy as np
        import torch

        return torch.from_numpy(np.array(targets, dtype=np.int64))

    def strata(self, targets: Targets, names: Sequence[str]) -> Strata:
        return Strata(targets, names)

    def holds(self, target: object, outputs: int) -> bool:
        return isinstance(target, int) and 0 <= target < outputs

    def in_words(self, names: Sequence[str], target: object) -> str:
        return names[cast(int, target)]

    def as_written(self, names: Sequence[str], cell: str) -> str:  # noqa: ARG002
        return cell


class _SetOfClasses:
    noun = "set of labels"

    def tensor(self, targets: Targets, outputs: int) -> Tensor:
        """float32 `[N, C]`: 1 for each class of the set, else 0."""
        import torch

        shown = torch.zeros(len(targets), outputs)
        for row, target in enumerate(targets):
            shown[row, list(cast(Sequence[int], target))] = 1
        return shown

    def strata(self, targets: Targets, names: Sequence[str]) -> Strata:
        return Strata(targets, names)

    def holds(self, target: object, outputs: int) -> bool:
        """Class indices, ascending."""
        if not isinstance(target, Sequence) or isinstance(target, str):
            return False
        return list(target) == sorted(set(target)) and all(_ONE.holds(number, outputs) for number in target)

    def in_words(self, names: Sequence[str], target: object) -> str:
        return label(names, cast(Sequence[int], target))

    def as_written(self, names: Sequence[str], cell: str) -> str:
        """In the order of `names`, whatever the order in the cell."""
        found = {name.strip() for name in cell.split(SEPARATOR)} - {""}
        return SEPARATOR.join([*(name for name in names if name in found), *sorted(found.difference(names))])


class _Numbers:
    noun = "number"

    def tensor(self, targets: Targets, outputs: int) -> Tensor:
        """float32 `[N, C]`."""
        import torch

        return torch.tensor(targets, dtype=torch.float32).reshape(len(targets), outputs)

    def strata(self, targets: Targets, names: Sequence[str]) -> Strata:
        """Ranges of about equally many items for each output."""
        columns = zip(*cast(Sequence[Sequence[float]], targets), strict=True)
        found: list[list[int]] = [[] for _ in targets]
        ranges: list[str] = []
        for name, column in zip(names, columns, strict=True):
            edges = _edges(column)
            for row, value in zip(found, column, strict=True):
                row.append(len(ranges) + bisect_right(edges, value))
            ends = [-math.inf, *edges, math.inf]
            ranges += [f"{name} {low:g} to {high:g}" for low, high in pairwise(ends)]
        return Strata([tuple(row) for row in found], ranges)

    def holds(self, target: object, outputs: int) -> bool:
        if not isinstance(target, Sequence) or isinstance(target, str) or len(target) != outputs:
            return False
        return all(isinstance(value, float) and math.isfinite(value) for value in target)

    def in_words(self, names: Sequence[str], target: object) -> str:  # noqa: ARG002
        return ", ".join(f"{value:g}" for value in cast(Sequence[float], target))

    def as_written(self, names: Sequence[str], cell: str) -> str:  # noqa: ARG002
        return cell


def _edges(values: Sequence[float]) -> list[float]:
    """What separates the ranges: equal numbers are in one of them."""
    ordered = sorted(values)
    count = min(MOST_STRATA, len(ordered) // ITEMS_OF_STRATUM)
    found = {ordered[place * len(ordered) // count] for place in range(1, count)}
    return sorted(found - {ordered[0]})


_ONE = _OneClass()
FORMS: Mapping[TargetForm, Form] = {"index": _ONE, "set": _SetOfClasses(), "number": _Numbers()}
