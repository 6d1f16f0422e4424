"""Where shards lie, and their bytes: local files and URLs alike, through fsspec."""

from __future__ import annotations

import io
import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from toolkit.api.errors import DataError, first_few

ShardKind: TypeAlias = Literal["tar", "parquet"]
TRIES = 6
"""Times that bytes are asked for before a server counts as unreachable."""
FIRST_PAUSE = 0.2
"""Seconds before the second try; each further pause is twice as long."""
CHUNK = 1 << 22
"""Bytes that are read at a time when a shard is read from its start to its end."""
_COMPRESSED = re.compile(r"\.(tgz|tar\.\w+)$")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp"}
WHERE = (
    "give a folder or a URL of .tar or .parquet files, such as s3://BUCKET/FOLDER or https://HOST/train-{000..099}.tar"
)


@dataclass(frozen=True)
class Shard:
    """One file of a dataset."""

    place: str
    """Its path or URL."""
    name: str
    """Relative to the base of all shards, with forward slashes."""
    size: int
    changed: str = ""
    """When a local file was last changed, or an object's tag; empty where nothing says so."""


@dataclass(frozen=True)
class Shards:
    """All files of a dataset, of one kind, in order of name."""

    base: str
    """The folder or URL that names are relative to."""
    kind: ShardKind
    files: tuple[Shard, ...]


def is_local(place: str) -> bool:
    """Whether this is a path, not a URL."""
    return "://" not in place or place.startswith("file://")


def settled(place: str) -> str:
    """A path as a whole one, and a URL without the slash at its end: one place has one name."""
    if not is_local(place):
        return place.rstrip("/")
    return str(Path(place.removeprefix("file://")).expanduser().resolve())


def joined(base: str, name: str) -> str:
    """The place of a file below `base`."""
    return f"{base.rstrip('/')}/{name}"


def find_shards(place: str) -> Shards:
    """The .tar or .parquet files at `place`: one of them, a folder, or a pattern (`*`, `{000..099}`, `{a,b}`).

    Raises DataError where there is no shard, or files of both kinds, or compressed tars.
    """
    files = file_system(place)
    with reaching(place):
        found = sorted(_found(files, place))
    if not found:
        raise DataError(f"{place}: no shards found", next_step=WHERE)
    if compressed := [path for path in found if _COMPRESSED.search(path)]:
        raise DataError(
            f"{place}: parts of compressed tars cannot be read: {first_few(compressed)}",
            next_step="decompress them, images hardly get smaller: gunzip *.tar.gz",
        )
    kinds = sorted({kind for path in found if (kind := kind_of(path))})
    if len(kinds) != 1:
        held = first_few([path.rpartition("/")[2] for path in found])
        what = "both .tar and .parquet files found" if kinds else f"no .tar or .parquet file found, only {held}"
        raise DataError(f"{place}: {what}", next_step=WHERE)
    paths = [path for path in found if kind_of(path)]
    base = _base(files, place, paths)
    with reaching(place):
        shards = [_shard(files, path, base) for path in paths]
    return Shards(_unstripped(files, base), "tar" if kinds == ["tar"] else "parquet", tuple(shards))


def kind_of(path: str) -> ShardKind | None:
    """Which kind of shard this is, by its name."""
    return "tar" if path.endswith(".tar") else "parquet" if path.endswith(".parquet") else None


def read_range(place: str, start: int, stop: int) -> bytes:
    """The bytes `start` to `stop` - 1 of a file. What breaks off is tried again, `TRIES` times.

    Raises DataError where it cannot be read, or has not that many bytes.
    """
    files, wanted = file_system(place), stop - start
    for attempt in range(TRIES):
        if attempt:
            time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
        try:
            data: bytes = files.cat_file(_stripped(files, place), start=start, end=stop)
        except (FileNotFoundError, PermissionError, ImportError) as error:
            raise _unreadable(place, error) from error
        except Exception as error:  # each library has its own for a connection that breaks
            failed: Exception | None = error
            continue
        failed = None
        if len(data) == wanted:
            return data
        if len(data) > wanted:
            raise DataError(
                f"{place}: the server ignores requests for a part of a file",
                next_step="copy the shards to a disk, or use a server that supports HTTP ranges",
            )
    if failed is not None:
        raise _unreadable(place, failed) from failed
    raise DataError(f"{place}: expected {wanted:,} bytes from {start:,} on, got {len(data):,}", next_step=_AGAIN)


