"""A split of items in shards, whatever they are: their names, targets and blocks, by arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from toolkit.data.sequences import ArrayTargets, MadeTexts
from toolkit.data.shards.index import Index
from toolkit.data.shards.reader import BlockReader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ShardItems:
    """N items of an index, at the ascending places `items`, with these targets."""

    index: Index
    reader: BlockReader
    items: NDArray[np.integer[Any]]
    labels: NDArray[np.integer[Any]]
    """`[N]`: class indices."""

    def __len__(self) -> int:
        return len(self.items)

    @property
    def targets(self) -> ArrayTargets:
        return ArrayTargets(self.labels)

    @property
    def ids(self) -> MadeTexts:
        """The shard of each and its name there, `train-000.tar:00017`."""
        return MadeTexts(len(self), self.name)

    @property
    def keys(self) -> MadeTexts:
        """The digest of the block of each, and its place there."""
        return MadeTexts(len(self), self.key)

    @cached_property
    def _found(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The blocks that have an item, and how many of each."""
        import numpy as np

        ends = np.searchsorted(self.items, self.index.block_ends)
        counts = np.diff(ends, prepend=0)
        return np.flatnonzero(counts), counts[counts > 0]

    @property
    def blocks(self) -> Sequence[int]:
        return ArrayTargets(self._found[1])

    def expect(self, blocks: Sequence[int]) -> None:
        """Fetch these blocks ahead of use."""
        self.reader.expect(self._found[0][list(blocks)].tolist() if blocks else [])

    def name(self, at: int) -> str:
        return self.index.name_of(int(self.items[at]))

    def key(self, at: int) -> str:
        item = int(self.items[at])
        return f"{self.index.digest_of(self.index.block_of(item))}-{int(self.index.arrays['offset'][item])}"

    def content(self, at: int) -> bytes:
        """The encoded image or video."""
        item, arrays = int(self.items[at]), self.index.arrays
        return self.reader.read(self.index.block_of(item), int(arrays["offset"][item]), int(arrays["length"][item]))
