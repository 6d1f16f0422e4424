"""Where decoded images are kept: in memory, or in a file that all who train on them share."""

from __future__ import annotations

import errno
import math
import os
import shutil
import threading
import zlib
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from toolkit.api.files import cache_directory
from toolkit.data.store.resampling import CACHE_VERSION
from toolkit.system.notices import warn

if TYPE_CHECKING:
    from toolkit.api.contracts import DataSpec, Split


Place: TypeAlias = Literal["memory", "file", "nowhere"]
"""Where decoded pixels are kept. `nowhere`: they are decoded again in every epoch."""

_unwritten: set[Path] = set()
_one = threading.Lock()


def warn_unwritten(folder: Path, error: OSError) -> None:
    """Warn that a cache folder cannot be written, once in this process however many splits and videos meet it: what is
    computed stays the same, but takes longer than its user expects."""
    with _one:
        warned = folder in _unwritten
        _unwritten.add(folder)
    if not warned:
        warn(
            f"{folder}: cannot be written: {error.strerror or error}; what is not cached is decoded again each time: "
            "free disk space, fix the permissions, or set TOOLKIT_CACHE"
        )


class Storage(Protocol):
    """Room for N items of a split, and which of them are there."""

    pixels: Tensor
    """uint8 `[N, S, S, 3]`, channels last: a decoder's own order, and what convolutions like best."""

    def has(self, index: int) -> bool: ...

    def put(self, index: int, item: Tensor) -> None: ...


class Memory:
    """Storage in RAM."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.pixels = torch.empty(shape, dtype=torch.uint8)
        self._present = bytearray(shape[0])

    def has(self, index: int) -> bool:
        return bool(self._present[index])

    def put(self, index: int, item: Tensor) -> None:
        self.pixels[index] = item
        self._present[index] = 1


class Mapped:
    """Storage in a file that outlives the process and is shared by all that train on the same items.

    After the pixels lies one checksum for each item, written after its pixels: an item cut short by a kill or a power
    loss does not match and is decoded again. Two writers of one item write the same bytes.

    The room of all items is taken at once, for a disk that fills up later ends a process that writes to mapped memory.
    Raises OSError where there is no such room, or the file cannot be written.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        sums = path.with_suffix(".sums")
        new = [file for file in (sums, path) if not file.exists()]
        try:
            self._sums = _mapped(sums, np.dtype(np.uint64), (shape[0],))
            self._bytes = _mapped(path, np.dtype(np.uint8), shape)
        except BaseException:
            for file in new:  # another may be in use
                file.unlink(missing_ok=True)
            raise
        self.pixels = torch.from_numpy(self._bytes)
        self._checked = bytearray(shape[0])
        with suppress(FileNotFoundError):  # removed by another run: what is mapped stays
            os.utime(path)

    def has(self, index: int) -> bool:
        if not self._checked[index]:
            self._checked[index] = int(self._sums[index] != 0 and self._sums[index] == self._sum(index))
        return bool(self._checked[index])

    def put(self, index: int, item: Tensor) -> None:
        self.pixels[index] = item
        self._sums[index] = self._sum(index)
        self._checked[index] = 1

    def _sum(self, index: int) -> int:
        return zlib.crc32(self._bytes[index]) | 1 << 32


def _mapped(path: Path, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        _reserve(file, math.prod(shape) * dtype.itemsize)
        return np.memmap(file, dtype=dtype, mode="r+", shape=shape)


def _reserve(file: BinaryIO, size: int) -> None:
    """Make a file `size` bytes long and take the room that it does not have yet; its contents stay. Raises
    OSError, with the disk as it was, where there is too little."""
    found = os.fstat(file.fileno())
    missing = size - found.st_blocks * 512
    if found.st_size >= size and missing <= 0:
        return
    if missing > shutil.disk_usage(file.fileno()).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):  # the file system cannot do it
                raise
    file.truncate(size)


def stored_shape(spec: DataSpec) -> tuple[int, ...]:
    """The shape of one stored image: `[S, S, 3]`."""
    return spec.stored_size, spec.stored_size, 3


def place_for(needed: int, *, memory_bytes: int, cache_bytes: int) -> Place:
    """Where so many bytes of pixels are kept, by what memory and the cache may hold."""
    return "memory" if needed <= memory_bytes else "file" if needed <= cache_bytes else "nowhere"


def open_storage(split: Split, spec: DataSpec, *, memory_bytes: int, cache_bytes: int) -> Storage | None:
    """The fastest storage the split fits into: memory, else a cache file, else None. So it is, with a note, where the
    disk has too little room for the file or the cache cannot be written."""
    shape = (len(split), *stored_shape(spec))
    needed = math.prod(shape)
    place = place_for(needed, memory_bytes=memory_bytes, cache_bytes=cache_bytes)
    if place == "memory":
        return Memory(shape)
    if place == "nowhere":
        return None
    path = cache_file(split, spec)
    folder = path.parent
    try:
        make_room(folder, keep=path, limit=cache_bytes - needed)
        return Mapped(path, shape)
    except OSError as error:
        warn_unwritten(folder, error)
        return None


def cache_file(split: Split, spec: DataSpec) -> Path:
    """The file that keeps a split's pixels, whether or not it exists."""
    return cache_directory() / "pixels" / f"{cache_key(split, spec)}.u8"


def cache_key(split: Split, spec: DataSpec) -> str:
    """Names the cache file: changes with any item's content, the order of items, and how pixels are resampled."""
    digest = blake2b(f"{CACHE_VERSION} {stored_shape(spec)} {spec.fit}".encode(), digest_size=16)
    for key in split.keys:
        digest.update(b"\0" + key.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def make_room(folder: Path, *, keep: Path, limit: int) -> None:
    """Remove the cache files that were opened longest ago until the others take at most `limit` bytes.

    A process that still maps a removed file keeps its pages: it loses nothing, and the room is freed when it ends.
    """
    for path in remove_oldest((path for path in folder.glob("*.u8") if path != keep), limit):
        path.with_suffix(".sums").unlink(missing_ok=True)


def remove_oldest(paths: Iterable[Path], limit: int) -> list[Path]:
    """Remove the files that were used longest ago until the others take at most `limit` bytes; those removed."""
    used = []
    for path in paths:
        with suppress(OSError):  # another process removed it
            found = path.stat()
            used.append((found.st_mtime, min(found.st_size, found.st_blocks * 512), path))
    used.sort(reverse=True)
    totals = accumulate(size for _, size, _ in used)
    removed = [path for (_, _, path), total in zip(used, totals, strict=True) if total > limit]
    for path in removed:
        path.unlink(missing_ok=True)
    return removed
