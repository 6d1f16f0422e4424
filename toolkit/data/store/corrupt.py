"""Items that cannot be decoded: an error, or skipped, counted and reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from toolkit.api.errors import DataError

LISTED = 20
"""Items of a split that are named at most."""


@dataclass(frozen=True)
class Corrupt:
    """What to do with items that cannot be decoded: `skip` them (up to `limit`, a share of the split) or stop."""

    skip: bool = False
    limit: float = 0.01


@dataclass
class LeftOut:
    """The items of a split of `count` that were skipped so far."""

    corrupt: Corrupt
    count: int
    reasons: dict[int, str] = field(default_factory=dict)

    def add(self, index: int, error: DataError) -> None:
        """Skip an item, if that is allowed; DataError where it is not, or where too many are skipped by now."""
        if not self.corrupt.skip:
            raise DataError(
                error.message,
                next_step="repair or remove the file, or skip such files with: --set input.on_corrupt=skip",
            ) from error
        self.reasons[index] = error.message  # in one step, so threads need no lock
        if len(self.reasons) > self.corrupt.limit * self.count:
            listed = "; ".join(list(self.reasons.values())[:5])
            raise DataError(
                f"{len(self.reasons)} of {self.count} items cannot be read, more than input.corrupt_limit = "
                f"{self.corrupt.limit:g} allows: {listed}",
                next_step="repair the data, or raise the limit with: --set input.corrupt_limit=SHARE",
            )

    def without(self, index: Tensor) -> Tensor:
        """The positions in `index` that are not skipped."""
        if not self.reasons:
            return index
        return torch.tensor([i for i in index.tolist() if i not in self.reasons], dtype=torch.int64)


def left_out_note(split: str, reasons: Mapping[int, str], count: int) -> str:
    """What a user reads of the items, of the `count` of a split, that were skipped."""
    named = "; ".join(list(reasons.values())[:LISTED])
    return f"{split}: skipped {len(reasons)} of {count} items that cannot be read: {named}"
