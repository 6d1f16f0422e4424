"""From shards to their index: every shard is read once, from its start to its end."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import tarfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from toolkit.api.errors import DataError, counted, first_few, nearest, setting
from toolkit.data.kinds import IMAGE_SUFFIXES
from toolkit.data.shards.index import ABSENT, Column, Index, Value
from toolkit.data.shards.places import RangeFile, Shard, Shards

BLOCK_BYTES = 1 << 24
"""Bytes from which on a block of a tar ends. A block of a Parquet file is a row group."""
AT_ONCE = 4
"""Shards that are read at the same time."""
MEASURED = 3
"""Images of each shard whose sides are looked at."""
Row: TypeAlias = Mapping[str, Value | None]


def _numbers() -> array[int]:
    return array("I")


@dataclass
class Part:
    """What one shard holds, in arrays: there may be many samples."""

    image: str = ""
    """Of a Parquet file, the column of images."""
    starts: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    """Of each block; see `Index.arrays`."""
    offsets: array[int] = field(default_factory=_numbers)
    lengths: array[int] = field(default_factory=_numbers)
    contents: array[int] = field(default_factory=_numbers)
    name_lengths: array[int] = field(default_factory=_numbers)
    names: bytearray = field(default_factory=bytearray)
    codes: dict[str, array[int]] = field(default_factory=dict)
    values: dict[str, dict[Value, int]] = field(default_factory=dict)
    """The code of each value, by column."""
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    """Columns of the first sample, whether or not they are kept."""
    sides: list[int] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    """Samples that are no items, by reason."""

    def add(self, offset: int, image: bytes, name: str, row: Row) -> None:
        """The next item: its place in the block, its encoded image, and what it has in each column."""
        self.offsets.append(offset)
        self.lengths.append(len(image))
        self.contents.append(int.from_bytes(_digest(image, 4), "little"))
        encoded = name.encode("utf-8", "surrogateescape")
        self.names += encoded
        self.name_lengths.append(len(encoded))
        for column, value in row.items():
            codes = self.values.setdefault(column, {})
            code = int(ABSENT) if value is None else codes.setdefault(value, len(codes))
            self.codes.setdefault(column, _numbers()).append(code)
        if len(self.sides) < MEASURED and (side := _short_side(image)):
            self.sides.append(side)

    def close_block(self, start: int, data: bytes) -> None:
        """All items since the last block are one. One without an item is dropped."""
        items = len(self.offsets) - sum(self.items)
        if items:
            self.starts.append(start)
            self.sizes.append(len(data))
            self.items.append(items)
            self.digests.append(_digest(data, 16))


def scan(
    shards: Shards,
    columns: Sequence[str],
    *,
    image: str = "",
    block_bytes: int = BLOCK_BYTES,
    progress: Callable[[Shard], None] = lambda _: None,
) -> Index:
    """Read all shards and note where each image lies, and what it has in `columns`.

    image: of Parquet files, the column of images; empty: the only one that has images
    progress: called after each shard

    Raises DataError where a shard cannot be read, no sample has an image, or a column is absent everywhere.
    """
    read = partial(scan_tar, block_bytes=block_bytes) if shards.kind == "tar" else partial(_parquet(), image=image)
    parts: list[Part] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for shard, part in zip(shards.files, pool.map(partial(_scanned, read, columns), shards.files), strict=True):
            parts.append(part)
            progress(shard)
    index = _joined(shards, parts, columns)
    if not len(index):
        listed = ", ".join(f"{counted(count, 'sample')} {reason}" for reason, count in _skipped(parts).items())
        raise DataError(f"{shards.base}: no image found: {listed or 'the shards are empty'}", next_step=_FORM)
    for name, column in index.columns.items():
        if not column.values:
            raise _no_column(shards, parts, name)
    return index


_FORM = "samples of a tar are files of one name: 0001.jpg with 0001.cls or 0001.json"


def _scanned(read: Callable[[Shard, Sequence[str]], Part], columns: Sequence[str], shard: Shard) -> Part:
    try:
        return read(shard, columns)
    except DataError:
        raise
    except Exception as error:  # what tarfile and pyarrow raise of a damaged file
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        again = "fetch or write the file again"
        raise DataError(f"{shard.place}: cannot be read: {reason}", next_step=again) from error


def _parquet() -> Callable[..., Part]:
    from toolkit.data.shards.parquet import scan_parquet

    return scan_parquet


def scan_tar(shard: Shard, columns: Sequence[str], *, block_bytes: int) -> Part:
    """The samples of a tar: consecutive files whose names are equal up to the first dot."""
    file, part = RangeFile(shard.place, shard.size, held=True), Part()
    start = end = 0
    for name, members in _samples(file):
        end = members[-1].offset_data + members[-1].size
        image = next((one for one in members if _suffix(one.name) in IMAGE_SUFFIXES), None)
        if image is None:
            part.skipped["without an image"] += 1
        else:
            data = file.between(image.offset_data, image.offset_data + image.size)
            part.add(image.offset_data - start, data, name, _row(file, members, columns, part.seen))
        if end - start >= block_bytes:
            part.close_block(start, file.between(start, end))
            file.release(end)
            start = end
    part.close_block(start, file.between(start, end))
    return part


def _samples(file: RangeFile) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    """The regular files of a tar by sample."""
    with tarfile.open(fileobj=file, mode="r:") as tar:  # type: ignore[call-overload] - a raw file is enough
        name, members = "", list[tarfile.TarInfo]()
        for member in tar:
            tar.members = []  # type: ignore[attr-defined] - it would keep all of them
            if not member.isreg() or member.issparse():
                continue
            if (key := _key(member.name)) != name and members:
                yield name, members
                members = []
            name = key
            members.append(member)
        if members:
            yield name, members
        rest = file.between(min(tar.offset, file.seek(0, io.SEEK_END)), min(tar.offset + 512, file.tell()))
        if rest.strip(b"\0"):  # tarfile takes a damaged header for the end
            raise tarfile.ReadError(f"damaged at byte {tar.offset:,}")


def _key(name: str) -> str:
    folder, slash, file = name.removeprefix("./").rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _suffix(name: str) -> str:
    return f".{name.rpartition('.')[2].lower()}"


def _row(file: RangeFile, members: Sequence[tarfile.TarInfo], columns: Sequence[str], seen: set[str]) -> Row:
    """What a sample has in these columns: in a file with the column as suffix, or under that key of its JSON."""

    def text(member: tarfile.TarInfo) -> str:
        return file.between(member.offset_data, member.offset_data + member.size).decode("utf-8").strip()

    by_suffix = {one.name.rpartition("/")[2].partition(".")[2].lower(): one for one in members}
    found: dict[str, Any] = {}
    if "json" in by_suffix and (not seen or not by_suffix.keys() >= set(columns)):
        loaded = json.loads(text(by_suffix["json"]))
        found = loaded if isinstance(loaded, dict) else {}
    if not seen:
        seen.update((by_suffix.keys() - {"json"}) | found.keys())
    row: dict[str, Value | None] = {}
    for column in columns:
        value = text(by_suffix[column]) if column in by_suffix else found.get(column)
        row[column] = _plain(column, value)
    return row


def _plain(column: str, value: object) -> Value | None:
    """A label as an integer if it is one, else as text."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{column} holds {type(value).__name__}, expected integers or texts")
    return int(value) if isinstance(value, str) and value.lstrip("-").isdecimal() else value


