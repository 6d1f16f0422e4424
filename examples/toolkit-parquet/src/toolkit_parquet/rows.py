"""Rows of Parquet files, read one by one in any order by any number of threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
from toolkit.api.errors import DataError
from toolkit.data.images import decode_image
from torch import Tensor

from toolkit_parquet.columns import opened, read_images

KEPT = 2**30
"""Bytes of row groups that are kept: a file is read by whole row groups, and neighbours are often asked for soon."""


_Key: TypeAlias = tuple[Path, int]


class Place(NamedTuple):
    """Where an image lies."""

    path: Path
    row_group: int
    row: int
    """Within the row group."""


@dataclass
class _RowGroup:
    lock: threading.Lock = field(default_factory=threading.Lock)
    images: pa.ChunkedArray | None = None
    counted: int = 0
    """Bytes."""


class RowGroups:
    """A column of images, by row group, for all threads together: those that are expected are kept, and what was read
    last of others.

    Pickled, it starts with nothing kept.
    """

    def __init__(self, column: str, kept: int = KEPT) -> None:
        self._column = column
        self._limit = kept
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, _RowGroup] = OrderedDict()
        self._held = 0
        self._expected: frozenset[_Key] = frozenset()

    def expect(self, keys: Collection[_Key]) -> None:
        """Keep these row groups once they are read."""
        with self._lock:
            self._expected = frozenset(keys)
            self._forget()

    def __reduce__(self) -> tuple[Any, ...]:
        return RowGroups, (self._column, self._limit)

    def read(self, place: Place) -> bytes | None:
        """The encoded image at a place; None where the row has none."""
        key = place.path, place.row_group
        group = self._group(key)
        with group.lock:  # one thread reads it, the others wait for it
            if group.images is None:
                with opened(place.path) as file:
                    group.images = read_images(file, place.row_group, self._column)
                self._count(key, group, group.images.nbytes)
        found: bytes | None = group.images[place.row].as_py()
        return found

    def _group(self, key: _Key) -> _RowGroup:
        with self._lock:
            group = self._kept.setdefault(key, _RowGroup())
            self._kept.move_to_end(key)
            return group

    def _count(self, key: _Key, group: _RowGroup, size: int) -> None:
        """Count a group that was read, and forget those that were asked for longest ago, but never the last one."""
        with self._lock:
            if self._kept.get(key) is group:
                group.counted = size
                self._held += size
            self._forget()

    def _forget(self) -> None:
        for key in [one for one in self._kept if one not in self._expected][:-1]:
            if self._held <= self._limit:
                return
            self._held -= self._kept.pop(key).counted


@dataclass(frozen=True)
class ParquetImages:
    """A split of N images in rows of Parquet files. Its blocks are the row groups: `toolkit.api.contracts.Blocked`."""

    ids: tuple[str, ...]
    targets: tuple[int, ...]
    keys: tuple[str, ...]
    places: tuple[Place, ...]
    row_groups: RowGroups

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _groups(self) -> list[tuple[_Key, int]]:
        """The row groups, in order, and how many of the images lie in each."""
        alike = groupby(self.places, key=lambda place: (place.path, place.row_group))
        return [(key, sum(1 for _ in places)) for key, places in alike]

    @property
    def blocks(self) -> Sequence[int]:
        return [count for _, count in self._groups]

    def expect(self, blocks: Sequence[int]) -> None:
        """Keep what is there of these row groups, whatever they take, and forget the others."""
        self.row_groups.expect([self._groups[block][0] for block in blocks])

    def read(self, index: int) -> Tensor:
        """Pixels, uint8 `[3, H, W]`; DataError naming file and row where they cannot be decoded."""
        place = self.places[index]
        encoded = self.row_groups.read(place)
        if not encoded:
            raise self._unreadable(index, "has no image")
        try:
            return decode_image(bytes(encoded))
        except ValueError as error:
            raise self._unreadable(index, f"cannot be decoded: {error}") from error

    def select(self, positions: Sequence[int]) -> ParquetImages:
        """The split of the items at these positions."""
        return ParquetImages(
            tuple(self.ids[position] for position in positions),
            tuple(self.targets[position] for position in positions),
            tuple(self.keys[position] for position in positions),
            tuple(self.places[position] for position in positions),
            self.row_groups,
        )

    def _unreadable(self, index: int, what: str) -> DataError:
        row = self.ids[index].rpartition(":")[2]
        return DataError(
            f"row {row} {what}",
            path=self.places[index].path,
            next_step='Write the file again, or set input.on_corrupt = "skip".',
        )
