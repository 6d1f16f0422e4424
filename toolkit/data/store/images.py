"""The images of a split by index, each decoded at most once while there is room to keep it.

A store never changes what is computed, only what it costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from toolkit.api.contract_checks import read_image_of
from toolkit.api.errors import DataError
from toolkit.data.damage import hearing_of_damage
from toolkit.data.store.corrupt import Corrupt, Skipped
from toolkit.data.store.resampling import to_square
from toolkit.data.store.storage import Memory, Storage, stored_shape
from toolkit.data.store.store import Store

if TYPE_CHECKING:
    from toolkit.api.contracts import DataSpec, Split


@dataclass
class ImageStore(Store):
    """A split's pixels by index, each item decoded at most once while there is room to keep it."""

    split: Split
    spec: DataSpec
    storage: Storage | None
    """None: nothing fits, every epoch decodes again."""
    workers: int
    corrupt: Corrupt = field(default_factory=Corrupt)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        self.skipped = Skipped(self.corrupt, self.split.ids)
        self.sides = {}
        self._resident: Tensor | None = None
        self._complete = False
        self._under_way: dict[int, Future[None]] = {}

    @property
    def complete(self) -> bool:
        """Whether every item is decoded and kept, so that `fetch` is a copy."""
        if not self._complete and self.storage is not None:
            self._complete = all(self.storage.has(i) or i in self.skipped for i in range(len(self)))
            if self._complete:
                # Idle or not, each thread holds OpenMP helpers of its own. With more of them than cores OpenMP sends
                # idle ones to sleep, those of the training step too, and waking them slows every operation down.
                self._pool.shutdown()
        return self._complete

    def expect(self, blocks: Sequence[int]) -> None:
        """Let a split prepare for those of these blocks that have an item which is not kept."""
        if not self._complete:
            super().expect([block for block in blocks if self._lacks(block)])

    def _lacks(self, block: int) -> bool:
        if self.storage is None or self.blocks is None:
            return True
        return any(not self.storage.has(item) and item not in self.skipped for item in self.blocks.of(block))

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 `[B, ..., 3, S, S]` (channels last in memory) of the items at `index`, and the index without those
        that were skipped. Raises DataError for an item that cannot be decoded and may not be skipped."""
        if self._resident is not None:
            index = self.skipped.without(index)
            return _gathered(self._resident, index.to(self._resident.device, non_blocking=True)), index
        if self.storage is None:
            return self._decode_afresh(index)
        self.keep(index)
        index = self.skipped.without(index)
        return _gathered(self.storage.pixels, index), index

    def keep(self, index: Tensor) -> None:
        """Decode the items at `index` that are not kept yet, where there is room to keep them."""
        self.begin(index)
        begun = {self._under_way.pop(i) for i in index.tolist() if i in self._under_way}
        wait(begun)  # all of them, before the error of one is raised
        for decoding in begun:
            decoding.result()

    def begin(self, index: Tensor) -> None:
        """Have the items at `index` decoded meanwhile; `keep` and `fetch` then wait for what is left of it."""
        storage = self.storage
        if storage is None or self._complete:
            return
        begun = self._under_way
        asked = [i for i in index.tolist() if not storage.has(i) and i not in self.skipped and i not in begun]
        for first in range(min(self.workers, len(asked))):
            share = asked[first :: self.workers]
            begun |= dict.fromkeys(share, self._pool.submit(self._decode_into, storage, share))

    def resident(self, device: torch.device, share: float) -> bool:
        """Whether all items lie in memory, that of `device`: on CUDA they are moved there for good where they fit."""
        if not isinstance(self.storage, Memory) or not self.complete:
            return False
        if device.type != "cuda":
            return device.type == "cpu"
        if self._resident is None and self.storage.pixels.nbytes <= share * torch.cuda.mem_get_info(device)[0]:
            self._resident = self.storage.pixels.to(device)
        return self._resident is not None

    def _decode_afresh(self, index: Tensor) -> tuple[Tensor, Tensor]:
        asked = self.skipped.without(index)
        items = list(self._pool.map(self._decode, asked.tolist()))
        decoded = [item for item in items if item is not None]
        there = torch.tensor([item is not None for item in items], dtype=torch.bool)
        shape = (0, *stored_shape(self.spec))
        pixels = torch.stack(decoded) if decoded else torch.empty(shape, dtype=torch.uint8)
        return pixels.movedim(-1, -3), asked[there]

    def _decode_into(self, storage: Storage, share: Sequence[int]) -> None:
        for index in share:
            item = self._decode(index)
            if item is not None:
                storage.put(index, item)

    def _decode(self, index: int) -> Tensor | None:
        try:
            with hearing_of_damage() as found:
                image = read_image_of(self.split, index)
            self.skipped.accept(index, found)
        except DataError as error:
            self.skipped.add(index, error)
            return None
        self.sides[index] = min(image.shape[-2:])
        return to_square(image, self.spec.stored_size, self.spec.fit).movedim(-3, -1)


def _gathered(pixels: Tensor, index: Tensor) -> Tensor:
    """`pixels[index]`, channels first. `index_select` copies whole items: ten times as fast as indexing on a CPU."""
    return pixels.index_select(0, index).movedim(-1, -3)
