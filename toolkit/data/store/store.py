"""What batches are made of: the pixels of a split, however they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from toolkit.api.contracts import Blocked
from toolkit.data.blocks import Blocks

if TYPE_CHECKING:
    from toolkit.api.contracts import Split, VideoSplit
    from toolkit.data.store.corrupt import Skipped


class Store(Protocol):
    """A split's pixels by index, uint8 of the spec's stored size, channels last in memory.

    `fetch`, `views` and `drawn` give pixels and the index without the items that were skipped. They raise DataError for
    an item that cannot be decoded and may not be skipped.
    """

    split: Split | VideoSplit
    skipped: Skipped
    sides: dict[int, int]
    """The shorter side, in pixels, of each item that this process decoded."""

    def __len__(self) -> int:
        return len(self.split)

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, ..., 3, S, S]`: the items at `index`; of a video its middle."""
        ...

    def views(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """`[B * V, ..., 3, S, S]`: the V views of evaluation of each item, one item after the other. By default an item
        has one view."""
        return self.fetch(index)

    def drawn(self, items: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """`[B, ..., 3, S, S]`: the training items with these numbers, and the numbers without the skipped ones. What is
        drawn for an item comes from `seed` and its number. By default nothing is."""
        del seed
        return self.fetch(items)

    @cached_property
    def blocks(self) -> Blocks | None:
        """Of a split whose items lie in blocks; None of others."""
        return Blocks(self.split.blocks) if isinstance(self.split, Blocked) else None

    def expect(self, blocks: Sequence[int]) -> None:
        """Let a split prepare for the items of these blocks."""
        if isinstance(self.split, Blocked):
            self.split.expect(blocks)

    def begin(self, index: Tensor) -> None:
        """Have the items at `index` decoded meanwhile. By default they are when they are fetched."""
        del index

    def keep(self, index: Tensor) -> None:
        """Decode the items at `index` that are not kept yet, where there is room to keep them. By default none is."""
        del index

    def resident(self, device: torch.device, share: float) -> bool:
        """Whether fetching is a copy within `device`'s memory. What fits into this share of the free memory of a CUDA
        device is moved there."""
        del device, share
        return False
