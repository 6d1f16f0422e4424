"""The order in which an epoch visits items that lie in blocks: few blocks are in use at a time, and each is read about
once.

Blocks are shuffled, then the items of `WINDOW` consecutive ones together. A batch takes its items from several places
of that order, called lanes: each rank computes a part of the batch, so it needs the blocks of its own lanes only. All
of this comes from the blocks, the batch size and (seed, epoch), never from the number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import overload

import torch
from torch import Tensor

from toolkit.system.draws import groups_of
from toolkit.system.randomness import derive, order

WINDOW = 16
"""Blocks whose items are shuffled together."""
MOST_LANES = 16
"""More ranks than that share lanes, and blocks with them."""
READ_TWICE = 0.05
"""Largest share of the blocks that are read twice, because one lane ends where another has begun."""
AHEAD = 4
"""Blocks ahead of evaluation, which goes from the first to the last."""


class Blocks:
    """Where the blocks of a split begin and end. `counts` are the items of each."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.ends = torch.as_tensor(counts, dtype=torch.int64).cumsum(0)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def items(self) -> int:
        """Items of all blocks."""
        return int(self.ends[-1]) if len(self) else 0

    def of(self, block: int) -> range:
        """The items of a block."""
        return range(int(self.ends[block - 1]) if block else 0, int(self.ends[block]))

    def at(self, item: int) -> int:
        """The block that an item lies in."""
        return int(torch.searchsorted(self.ends, item, right=True))

    def following(self, items: Tensor) -> list[int]:
        """The blocks of ascending `items`, and `AHEAD` more."""
        first, last = self.at(int(items[0])), self.at(int(items[-1]))
        return list(range(first, min(last + 1 + AHEAD, len(self))))


class BlockOrder:
    """The places of an epoch, 0 to N - 1, and the item at each."""

    def __init__(self, blocks: Blocks, seed: int, epoch: int, *, kept: int = 2 * MOST_LANES) -> None:
        self._blocks, self._place = blocks, (seed, "order", epoch)
        self.windows = list(order(len(blocks), seed, epoch).split(WINDOW))
        sizes = [sum(len(blocks.of(block)) for block in window.tolist()) for window in self.windows]
        self._ends = torch.tensor(sizes, dtype=torch.int64).cumsum(0)
        self._items = lru_cache(kept)(self._shuffled)

    def __len__(self) -> int:
        return self._blocks.items

    def at(self, place: int) -> int:
        """The window that a place lies in."""
        return int(torch.searchsorted(self._ends, place, right=True))

    def between(self, first: int, last: int) -> Tensor:
        """int64: the items at the places `first` to `last` - 1."""
        found = [torch.empty(0, dtype=torch.int64)]
        while first < last:
            window = self.at(first)
            start = int(self._ends[window - 1]) if window else 0
            found.append(self._items(window)[first - start : last - start])
            first = int(self._ends[window])
        return torch.cat(found)

    def _shuffled(self, window: int) -> Tensor:
        spans = [self._blocks.of(block) for block in self.windows[window].tolist()]
        items = torch.cat([torch.arange(span.start, span.stop) for span in spans])
        return items[order(len(items), derive(*self._place), window)]


class BlockBatches(Sequence[Tensor]):
    """The training items of `count` batches of `size`, and last what is left over. An item of the split is `each`
    consecutive training items."""

    def __init__(self, order: BlockOrder, size: int, count: int, *, each: int = 1) -> None:
        self._order, self._count, self._each = order, count, each
        items = len(order) * each
        self._size = min(size, items)
        self._left = items - self._size * count
        self._bounds = _lanes(self._size, len(order.windows))

    def __len__(self) -> int:
        return self._count + (self._left > 0)

    @overload
    def __getitem__(self, number: int) -> Tensor: ...

    @overload
    def __getitem__(self, number: slice) -> list[Tensor]: ...

    def __getitem__(self, number: int | slice) -> Tensor | list[Tensor]:
        if isinstance(number, slice):
            return [self[one] for one in range(len(self))[number]]
        if not 0 <= number < len(self):
            raise IndexError(number)
        if number == self._count:
            return self._between(self._size * self._count, self._size * self._count + self._left)
        return torch.cat([self._between(start, start + length) for start, length in self._spans(number)])

    def blocks(self, number: int, mine: slice) -> tuple[int, ...]:
        """The blocks that the places `mine` of the batches from the one before `number` on need soon, first those
        needed first."""
        now, later = list[int](), list[int]()
        for lane, (start, length) in enumerate(self._spans(number)):
            if self._bounds[lane] >= mine.stop or self._bounds[lane + 1] <= mine.start:
                continue
            first = self._order.at(max(start - length, 0) // self._each)
            last = self._order.at((start + length - 1) // self._each)
            now += range(first, last + 1)
            later += range(last + 1, min(last + 2, len(self._order.windows)))
        windows = dict.fromkeys([*now, *later])
        return tuple(block for window in windows for block in self._order.windows[window].tolist())

    def _spans(self, number: int) -> Iterator[tuple[int, int]]:
        """Of each lane the first place of a batch, and how many it takes."""
        for first, last in zip(self._bounds, self._bounds[1:], strict=False):
            length = last - first
            yield first * self._count + number * length, length

    def _between(self, first: int, last: int) -> Tensor:
        each = self._each
        items = self._order.between(first // each, -(-last // each))
        expanded = (items[:, None] * each + torch.arange(each)).flatten()
        return expanded[first % each :][: last - first]


def _lanes(size: int, windows: int) -> list[int]:
    """The places in a batch of `size` items at which its lanes begin, and where the last one ends. Lanes are whole
    groups, as the shares of ranks are, and as many of these in each: so a rank's share is whole lanes."""
    groups = int(groups_of(size).max()) + 1 if size else 1
    lanes = 1
    while 2 * lanes <= MOST_LANES and groups % (2 * lanes) == 0 and 2 * lanes - 1 <= READ_TWICE * windows:
        lanes *= 2
    starts = torch.searchsorted(groups_of(size), torch.arange(lanes) * (groups // lanes)).tolist()
    return [*starts, size]
