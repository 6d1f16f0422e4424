"""The samples of a tar, as WebDataset has them."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

from toolkit.data.kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from toolkit.data.shards.index import Medium, Value
from toolkit.data.shards.part import Part, Row
from toolkit.data.shards.places import RangeFile, Shard


def scan_tar(shard: Shard, columns: Sequence[str], *, block_bytes: int) -> Part:
    """The samples of a tar: consecutive files whose names are equal up to the first dot."""
    file, part = RangeFile(shard.place, shard.size, held=True), Part()
    start = end = 0
    for name, members in _samples(file):
        end = members[-1].offset_data + members[-1].size
        medium, item = _item(members)
        if item is None:
            part.skipped["without an image or a video"] += 1
        else:
            data = file.between(item.offset_data, item.offset_data + item.size)
            part.add(item.offset_data - start, data, name, _row(file, members, columns, part.seen), medium)
        if end - start >= block_bytes:
            part.close_block(start, file.between(start, end))
            file.release(end)
            start = end
    part.close_block(start, file.between(start, end))
    return part


def _item(members: Sequence[tarfile.TarInfo]) -> tuple[Medium | None, tarfile.TarInfo | None]:
    """The video of a sample, else its image. An image next to a video shows what the video is of."""
    for medium, suffixes in _MEDIA.items():
        for member in members:
            if _suffix(member.name) in suffixes:
                return medium, member
    return None, None


_MEDIA: dict[Medium, frozenset[str]] = {"video": VIDEO_SUFFIXES, "image": IMAGE_SUFFIXES}


def _samples(file: RangeFile) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    """The regular files of a tar by sample."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        name, members = "", list[tarfile.TarInfo]()
        for member in tar:
            vars(tar)["members"] = []  # it would keep all of them
            if not member.isreg() or member.issparse():
                continue
            if (key := _key(member.name)) != name and members:
                yield name, members
                members = []
            name = key
            members.append(member)
        if members:
            yield name, members
        rest = file.between(min(tar.offset, file.size), min(tar.offset + 512, file.size))
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
