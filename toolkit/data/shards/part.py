"""What one shard holds."""

from __future__ import annotations

import hashlib
import io
import shlex
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from toolkit.api.errors import nearest, setting
from toolkit.data.shards.index import ABSENT, Medium, Value

MEASURED = 3
"""Items of each shard whose sides are looked at."""
LARGEST = 1 << 32
"""Bytes that a block must have less of: places in it are numbers of 32 bits."""
Row: TypeAlias = Mapping[str, Value | None]


def numbers() -> array[int]:
    """Of 32 bits, none so far."""
    return array("I")


@dataclass
class Part:
    """What one shard holds, in arrays: there may be many samples."""

    content: str = ""
    """Of a Parquet file, the column of encoded images or videos."""
    media: dict[Medium, str] = field(default_factory=dict)
    """What the samples are, each with the name of the first that is."""
    starts: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    """Of each block; see `Index.arrays`."""
    offsets: array[int] = field(default_factory=numbers)
    lengths: array[int] = field(default_factory=numbers)
    contents: array[int] = field(default_factory=numbers)
    name_lengths: array[int] = field(default_factory=numbers)
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

    def add(self, offset: int, content: bytes, name: str, row: Row, medium: Medium | None) -> None:
        """The next item: its place in the block, its encoded image or video, what it has in each column, and what it
        is, if that is known. Raises ValueError where the block is too large."""
        if offset + len(content) >= LARGEST:
            raise ValueError(f"the block of {name} has {offset + len(content):,} bytes, at most {LARGEST - 1:,} work")
        if medium is not None:
            self.media.setdefault(medium, name)
        self.offsets.append(offset)
        self.lengths.append(len(content))
        self.contents.append(int.from_bytes(_digest(content, 4), "little"))
        encoded = name.encode("utf-8", "surrogateescape")
        self.names += encoded
        self.name_lengths.append(len(encoded))
        for column, value in row.items():
            codes = self.values.setdefault(column, {})
            code = ABSENT if value is None else codes.setdefault(value, len(codes))
            self.codes.setdefault(column, numbers()).append(code)
        if len(self.sides) < MEASURED and (side := _short_side(content, medium)):
            self.sides.append(side)

    def close_block(self, start: int, data: bytes) -> None:
        """All items since the last block are one. One without an item is dropped."""
        items = len(self.offsets) - sum(self.items)
        if items:
            self.starts.append(start)
            self.sizes.append(len(data))
            self.items.append(items)
            self.digests.append(_digest(data, 16))


def _digest(data: bytes, size: int) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()


def _short_side(content: bytes, medium: Medium | None) -> int | None:
    if medium == "video":
        from toolkit.data.shards.encoded import short_side

        return short_side(content)
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as opened:
            return min(opened.size)
    except Exception:  # whether it may be damaged is decided when it is read
        return None


def other_column(place: str, name: str, known: Sequence[str]) -> str:
    """What to do where no column is called `name`."""
    near = nearest(name, known) or (known[0] if len(known) == 1 else "COLUMN")
    index = shlex.join(["python", "-m", "toolkit", "data", "index", place, "--column", near])
    return f"name another column in the recipe ({setting('data.label', near)}), or index it: {index}"
