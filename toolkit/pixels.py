"""Pixels of a split, decoded once: kept in memory, in a memory-mapped cache file, or (when neither fits) nowhere.

All are uint8 squares of the spec's stored size. A store hands out batches by index and decodes what it has not seen
in threads; it never changes what is computed, only what it costs.
"""

from __future__ import annotations

import os
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from toolkit.errors import DataError
from toolkit.files import cache_directory

if TYPE_CHECKING:
    from toolkit.contracts import DataSpec, Fit, Split

CACHE_VERSION = 2
"""Part of every cache key: raised when the arithmetic of `to_square` changes."""


def to_square(image: Tensor, side: int, fit: Fit) -> Tensor:
    """uint8 `[..., 3, H, W]` to `[..., 3, side, side]` by antialiased bilinear resampling.

    `crop` brings the short side to `side` and cuts the centre; `stretch` resizes both sides.
    """
    height, width = image.shape[-2:]
    if (height, width) == (side, side):
        return image
    if fit == "stretch":
        return _resize(image, side, side)
    return centre_crop(_resize(image, *covering(height, width, side)), side)


def covering(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width with the short side brought to `side` and the long one in proportion, rounded half up; whole
    numbers throughout, so that an exported graph does the same with sizes known only when it runs."""
    short: int = torch.sym_min(height, width)  # type: ignore[assignment]  # an int of ints, symbolic of symbolic
    return (2 * height * side + short) // (2 * short), (2 * width * side + short) // (2 * short)


def centre_crop(pixels: Tensor, side: int) -> Tensor:
    """The central `side` x `side` window of `[..., H, W]`, as a view."""
    height, width = pixels.shape[-2:]
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[..., top : top + side, left : left + side]


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    # A decoder's image is channels last already and is not copied here; but torch tells so by the stride of the first
    # dimension too, which only this gives a single image, and is then three times as fast.
    frames = image.movedim(-3, -1).contiguous().view(-1, *image.shape[-2:], 3).movedim(-1, -3)
    resized = functional.interpolate(frames, size=(height, width), mode="bilinear", antialias=True)
    return resized.reshape(*image.shape[:-2], height, width)


class Storage(Protocol):
    """Room for N items of a split, and which of them are there."""

    pixels: Tensor
    """uint8 `[N, ..., S, S, 3]`, channels last: a decoder's own order, and what convolutions like best."""

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


@dataclass(frozen=True)
class Corrupt:
    """What to do with items that cannot be decoded: `skip` them (up to `limit`, a share of the split) or stop."""

    skip: bool = False
    limit: float = 0.01


@dataclass
class Pixels:
    """A split's pixels by index, each item decoded at most once while there is room to keep it."""

    split: Split
    spec: DataSpec
    storage: Storage | None
    """None: nothing fits, every epoch decodes anew."""
    workers: int
    corrupt: Corrupt = field(default_factory=Corrupt)
    skipped: dict[int, str] = field(default_factory=dict)
    """Items left out because they cannot be decoded: index to reason."""

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        self._lock = threading.Lock()
        self._resident: Tensor | None = None
        self._complete = False

    def __len__(self) -> int:
        return len(self.split)

    @property
    def complete(self) -> bool:
        """Whether every item is decoded and kept, so that `fetch` is a copy."""
        if not self._complete and self.storage is not None:
            self._complete = all(self.storage.has(i) or i in self.skipped for i in range(len(self)))
            if self._complete:
                # Idle or not, each thread holds OpenMP helpers of its own. With more of them than cores OpenMP sends
                # idle ones to sleep, those of the training step too, and waking them slows every operation down.
                self._pool.shutdown()
        return self._complete

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 `[B, ..., 3, S, S]` (channels last in memory) of the items at `index`, and the index without those
        that were skipped. Raises DataError for an item that cannot be decoded and may not be skipped."""
        if self._resident is not None:
            index = self._without_skipped(index)
            return _gathered(self._resident, index.to(self._resident.device, non_blocking=True)), index
        if self.storage is None:
            return self._decode_afresh(index)
        self.keep(index)
        index = self._without_skipped(index)
        return _gathered(self.storage.pixels, index), index

    def keep(self, index: Tensor) -> None:
        """Decode the items at `index` that are not kept yet, where there is room to keep them."""
        storage = self.storage
        if storage is None or self._complete:
            return
        missing = [i for i in index.tolist() if not storage.has(i) and i not in self.skipped]
        for i, item in zip(missing, self._pool.map(self._decode, missing), strict=True):
            if item is not None:
                storage.put(i, item)

    def move(self, device: torch.device) -> None:
        """Keep the decoded items on `device` from now on; call when `complete`."""
        if self.storage is not None and self._resident is None:
            self._resident = self.storage.pixels.to(device)

    def _decode_afresh(self, index: Tensor) -> tuple[Tensor, Tensor]:
        items = list(self._pool.map(self._decode, index.tolist()))
        kept = [item for item in items if item is not None]
        shape = (0, *stored_shape(self.spec))
        return _channels_first(torch.stack(kept) if kept else torch.empty(shape, dtype=torch.uint8)), (
            self._without_skipped(index)
        )

    def _decode(self, index: int) -> Tensor | None:
        try:
            image = self.split.read(index)
        except DataError as error:
            self._skip(index, error)
            return None
        square = to_square(image, self.spec.stored_size, self.spec.fit)
        return square.movedim(-3, -1)

    def _skip(self, index: int, error: DataError) -> None:
        if not self.corrupt.skip:
            raise DataError(
                error.message,
                next_step="repair or remove the file, or leave such files out with: --set input.on_corrupt=skip",
            ) from error
        with self._lock:
            self.skipped[index] = error.message
        if len(self.skipped) > self.corrupt.limit * len(self):
            listed = "; ".join(list(self.skipped.values())[:5])
            raise DataError(
                f"{len(self.skipped)} of {len(self)} items cannot be read, more than input.corrupt_limit = "
                f"{self.corrupt.limit:g} allows: {listed}",
                next_step="repair the data, or raise the limit with: --set input.corrupt_limit=SHARE",
            )

    def _without_skipped(self, index: Tensor) -> Tensor:
        if not self.skipped:
            return index
        return torch.tensor([i for i in index.tolist() if i not in self.skipped], dtype=torch.int64)


def stored_shape(spec: DataSpec) -> tuple[int, ...]:
    """The shape of one stored item: `[S, S, 3]`, or `[T, S, S, 3]` for a clip."""
    square = (spec.stored_size, spec.stored_size, 3)
    return square if spec.frames is None else (spec.frames, *square)


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


def _gathered(pixels: Tensor, index: Tensor) -> Tensor:
    """`pixels[index]`, channels first. `index_select` copies whole items: ten times as fast as indexing on a CPU."""
    return _channels_first(pixels.index_select(0, index))


def _channels_first(pixels: Tensor) -> Tensor:
    return pixels.movedim(-1, -3)
