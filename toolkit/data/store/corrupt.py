"""Items that cannot be decoded are errors, or skipped, counted and reported; damage in part of one is reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from toolkit.api.errors import DataError, counted
from toolkit.data.damage import Damage

LISTED = 20
"""Items of a split that are named at most."""


@dataclass(frozen=True)
class Corrupt:
    """What to do with items that cannot be decoded: `skip` them (up to `limit`, a share of the split) or stop."""

    skip: bool = False
    limit: float = 0.01
    damaged_share: float = 0.5
    """Share of a video's frames that cannot be decoded from which on the video counts as one."""

    def accept(self, name: str, found: Sequence[Damage]) -> Damage | None:
        """The damage that reading an item found, if any. Raises DataError where it is too much."""
        damage = max(found, key=lambda one: one.share, default=None)
        if damage is not None and damage.share >= self.damaged_share:
            raise DataError(
                f"{name}: {damage}, and input.damaged_share = {self.damaged_share:g}",
                next_step="repair or remove the file, or skip such files with: --set input.on_corrupt=skip",
            )
        return damage


Met: TypeAlias = tuple[dict[int, str], dict[int, tuple[int, int]]]
"""What reading a split has met so far, as plain values that a checkpoint may hold: from the index of an item to why it
was skipped, and to the fields of its `Damage`."""


@dataclass
class Skipped:
    """The items of a split, which has these `ids`, that were skipped so far, or are damaged in part."""

    corrupt: Corrupt
    ids: Sequence[str]
    reasons: dict[int, str] = field(default_factory=dict)
    damaged: dict[int, Damage] = field(default_factory=dict)
    """Of items that were not skipped."""

    def __contains__(self, index: int) -> bool:
        """Whether an item was skipped."""
        return index in self.reasons

    def add(self, index: int, error: DataError) -> None:
        """Skip an item, if that is allowed; DataError where it is not, or where too many are skipped by now."""
        if not self.corrupt.skip:
            raise DataError(
                error.message,
                next_step="repair or remove the file, or skip such files with: --set input.on_corrupt=skip",
            ) from error
        self.reasons[index] = error.message  # in one step, so threads need no lock
        if len(self.reasons) > self.corrupt.limit * len(self.ids):
            listed = "; ".join(list(self.reasons.values())[:5])
            raise DataError(
                f"{len(self.reasons)} of {len(self.ids)} items cannot be read, more than input.corrupt_limit = "
                f"{self.corrupt.limit:g} allows: {listed}",
                next_step="repair the data, or raise the limit with: --set input.corrupt_limit=SHARE",
            )

    def accept(self, index: int, found: Sequence[Damage]) -> None:
        """Take note of the damage that reading an item found. Raises DataError where it is too much."""
        damage = self.corrupt.accept(self.ids[index], found)
        if damage is not None:
            self.damaged[index] = damage

    def met(self) -> Met:
        """What was met so far."""
        return dict(self.reasons), {index: (one.frames, one.total) for index, one in dict(self.damaged).items()}

    def merge(self, met: Met) -> None:
        """Add what another reading of this split has met. Raises IndexError for an item that the split lacks."""
        reasons, damaged = met
        for index in (*reasons, *damaged):
            self.ids[index]
        self.reasons.update(reasons)
        self.damaged.update({index: Damage(*one) for index, one in damaged.items()})

    def without(self, index: Tensor) -> Tensor:
        """The positions in `index` that are not skipped."""
        if not self.reasons:
            return index
        return torch.tensor([i for i in index.tolist() if i not in self.reasons], dtype=torch.int64)

    def notes(self, split: str) -> Iterator[str]:
        """What a user reads of the skipped and the damaged items of this split."""
        if self.reasons:
            yield skipped_note(split, self.reasons, len(self.ids))
        damaged = {self.ids[index]: one for index, one in sorted(self.damaged.items()) if index not in self.reasons}
        if damaged:
            listed = "; ".join(f"{name}: {one}" for name, one in list(damaged.items())[:LISTED])
            yield f"{split}: {counted(len(damaged), 'item')} of {len(self.ids):,} damaged in part: {listed}"


def skipped_note(split: str, reasons: Mapping[int, str], count: int) -> str:
    """What a user reads of the items, of the `count` of a split, that were skipped."""
    named = "; ".join(list(reasons.values())[:LISTED])
    return f"{split}: skipped {len(reasons)} of {count} items that cannot be read: {named}"
