"""From Parquet files to a list of their labelled rows."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from toolkit.api.errors import DataError

from toolkit_parquet.columns import Columns, Labels, opened, read_images, read_labels
from toolkit_parquet.rows import ParquetImages, Place, RowGroups
from toolkit_parquet.shards import Shard


@dataclass(frozen=True)
class Listing:
    """All labelled rows of a dataset."""

    items: ParquetImages
    classes: tuple[str, ...]
    splits: tuple[str | None, ...]
    """Which split each item's file is of; None where its name does not say."""
    notes: tuple[str, ...]

    def identical(self) -> list[list[int]]:
        """Positions of each set of items with the same bytes."""
        alike: dict[str, list[int]] = defaultdict(list)
        for position, key in enumerate(self.items.keys):
            alike[key].append(position)
        return [positions for positions in alike.values() if len(positions) > 1]


def list_rows(shards: Sequence[Shard], columns: Columns) -> Listing:
    """The labelled rows of all files, in order. Every image is read once, to know it again: nothing is decoded.

    Raises DataError where a file cannot be read, lacks a column, or names other classes than the first.
    """
    labels = [read_labels(shard.path, columns) for shard in shards]
    classes = _classes(shards, labels, columns.label)
    targets = {name: target for target, name in enumerate(classes)}
    ids, keys, places, found, splits = [], [], [], [], []
    for shard, of_shard in zip(shards, labels, strict=True):
        for row, (value, (place, key)) in enumerate(zip(of_shard.values, _scan(shard, columns.image), strict=True)):
            if value is None:
                continue
            ids.append(f"{shard.name}:{row}")
            keys.append(key)
            places.append(place)
            found.append(targets[str(value)])
            splits.append(shard.split)
    items = ParquetImages(tuple(ids), tuple(found), tuple(keys), tuple(places), RowGroups(columns.image))
    return Listing(items, classes, tuple(splits), tuple(_unlabelled(shards, labels)))


def _scan(shard: Shard, column: str) -> Iterator[tuple[Place, str]]:
    """Where each image of a file lies, and a key that changes when its bytes do."""
    with opened(shard.path) as file:
        count = file.num_row_groups
    with ThreadPoolExecutor() as pool:
        for number, digests in enumerate(pool.map(lambda number: _digests(shard.path, number, column), range(count))):
            for row, digest in enumerate(digests):
                yield Place(shard.path, number, row), digest or f"{shard.name} {number} {row} without image"


def _digests(path: Path, row_group: int, column: str) -> list[str | None]:
    with opened(path) as file:
        images = read_images(file, row_group, column)
    return [hashlib.blake2b(one.as_buffer(), digest_size=16).hexdigest() if one.is_valid else None for one in images]


def _classes(shards: Sequence[Shard], labels: Sequence[Labels], column: str) -> tuple[str, ...]:
    """As the files name them, or else the labels in order."""
    first = labels[0].names
    for shard, of_shard in zip(shards, labels, strict=True):
        if of_shard.names != first:
            raise DataError(
                f"column {column} has other class names than {shards[0].name}", path=shard.path, next_step=_ONE_SET
            )
    if first:
        return first
    values = {value for of_shard in labels for value in of_shard.values if value is not None}
    if len({type(value) for value in values}) > 1:
        raise DataError(
            f"column {column} holds numbers here and texts elsewhere", path=shards[0].path, next_step=_ONE_SET
        )
    return tuple(str(value) for value in sorted(values, key=lambda value: (isinstance(value, str), value)))


_ONE_SET = "Give a folder with the files of one dataset."


def _unlabelled(shards: Sequence[Shard], labels: Sequence[Labels]) -> Iterator[str]:
    counts = Counter({shard.name: of_shard.values.count(None) for shard, of_shard in zip(shards, labels, strict=True)})
    if total := counts.total():
        files = [name for name, count in counts.items() if count]
        yield f"skipped {total} rows without a label, of {', '.join(files[:3])}{' and others' if files[3:] else ''}"
