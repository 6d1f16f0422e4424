"""Protobuf's wire format, read without its schema and without copying: just enough to look into a file that is not
trusted. https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from toolkit.api.errors import BundleError

AGAIN = "copy the whole bundle again, or export the run again"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIELDS = 1 << 29
"""Above the largest number of a field."""
_LONGEST_VARINT = 10
"""Bytes of 64 bits at 7 bits each."""


class Span(NamedTuple):
    """Where the bytes of a string, a nested message or a packed list lie."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


Fields: TypeAlias = dict[int, list[int | Span]]
"""What a message holds, by field number: integers as they stand, bytes by their place; without fixed-width numbers."""


class Reader:
    """Reads `data`, called `name` in messages; refuses more than `limit` fields in all, each of which costs a real
    reader many times its bytes."""

    def __init__(self, data: memoryview, name: str, limit: int = 1_000_000) -> None:
        self.data = data
        self.name = name
        self.limit = limit
        self._read = 0

    def whole(self) -> Span:
        return Span(0, len(self.data))

    def message(self, span: Span) -> Fields:
        """The fields of the message at `span`. Raises BundleError where it is not a message."""
        fields: Fields = {}
        position, end = span.start, span.end
        while position < end:
            key, position = self._key(position, end)
            kind = key & 7
            if kind == _VARINT:
                value, position = self._varint(position, end)
                fields.setdefault(key >> 3, []).append(value)
            elif kind == _BYTES:
                length, start = self._varint(position, end)
                position = start + length
                fields.setdefault(key >> 3, []).append(Span(start, position))
            elif kind in (_FIXED32, _FIXED64):
                position += 4 if kind == _FIXED32 else 8
            else:
                raise self.damaged(f"wire type {kind} at byte {position}")
            self._count()
        if position > end:
            raise self.damaged(f"cut short at byte {end}")
        return fields

    def text(self, span: Span) -> str:
        return bytes(self.data[span.start : span.end]).decode("utf-8", "replace")

    def integers(self, values: list[int | Span]) -> list[int]:
        """A repeated int64 field, packed or not."""
        found: list[int] = []
        for value in values:
            found += [value] if isinstance(value, int) else self._packed(value)
        return [value - (1 << 64) if value >> 63 else value for value in found]

    def damaged(self, problem: str) -> BundleError:
        return BundleError(f"{self.name}: not an ONNX model: {problem}", next_step=AGAIN)

    def _packed(self, span: Span) -> Iterator[int]:
        position = span.start
        while position < span.end:
            value, position = self._varint(position, span.end)
            self._count()
            yield value

    def _key(self, position: int, end: int) -> tuple[int, int]:
        """Number and wire type of a field. Other readers cut a key to 32 bits, and would find other fields than this
        one in keys that are longer."""
        key, after = self._varint(position, end)
        if not 0 < key >> 3 < _FIELDS:
            raise self.damaged(f"field {key >> 3} at byte {position}")
        return key, after

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        for place in range(position, min(position + _LONGEST_VARINT, end)):
            byte = self.data[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, place + 1
            shift += 7
        cut = position + _LONGEST_VARINT > end
        raise self.damaged(f"cut short at byte {end}" if cut else f"an endless integer at byte {position}")

    def _count(self) -> None:
        self._read += 1
        if self._read > self.limit:
            raise self.damaged(f"more than {self.limit:,} fields")