def _digest(data: bytes, size: int) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()


def _short_side(image: bytes) -> int | None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image)) as opened:
            return min(opened.size)
    except Exception:  # whether it may be damaged is decided when it is read
        return None


def _joined(shards: Shards, parts: Sequence[Part], columns: Sequence[str]) -> Index:
    sides = [side for part in parts for side in part.sides]
    arrays = {
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
        image=next((part.image for part in parts if part.image), ""),
        side=int(median(sides)) if sides else None,
        notes=tuple(f"skipped {counted(count, 'sample')} {why}" for why, count in _skipped(parts).items()),
        columns={name: _column(shards, parts, name) for name in columns},
        arrays=arrays,
    )


def _in_one(numbers: Iterable[array[int]]) -> NDArray[np.uint32]:
    return np.concatenate([np.frombuffer(one, np.uint32) for one in numbers])


def _skipped(parts: Sequence[Part]) -> Counter[str]:
    return sum((part.skipped for part in parts), Counter())


def _column(shards: Shards, parts: Sequence[Part], name: str) -> Column:
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
        own = np.array([codes[value] for value in part.values.get(name, ())] + [int(ABSENT)], dtype=np.uint32)
        of_part = np.frombuffer(part.codes.get(name, _numbers()), np.uint32)
        found.append(own[np.minimum(of_part, len(own) - 1)])
    return Column(np.concatenate(found), tuple(ordered), next(iter(named), None))


_ONE_SET = "give the shards of one dataset"


def _no_column(shards: Shards, parts: Sequence[Part], name: str) -> DataError:
    seen = sorted({known for part in parts for known in part.seen if f".{known}" not in IMAGE_SUFFIXES})
    return DataError(
        f"{shards.base}: no sample has {name}; the columns are {first_few(seen, 10) or 'none'}",
        next_step=other_column(shards.base, name, seen),
    )


def other_column(place: str, name: str, known: Sequence[str]) -> str:
    """What to do where no column is called `name`."""
    near = nearest(name, known) or (known[0] if len(known) == 1 else "COLUMN")
    index = shlex.join(["python", "-m", "toolkit", "data", "index", place, "--column", near])
    return f"name another column in the recipe ({setting('data.label', near)}), or index it: {index}"
