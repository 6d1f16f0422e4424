"""Where decoded images are kept: in memory, or in a file that all who train on them share."""

from __future__ import annotations

import os
import zlib
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from toolkit.files import cache_directory
from toolkit.pixels.resampling import CACHE_VERSION

if TYPE_CHECKING:
    from toolkit.contracts import DataSpec, Split


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

    Beside the pixels lies one checksum an item, written after its pixels: an item cut short by a kill or a power
    loss does not match and is decoded again. Two writers of one item write the same bytes.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._sums = _mapped(path.with_suffix(".sums"), np.dtype(np.uint64), (shape[0],))
        self._bytes = _mapped(path, np.dtype(np.uint8), shape)
        self.pixels = torch.from_numpy(self._bytes)
        self._checked = bytearray(shape[0])
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
    with path.open("ab") as file:
        file.truncate(int(np.prod(shape)) * dtype.itemsize)
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)


def stored_shape(spec: DataSpec) -> tuple[int, ...]:
    """The shape of one stored image: `[S, S, 3]`."""
    return spec.stored_size, spec.stored_size, 3


def bytes_needed(split: Split, spec: DataSpec) -> int:
    """Bytes that a split's decoded pixels take."""
    return len(split) * int(np.prod(stored_shape(spec)))


def open_storage(split: Split, spec: DataSpec, *, memory_bytes: int, cache_bytes: int) -> Storage | None:
    """The fastest storage the split fits into: memory, else a cache file, else None."""
    shape = (len(split), *stored_shape(spec))
    needed = bytes_needed(split, spec)
    if needed <= memory_bytes:
        return Memory(shape)
    if needed > cache_bytes:
        return None
    folder = cache_directory() / "pixels"
    path = folder / f"{cache_key(split, spec)}.u8"
    make_room(folder, keep=path, limit=cache_bytes - needed)
    return Mapped(path, shape)


def cache_key(split: Split, spec: DataSpec) -> str:
    """Names the cache file: changes with any item's content, the order of items, and how pixels are resampled."""
    digest = blake2b(f"{CACHE_VERSION} {stored_shape(spec)} {spec.fit}".encode(), digest_size=16)
    for key in split.keys:
        digest.update(b"\0" + key.encode())
    return digest.hexdigest()


def make_room(folder: Path, *, keep: Path, limit: int) -> None:
    """Remove the cache files that were opened longest ago until the others take at most `limit` bytes.

    A process that still maps a removed file keeps its pages: it loses nothing, and the room is freed when it ends.
    """
    files = sorted((path for path in folder.glob("*.u8") if path != keep), key=lambda path: -path.stat().st_mtime)
    total = 0
    for path in files:
        total += path.stat().st_blocks * 512
        if total > limit:
            path.unlink(missing_ok=True)
            path.with_suffix(".sums").unlink(missing_ok=True)
