"""The videos of a split as clips: frames decoded once, kept at training size, cut into clips when they are asked for.

A kept video is a file of its own in the cache directory, named by its content and put there whole, so that a killed
process leaves nothing half-made and all runs share it. It holds every frame that a clip may see, with its short side at
the stored size; which of them and which square a clip sees is decided each time. A video is kept when it is asked for a
second time: the first time only what its clip sees is decoded, which is all there is to do for who passes once.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from itertools import accumulate, chain, groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.api.clips import PHASES, Clip, evaluation_clips, seen, snapped, training_clip
from toolkit.api.contract_checks import read_frames_of
from toolkit.api.errors import DataError
from toolkit.api.files import replaced
from toolkit.data.damage import Damage, hearing_of_damage
from toolkit.data.geometry import covering, crop_places, crop_start
from toolkit.data.store.corrupt import Corrupt, Skipped
from toolkit.data.store.resampling import CACHE_VERSION, resize
from toolkit.data.store.storage import remove_oldest, warn_unwritten
from toolkit.data.store.store import Store
from toolkit.system.draws import draws_of

if TYPE_CHECKING:
    from toolkit.api.contracts import DataSpec, VideoSplit

Frames: TypeAlias = "Mapping[int, NDArray[np.uint8]]"
"""Frames uint8 `[h, w, 3]` of one video by number."""

SPARE = 0.05
"""Share of the cache that is freed at a time: looking for what is oldest takes a while."""
LARGEST = 2**30
"""Bytes of the largest video that is kept; of a longer one only the frames that are asked for are decoded."""


@dataclass(frozen=True)
class View:
    """One clip of a video: its frames, and the place of its square in them."""

    frames: Sequence[int]
    place: float
    """Along the long side, from 0 (left or top) to 1."""

    def cut(self, frames: Frames, side: int, into: NDArray[np.uint8]) -> None:
        """Copy the squares into uint8 `[T, side, side, 3]`."""
        for target, number in zip(into, self.frames, strict=True):
            frame = frames[number]
            top, left = (crop_start(extent, side, self.place) for extent in frame.shape[:2])
            target[:] = frame[top : top + side, left : left + side]


@dataclass
class VideoCache:
    """Room for kept videos, for all splits of a run together."""

    folder: Path
    limit: int
    """Bytes."""
    taken: int = 0
    """By the videos of this run."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._added = self.limit

    def path(self, key: str, spec: DataSpec, *, training: bool) -> Path:
        """Where the video with this key lies, whether or not it is kept yet."""
        text = f"{CACHE_VERSION} {spec.stored_size} {spec.fit} {_grid(spec, training=training)} {key}"
        name = blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.npy"

    def reserve(self, size: int) -> bool:
        """Whether this run may use `size` more bytes; they are counted if so."""
        with self._lock:
            fits = size <= LARGEST and self.taken + size <= self.limit * (1 - SPARE)
            self.taken += size if fits else 0
        return fits

    def release(self, size: int) -> None:
        """Give back what was reserved."""
        with self._lock:
            self.taken -= size

    def added(self, size: int) -> None:
        """Count a file that was put into the cache; now and then this makes room for more."""
        with self._lock:
            self._added += size
            due = self._added > self.limit * SPARE
            self._added = 0 if due else self._added
        if due:  # a process that has a removed video open loses nothing; another decodes it again
            remove_oldest(self.folder.glob("*/*.npy"), int(self.limit * (1 - SPARE)))


