"""The bytes of blocks, fetched ahead of use."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from toolkit.api.errors import DataError, setting
from toolkit.data.shards.cache import BlockCache, digest_of
from toolkit.data.shards.index import Index
from toolkit.data.shards.places import file_system, is_local, joined, reaching, read_range

FETCHES = 4
"""Blocks that are fetched at the same time."""


class BlockReader:
    """The bytes of blocks: in place where tars lie on a disk, else through the cache. For all splits of a dataset."""

    def __init__(self, index: Index, base: str, cache: BlockCache) -> None:
        self._index, self._base, self._cache = index, base, cache
        self._in_place = index.kind == "tar" and is_local(base)
        self._pool = ThreadPoolExecutor(FETCHES, thread_name_prefix="fetch")
        self._lock = threading.Lock()
        self._coming: dict[int, Future[Path]] = {}
        self._size_of = lru_cache(maxsize=None)(self._asked_size)

    def read(self, block: int, offset: int, length: int) -> bytes:
        """A part of a block. Waits for the block where it is not here yet."""
        arrays = self._index.arrays
        if self._in_place:
            place = joined(self._base, self._index.shard_of(block)).removeprefix("file://")
            return _part(Path(place), int(arrays["start"][block]) + offset, length)
        while True:
            coming = self._begun(block)
            try:
                return _part(coming.result(), offset, length)
            except (CancelledError, FileNotFoundError):  # it is not expected any more, or another needed the room
                with self._lock:
                    if self._coming.get(block) is coming:
                        del self._coming[block]

    def expect(self, blocks: Sequence[int]) -> None:
        """Fetch these blocks in this order, and no others. Raises DataError where the cache has no room for them."""
        if self._in_place:
            return
        needed = sum(self._index.arrays["bytes"][list(blocks)].tolist())
        if needed > self._cache.limit:
            room = -(-needed * 12 // 10) / 2**30
            raise DataError(
                f"{len(blocks)} blocks of {needed / len(blocks) / 2**20:.1f} MiB are in use at a time, but "
                f"input.cache_gb has room for {self._cache.limit / 2**30:.3g} GiB",
                next_step=f"make room: {setting('input.cache_gb', f'{room:.2g}')}",
            )
        with self._lock:
            for block in self._coming.keys() - set(blocks):
                self._coming.pop(block).cancel()
        for block in blocks:
            self._begun(block)

    def _begun(self, block: int) -> Future[Path]:
        with self._lock:
            if block not in self._coming:
                self._coming[block] = self._pool.submit(self._fetched, block)
            return self._coming[block]

    def _fetched(self, block: int) -> Path:
        size, digest = int(self._index.arrays["bytes"][block]), self._index.digest_of(block)
        return self._cache.get(digest, size, lambda: self._checked(block, size, digest))

    def _checked(self, block: int, size: int, digest: str) -> bytes:
        place = joined(self._base, self._index.shard_of(block))
        start = int(self._index.arrays["start"][block])
        if self._index.kind == "tar":
            data = read_range(place, start, start + size)
        else:
            from toolkit.data.shards.parquet import read_row_group

            data = read_row_group(place, self._size_of(place), start, self._index.content)
        if len(data) != size or digest_of(data) != digest:
            raise DataError(
                f"{place}: changed since it was indexed",
                next_step=f"python -m toolkit data index {self._base} --force",
            )
        return data

    def _asked_size(self, place: str) -> int:
        with reaching(place):
            return int(file_system(place).info(place)["size"])


def _part(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)