class RangeFile(io.RawIOBase):
    """A file that is read in parts. With `held`, all from there to what was read last stays in memory."""

    def __init__(self, place: str, size: int, *, held: bool = False) -> None:
        super().__init__()
        self._place, self.size, self._holds = place, size, held
        self._at = self._from = 0
        self._data = bytearray()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = self.size if size is None or size < 0 else min(self._at + size, self.size)
        data = self.between(self._at, stop) if stop > self._at else b""
        self._at += len(data)
        return data

    def between(self, start: int, stop: int) -> bytes:
        """These bytes of the file."""
        if start < self._from or (start > self._from + len(self._data) and not self._holds):
            self._from, self._data = start, bytearray()
        if not self._holds and stop > self._from + len(self._data):
            self._data = self._data[start - self._from :]
            self._from = start
        while stop > (end := self._from + len(self._data)):
            self._data += read_range(self._place, end, min(max(end + CHUNK, stop), self.size))
        return bytes(self._data[start - self._from : stop - self._from])

    def release(self, start: int) -> None:
        """Free what lies before `start`."""
        del self._data[: start - self._from]
        self._from = max(start, self._from)


@lru_cache(maxsize=64)
def _file_system(protocol: str) -> Any:
    import fsspec

    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        package = _PACKAGES.get(protocol, protocol)
        extra = 'pip install "vision-toolkit[shards]"' if package in {"s3fs", "aiohttp"} else f"pip install {package}"
        raise DataError(f"{protocol}:// needs the package {package}", next_step=extra) from error
    except ValueError as error:
        raise DataError(f"no such protocol: {protocol}://", next_step=WHERE) from error


def file_system(place: str) -> Any:
    """fsspec's file system of a path or URL. Raises DataError where the package for its protocol is not installed."""
    return _file_system("file" if is_local(place) else place.partition("://")[0])


class reaching:  # noqa: N801 - reads as a statement
    """Turn what a file system raises in the block into DataError about `place`."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, DataError):
            raise _unreadable(self._place, error) from error


_AGAIN = "check the connection and run the same command again: finished parts are kept"


def _unreadable(place: str, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{place}: not found", next_step=WHERE)
    if isinstance(error, PermissionError):
        return DataError(f"{place}: access denied", next_step="check your credentials for this place")
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return DataError(f"{place}: cannot be read: {reason}", next_step=_AGAIN)


def _stripped(files: Any, place: str) -> str:
    return str(files._strip_protocol(place))


def _unstripped(files: Any, path: str) -> str:
    return path if "file" in _protocols(files) else str(files.unstrip_protocol(path))


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _found(files: Any, place: str) -> Iterator[str]:
    for one in _expanded(place):
        path = _stripped(files, one)
        if "*" in one or "?" in one:
            yield from map(str, files.glob(path))
        elif kind_of(path) or _COMPRESSED.search(path):
            yield path
        else:
            hidden = re.compile(r"(^|/)\.[^/]*")
            yield from (name for name in map(str, files.find(path)) if not hidden.search(name[len(path) :]))


def _expanded(place: str) -> list[str]:
    """`a{0..2}` as `a0`, `a1`, `a2`, and `{a,b}` as `a`, `b`."""
    if match := _RANGE.search(place):
        first, last = match[1], match[2]
        middles = [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
    elif match := _CHOICE.search(place):
        middles = match[1].split(",")
    else:
        return [place]
    ends = _expanded(place[match.end() :])
    return [f"{place[: match.start()]}{middle}{end}" for middle, end in itertools.product(middles, ends)]


def _base(files: Any, place: str, paths: list[str]) -> str:
    """The deepest folder of all files; the folder that was asked for, if it was one."""
    asked = _stripped(files, place)
    if not re.search(r"[*?{]", place) and not kind_of(asked):
        return asked.rstrip("/")
    parents = [path.rpartition("/")[0].split("/") for path in paths]
    shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*parents, strict=False))
    return "/".join(parts[0] for parts in shared)


def _shard(files: Any, path: str, base: str) -> Shard:
    info = files.info(path)
    if info.get("size") is None:
        raise DataError(f"{path}: the server does not give the size of the file", next_step="copy the shards to a disk")
    changed = str(info.get("mtime") or info.get("ETag") or "")
    return Shard(_unstripped(files, path), path[len(base) :].lstrip("/"), int(info["size"]), changed)
