"""Frames of videos as images: taken once, evenly spaced, and kept in the cache directory.

The frames of one video lie in one safetensors file, as JPEG of quality 95 in the video's own resolution: one atomic
write a video, so that a killed process leaves nothing half-made and several may share the folder. JPEG, since the
frames come from lossy video: it takes a third of the space of PNG and decodes three times as fast.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import torch
import torchvision.io  # noqa: F401 (registers the operator that encodes)
from av.error import FFmpegError
from rich.console import Console
from rich.progress import Progress
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from toolkit.errors import DataError
from toolkit.files import cache_directory, write_atomically
from toolkit.images import decode_image

if TYPE_CHECKING:
    from torch import Tensor

_QUALITY = 95
_RULE = f"middles-jpeg{_QUALITY}-1"


@dataclass(frozen=True)
class VideoFrames:
    """A split of N frames of videos, each read from the file that keeps its video's frames."""

    ids: tuple[str, ...]
    targets: tuple[int, ...]
    keys: tuple[str, ...]
    files: tuple[Path, ...]
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Tensor:
        """Pixels, uint8 `[3, H, W]`; DataError naming the kept file when it has been damaged."""
        path = self.files[index]
        try:
            with safe_open(path, "pt") as kept:
                return decode_image(kept.get_tensor(str(self.numbers[index])))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise DataError(
                f"the frames kept of {self.ids[index]} are damaged: {error}",
                path=path,
                next_step="Delete the file: it is made again.",
            ) from error


@dataclass(frozen=True)
class Kept:
    """Where the frames of one video lie, and how many there are."""

    path: Path
    count: int


def keep_frames(
    videos: Sequence[Path], keys: Sequence[str], frames: int, progress: Callable[[int, int], None] | None = None
) -> list[Kept]:
    """Take `frames` frames of each video, in one thread a core, unless the cache directory has them.

    keys: names that change when a video does. progress: told how many of how many videos are done. A video that is
    shorter gives all its frames. Raises DataError naming the video that cannot be decoded.
    """
    wanted = [_place(key, frames) for key in keys]
    counts = [_count(path) for path in wanted]
    todo = [number for number, count in enumerate(counts) if not count]
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        pending = {pool.submit(_keep, videos[number], wanted[number], frames): number for number in todo}
        for done, future in enumerate(as_completed(pending), start=1):
            counts[pending[future]] = future.result()
            if progress:
                progress(done, len(todo))
    finally:
        pool.shutdown(cancel_futures=True)
    return [Kept(path, count) for path, count in zip(wanted, counts, strict=True)]


@contextmanager
def shown_progress() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr for `keep_frames`, where stderr is a terminal."""
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("taking frames of videos")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def sample_frames(video: Path, frames: int) -> list[Tensor]:
    """`frames` frames, uint8 `[3, H, W]`, from the middles of as many equal parts of a video, turned upright.

    Only the first video stream is decoded, never audio. A shorter video gives all its frames. Raises DataError naming
    the video when it cannot be decoded or has no frames.
    """
    try:
        with av.open(str(video)) as container:
            if not container.streams.video:
                raise _broken(video, "has no video stream")
            stream = container.streams.video[0]
            total = sum(1 for packet in container.demux(stream) if packet.size)
        found = list(_decode(video, middles(total, frames)))
    except (FFmpegError, OSError) as error:
        raise _broken(video, f"cannot be decoded: {error.strerror or error}") from error
    if not found:
        raise _broken(video, "has no frames")
    return found


def middles(total: int, wanted: int) -> list[int]:
    """Numbers of the frames in the middle of `wanted` equal parts of `total` frames; all when there are fewer."""
    if total <= wanted:
        return list(range(total))
    return [(2 * part + 1) * total // (2 * wanted) for part in range(wanted)]


def _decode(video: Path, numbers: Sequence[int]) -> Iterator[Tensor]:
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        wanted = iter(numbers)
        following = next(wanted, None)
        for number, frame in enumerate(container.decode(stream)):
            if following is None:
                return
            if number == following:
                yield _upright(frame)
                following = next(wanted, None)


def _upright(frame: av.VideoFrame) -> Tensor:
    pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _keep(video: Path, path: Path, frames: int) -> int:
    found = sample_frames(video, frames)
    encoded = {str(number): _jpeg(pixels) for number, pixels in enumerate(found)}
    write_atomically(path, save(encoded))
    return len(found)


def _jpeg(pixels: Tensor) -> Tensor:
    # The operator, for the reason given in toolkit.images.
    encoded: Tensor = torch.ops.image.encode_jpeg(pixels, _QUALITY)
    return encoded


def _place(key: str, frames: int) -> Path:
    name = hashlib.sha256(f"{key}\0{frames}\0{_RULE}".encode()).hexdigest()
    return cache_directory() / "frames" / name[:2] / f"{name[2:]}.safetensors"


def _count(path: Path) -> int:
    """How many frames a kept file holds; 0 when it is absent or not whole."""
    try:
        with safe_open(path, "pt") as kept:
            return len(kept.keys())
    except (OSError, SafetensorError):
        return 0


def _broken(video: Path, message: str) -> DataError:
    return DataError(message, path=video, next_step="Replace or remove the file.")
