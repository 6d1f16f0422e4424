"""From shards to their index: every shard is read once, from its start to its end."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from toolkit.api.errors import DataError, counted, first_few
from toolkit.data.kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from toolkit.data.shards.index import ABSENT, Column, Index, Medium
from toolkit.data.shards.parquet import scan_parquet
from toolkit.data.shards.part import Part, numbers, other_column
from toolkit.data.shards.places import Shard, Shards
from toolkit.data.shards.tar import scan_tar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK_BYTES = 1 << 24
"""Bytes from which on a block of a tar ends. A block of a Parquet file is a row group."""
AT_ONCE = 4
"""Shards that are read at the same time."""


def scan(
    shards: Shards,
    columns: Sequence[str],
    *,
    content: str = "",
    block_bytes: int = BLOCK_BYTES,
    progress: Callable[[Shard], None] = lambda _: None,
) -> Index:
    """Read all shards and note where each image or video lies, and what it has in `columns`.

    content: of Parquet files, the column of encoded images or videos; empty: the only one that may hold them
    progress: called after each shard

    Raises DataError where a shard cannot be read, no sample has an image or a video, some have images and others
    videos, or a column is absent everywhere.
    """
    read = (
        partial(scan_tar, block_bytes=block_bytes) if shards.kind == "tar" else partial(scan_parquet, content=content)
    )
    parts: list[Part] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for shard, part in zip(shards.files, pool.map(partial(_scanned, read, columns), shards.files), strict=True):
            parts.append(part)
            progress(shard)
    index = _joined(shards, parts, columns)
    if not len(index):
        listed = ", ".join(f"{counted(count, 'sample')} {reason}" for reason, count in _skipped(parts).items())
        raise DataError(f"{shards.base}: no image or video found: {listed or 'the shards are empty'}", next_step=_FORM)
    for name, column in index.columns.items():
        if not column.values:
            raise _no_column(shards, parts, name)
    return index


_ITEMS = IMAGE_SUFFIXES | VIDEO_SUFFIXES
_FORM = "samples of a tar are files of one name: 0001.jpg or 0001.mp4, with 0001.cls or 0001.json"


def _scanned(read: Callable[[Shard, Sequence[str]], Part], columns: Sequence[str], shard: Shard) -> Part:
    try:
        return read(shard, columns)
    except DataError:
        raise
    except Exception as error:  # what tarfile and pyarrow raise of a damaged file
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        again = "fetch or write the file again"
        raise DataError(f"{shard.place}: cannot be read: {reason}", next_step=again) from error


def _joined(shards: Shards, parts: Sequence[Part], columns: Sequence[str]) -> Index:
    import numpy as np

    sides = [side for part in parts for side in part.sides]
    arrays: dict[str, NDArray[Any]] = {
        "shard": np.repeat(np.arange(len(parts), dtype=np.uint32), [len(part.starts) for part in parts]),
        "start": np.array([start for part in parts for start in part.starts], dtype=np.uint64),
        "bytes": np.array([size for part in parts for size in part.sizes], dtype=np.uint32),
        "items": np.array([count for part in parts for count in part.items], dtype=np.uint32),
        "digest": np.frombuffer(b"".join(one for part in parts for one in part.digests), np.uint8).reshape(-1, 16),
        "offset": _in_one(part.offsets for part in parts),
        "length": _in_one(part.lengths for part in parts),
        "content": _in_one(part.contents for part in parts),
        "name_end": np.cumsum(_in_one(part.name_lengths for part in parts), dtype=np.uint64),
        "names": np.frombuffer(b"".join(part.names for part in parts), np.uint8),
    }
    return Index(
        kind=shards.kind,
        base=shards.base,
        shards=tuple(shard.name for shard in shards.files),
        medium=_medium(shards, parts),
        content=next((part.content for part in parts if part.content), ""),
        side=int(median(sides)) if sides else None,
        notes=tuple(f"skipped {counted(count, 'sample')} {why}" for why, count in _skipped(parts).items()),
        columns={name: _column(shards, parts, name) for name in columns},
        arrays=arrays,
    )


def _in_one(numbers: Iterable[array[int]]) -> NDArray[np.uint32]:
    import numpy as np

    return np.concatenate([np.frombuffer(one, np.uint32) for one in numbers])


def _skipped(parts: Sequence[Part]) -> Counter[str]:
    return sum((part.skipped for part in parts), Counter())


def _medium(shards: Shards, parts: Sequence[Part]) -> Medium:
    """What all samples are; of those that begin like neither, an image, whose decoder then says what is wrong."""
    first: dict[Medium, str] = {}
    for shard, part in zip(shards.files, parts, strict=True):
        for medium, name in part.media.items():
            first.setdefault(medium, f"{shard.name}:{name}")
    if len(first) > 1:
        raise DataError(
            f"{shards.base}: both images ({first['image']}) and videos ({first['video']}) found",
            next_step="write them into shards of their own, and give one of the two folders",
        )
    return next(iter(first), "image")


def _column(shards: Shards, parts: Sequence[Part], name: str) -> Column:
    import numpy as np

    named = {part.class_names.get(name) for part in parts if part.offsets}
    if len(named) > 1:
        raise DataError(f"{shards.base}: column {name} has other class names in other files", next_step=_ONE_SET)
    values = {value for part in parts for value in part.values.get(name, ())}
    if len({type(value) for value in values}) > 1:
        raise DataError(f"{shards.base}: column {name} has numbers and texts", next_step=_ONE_SET)
    ordered = sorted(values, key=lambda value: (isinstance(value, str), value))
    codes = {value: code for code, value in enumerate(ordered)}
    found = []
    for part in parts:
        own = np.array([codes[value] for value in part.values.get(name, ())] + [ABSENT], dtype=np.uint32)
        of_part = np.frombuffer(part.codes.get(name, numbers()), np.uint32)
        found.append(own[np.minimum(of_part, len(own) - 1)])
    return Column(np.concatenate(found), tuple(ordered), next(iter(named), None))


_ONE_SET = "give the shards of one dataset"


def _no_column(shards: Shards, parts: Sequence[Part], name: str) -> DataError:
    seen = sorted({known for part in parts for known in part.seen if f".{known}" not in _ITEMS})
    return DataError(
        f"{shards.base}: no sample has {name}; the columns are {first_few(seen, 10) or 'none'}",
        next_step=other_column(shards.base, name, seen),
    )