@dataclass
class ClipStore(Store):
    """A split's clips by index. Which frames of a video are needed is known when its batch is fetched: nothing begins
    before."""

    split: VideoSplit
    spec: DataSpec
    cache: VideoCache | None
    """None: nothing is kept."""
    workers: int
    corrupt: Corrupt = field(default_factory=Corrupt)
    training: bool = True
    """Whether training clips are drawn, of which any frame on the grid may be seen, or the same views each time."""

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        self.skipped = Skipped(self.corrupt, self.split.ids)
        self.sides = {}
        self._asked: set[int] = set()
        self._counted: set[int] = set()
        self._unkept: set[int] = set()

    @property
    def clip(self) -> Clip:
        if self.spec.clip is None:
            raise AssertionError("videos become clips only where the spec has a clip")
        return self.spec.clip

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 `[B, T, 3, S, S]` (channels last in memory), the middle of each video, and the index without the
        skipped ones. Raises DataError for a video that cannot be decoded and may not be skipped."""
        return self._gathered(index, [(item, 1, partial(middle_of, self.clip)) for item in index.tolist()])

    def views(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 `[B * V, T, 3, S, S]`: the V views of evaluation of each video, one video after the other; and the
        index as of `fetch`."""
        choose = partial(views_of, self.clip)
        return self._gathered(index, [(item, self.clip.views, choose) for item in index.tolist()])

    def drawn(self, items: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """uint8 `[B, T, 3, S, S]`: the training clips with these numbers, and the numbers without those of skipped
        videos. Of V clips a video the n-th of video i is number i * V + n. Each is drawn by its number from `seed`,
        whatever else is asked for. A video whose clips are adjacent is opened once."""
        each, count = self.clip.clips_per_video, self.clip.frames + 1
        numbers = iter(draws_of(items, seed).uniform(shape=(count,)).tolist())
        wanted = list[_Wanted]()
        for item, run in groupby((items // each).tolist()):
            drawn = [next(numbers) for _ in run]
            wanted.append((item, len(drawn), partial(drawn_from, self.clip, drawn)))
        pixels, videos = self._gathered(items // each, wanted)
        return pixels, items[torch.isin(items // each, videos)]

    def _gathered(self, index: Tensor, wanted: Sequence[_Wanted]) -> tuple[Tensor, Tensor]:
        side, ends = self.spec.stored_size, list(accumulate((count for _, count, _ in wanted), initial=0))
        clips = np.empty((ends[-1], self.clip.frames, side, side, 3), np.uint8)
        parts = [clips[start:end] for start, end in pairwise(ends)]
        whole = list(self._pool.map(self._filled, wanted, parts))
        if not all(whole):
            clips = np.concatenate([clips[:0], *(part for part, there in zip(parts, whole, strict=True) if there)])
        return torch.from_numpy(clips).movedim(-1, -3), self.skipped.without(index)

    def _filled(self, wanted: _Wanted, into: NDArray[np.uint8]) -> bool:
        """Whether the clips of a video could be written."""
        item, _, choose = wanted
        if item in self.skipped:
            return False
        try:
            views = choose(self.split.times(item))
            if self.training:  # what is kept changes no result: a view of evaluation makes do with its frames
                views = [View(snapped(view.frames, self._seen(item)), view.place) for view in views]
            frames = self._kept(item)
            if frames is None:
                numbers = sorted({number for view in views for number in view.frames})
                with hearing_of_damage() as found:
                    frames = dict(zip(numbers, self._decoded(item, numbers), strict=True))
                self.skipped.accept(item, found)
        except DataError as error:
            self.skipped.add(item, error)
            return False
        for view, clip in zip(views, into, strict=True):
            view.cut(frames, self.spec.stored_size, clip)
        return True

    def _kept(self, item: int) -> Frames | None:
        """All frames of a video that clips see, mapped from the cache; None where there is no room for them."""
        if self.cache is None or item in self._unkept:
            return None
        numbers = self._seen(item)
        path = self.cache.path(self.split.keys[item], self.spec, training=self.training)
        frames = _mapped(path, len(numbers))
        if frames is None and item not in self._asked:
            self._asked.add(item)
        elif frames is None:
            self._keep(self.cache, item, numbers, path)
            frames = _mapped(path, len(numbers))
        elif item not in self._counted:
            with suppress(OSError):  # removed by another run, or only to be read: what is mapped can be seen
                os.utime(path)
            try:
                self.skipped.accept(item, _kept_damage(path, frames.nbytes))
            except DataError:  # kept by a run that accepts more
                self._unkept.add(item)
                return None
            self._count(self.cache, item, frames.nbytes)
        return None if frames is None else dict(zip(numbers, frames, strict=True))

    def _seen(self, item: int) -> list[int]:
        times = self.split.times(item)
        if self.training:
            return seen(self.clip, times)
        return sorted({number for clip in evaluation_clips(self.clip, times) for number in clip})

    def _keep(self, cache: VideoCache, item: int, numbers: Sequence[int], path: Path) -> None:
        """Decode the frames of a video that clips see into its file, unless there is no room or too much damage: what
        is kept changes no result, so that only a clip that meets the damage may be refused for it."""
        with closing(self._decoded(item, numbers)) as decoded, hearing_of_damage() as found:
            first = next(decoded)
            size = len(numbers) * first.nbytes
            if not self._count(cache, item, size):
                return
            try:
                with replaced(path) as temporary:
                    _write(temporary, (len(numbers), *first.shape), chain([first], decoded), found)
                    self.skipped.accept(item, found)
                cache.added(size)
            except DataError:
                self._unkeep(cache, item, size)
            except OSError as error:
                self._unkeep(cache, item, size)
                warn_unwritten(cache.folder, error)

    def _unkeep(self, cache: VideoCache, item: int, size: int) -> None:
        """Decode a video again from now on; it takes no room."""
        self._counted.discard(item)
        self._unkept.add(item)
        cache.release(size)

    def _count(self, cache: VideoCache, item: int, size: int) -> bool:
        fits = item in self._counted or cache.reserve(size)
        (self._counted if fits else self._unkept).add(item)
        return fits

    def _decoded(self, item: int, numbers: Sequence[int]) -> Generator[NDArray[np.uint8], None, None]:
        """Frames uint8 `[h, w, 3]` at training size."""
        side = self.spec.stored_size
        for frame in read_frames_of(self.split, item, numbers):
            height, width = frame.shape[-2:]
            self.sides[item] = min(height, width)
            sides = covering(height, width, side) if self.spec.fit == "crop" else (side, side)
            yield resize(frame, *sides).movedim(0, -1).numpy()


_Wanted: TypeAlias = tuple[int, int, Callable[[Sequence[float]], list[View]]]
"""A video, the number of its clips, and what chooses them once its times are known."""


def middle_of(clip: Clip, times: Sequence[float]) -> list[View]:
    """The view in the middle of those of evaluation."""
    return [View(evaluation_clips(clip, times)[clip.clips // 2], 0.5)]


def views_of(clip: Clip, times: Sequence[float]) -> list[View]:
    """The views of evaluation: every clip in time by every crop in space."""
    return [View(frames, place) for frames in evaluation_clips(clip, times) for place in crop_places(clip.crops)]


def drawn_from(clip: Clip, drawn: Sequence[Sequence[float]], times: Sequence[float]) -> list[View]:
    """Training clips of a video, each from a place of its own in time and along the long side, by 1 + T numbers."""
    return [View(training_clip(clip, times, numbers[1:]), numbers[0]) for numbers in drawn]


def _grid(spec: DataSpec, *, training: bool) -> str:
    """What decides which frames of a video are seen."""
    clip = spec.clip or Clip(frames=1)
    views = "" if training else f"{clip.clips} x {clip.frames} {clip.short}"
    return f"{PHASES} {clip.sampling} {clip.frames if clip.sampling == 'segments' else clip.step} {views}"


def _write(path: Path, shape: tuple[int, ...], frames: Iterable[NDArray[np.uint8]], found: Sequence[Damage]) -> None:
    """`found`: the damage that decoding these frames finds, which is written behind them."""
    with path.open("wb") as file:
        # Written frame by frame a file costs less than mapped memory, page by page.
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for frame in frames:
            file.write(np.ascontiguousarray(frame).data)
        for damage in found[:1]:
            file.write(_DAMAGE.pack(*damage))


_DAMAGE = struct.Struct("<QQ")


def _kept_damage(path: Path, frames: int) -> list[Damage]:
    """What a kept file, whose frames take so many bytes, says behind them of the damage of its video."""
    try:
        with path.open("rb") as file:
            written = file.seek(0, os.SEEK_END) - frames
            if written % np.lib.format.ARRAY_ALIGN != _DAMAGE.size:  # the header alone
                return []
            file.seek(-_DAMAGE.size, os.SEEK_END)
            return [Damage(*_DAMAGE.unpack(file.read()))]
    except OSError:  # removed by another run
        return []


_ONE_HEADER = threading.Lock()
"""NumPy reads headers by Python's parser, and that of Python 3.11 raises a SystemError now and then where two threads
are in it at once (github.com/python/cpython/issues/106905)."""


def _mapped(path: Path, count: int) -> NDArray[np.uint8] | None:
    """The frames in a kept file; None where no file is whole."""
    try:
        with _ONE_HEADER:
            frames: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return frames.view(np.ndarray) if len(frames) == count else None
