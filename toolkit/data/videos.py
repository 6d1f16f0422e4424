"""Videos as splits: files that are decoded when read, videos already in memory, and single frames of either.

What becomes of a file that is not as it should be:

| file | what is read |
| --- | --- |
| cut short | the frames that are left; `DataError` where its index is lost with its end, as in most MP4 files |
| empty, or no video (text, say) | `DataError` |
| sound only, or sound with a picture for its cover | `DataError` |
| a single frame | that frame |
| rotated by its metadata | frames turned upright |
| variable frame rate | every frame, at its own time |
| larger than the model's input, 4K say | every frame, in its own size, never more than one of them in memory |
| odd width or height | frames of that size |
| another suffix than its format | as if the suffix were right |
| a frame that cannot be decoded | the last one before it; at the start the first one that can |
| frames of several sizes | all in the size that the stream says it has at its start |
| times that are missing or do not ascend | the durations of its frames summed; without those, 30 frames a second |

None of them takes longer than a file of its length that is whole, read twice.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.clips import middle
from toolkit.data.decoding import Timeline, read_frames, timeline

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.api.contracts import Targets, VideoSplit

_OPEN_AT_ONCE = 64
"""Timelines kept between a video's `times` and its `read`; of all others only the times stay, 8 bytes a frame."""

_TOLERANCE = 1e-4
"""Seconds by which two readers of one file may differ in a frame's time: they round differently."""


@dataclass(frozen=True)
class VideoFiles:
    """A split of N video files."""

    ids: tuple[str, ...]
    targets: Targets
    keys: tuple[str, ...]
    paths: tuple[Path, ...]
    _times: dict[int, Sequence[float]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def times(self, index: int) -> Sequence[float]:
        """When each frame is shown, in seconds from the first; DataError naming the file when it cannot be opened or
        has no frames."""
        known = self._times.get(index)
        return known or self._times.setdefault(index, array("d", _timeline(self.paths[index], self.keys[index]).times))

    def read(self, index: int, frames: Sequence[int]) -> Iterator[Tensor]:
        """The frames with these numbers, uint8 `[3, H, W]` laid out by pixels (channels last), as `read_frames` gives
        them: by torchcodec where that loads and can read the file, else by PyAV. Both give the same bytes. Raises
        DataError naming the file when none of its frames can be decoded."""
        import torch

        path, known = self.paths[index], _timeline(self.paths[index], self.keys[index])
        given = 0
        for pixels in _by_torchcodec(path, known, frames):
            yield pixels.permute(2, 0, 1)
            given += 1
        for decoded in read_frames(path, known, frames[given:]):
            yield torch.from_numpy(decoded).permute(2, 0, 1)

    def select(self, positions: Sequence[int]) -> VideoFiles:
        """The split of the videos at these positions."""
        return VideoFiles(
            tuple(self.ids[position] for position in positions),
            tuple(self.targets[position] for position in positions),
            tuple(self.keys[position] for position in positions),
            tuple(self.paths[position] for position in positions),
        )


@dataclass(frozen=True, eq=False)
class ArrayVideos:
    """A split of N videos in memory; `pixels` is uint8 `[N, F, 3, H, W]`, `fps` its frames a second."""

    ids: tuple[str, ...]
    targets: Targets
    keys: tuple[str, ...]
    pixels: Tensor
    fps: float

    def __len__(self) -> int:
        return len(self.ids)

    def times(self, index: int) -> Sequence[float]:
        """When each frame is shown, in seconds from the first."""
        return tuple(number / self.fps for number in range(self.pixels[index].shape[0]))

    def read(self, index: int, frames: Sequence[int]) -> Iterator[Tensor]:
        """The frames with these numbers, uint8 `[3, H, W]`; they share memory with `pixels`."""
        for number in frames:
            yield self.pixels[index, number]

    def select(self, positions: Sequence[int]) -> ArrayVideos:
        """The split of the videos at these positions; copies their pixels."""
        return ArrayVideos(
            tuple(self.ids[position] for position in positions),
            tuple(self.targets[position] for position in positions),
            tuple(self.keys[position] for position in positions),
            self.pixels[list(positions)],
            self.fps,
        )


@dataclass(frozen=True)
class FramesOf:
    """A split of single frames of videos: of each video the middles of `per_video` equal parts, side by side. A video
    with fewer frames than parts gives some of them more than once."""

    videos: VideoSplit
    per_video: int

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"{name}#{part}" for name in self.videos.ids for part in range(self.per_video))

    @cached_property
    def targets(self) -> Targets:
        return tuple(target for target in self.videos.targets for _ in range(self.per_video))

    @cached_property
    def keys(self) -> tuple[str, ...]:
        parts = range(self.per_video)
        return tuple(f"{key}-{part}-{self.per_video}" for key in self.videos.keys for part in parts)

    def __len__(self) -> int:
        return len(self.videos) * self.per_video

    def read(self, index: int) -> Tensor:
        """Pixels of one frame, uint8 `[3, H, W]`; DataError naming the video's file when it cannot be decoded."""
        video, part = divmod(index, self.per_video)
        number = middle(len(self.videos.times(video)), part, self.per_video)
        (pixels,) = self.videos.read(video, (number,))
        return pixels


@lru_cache(_OPEN_AT_ONCE)
def _timeline(path: Path, key: str) -> Timeline:  # noqa: ARG001 (a changed file has another key, and is read again)
    return timeline(path)


def _by_torchcodec(path: Path, timeline: Timeline, numbers: Sequence[int]) -> Iterator[Tensor]:
    """Frames uint8 `[H, W, 3]` up to the first of `numbers` that torchcodec cannot give just as PyAV would."""
    decoder_class = _torchcodec()
    if decoder_class is None or not timeline.stamps:
        return
    try:
        decoder = decoder_class(path, dimension_order="NHWC", num_ffmpeg_threads=1)
        said = decoder.metadata
        for number in numbers:
            frame = decoder.get_frame_at(number)
            seconds = frame.pts_seconds - said.begin_stream_seconds
            if abs(seconds - timeline.times[number]) > _TOLERANCE or frame.data.shape[:2] != (said.height, said.width):
                return
            yield frame.data
    except (IndexError, RuntimeError, ValueError):
        return  # a file that torchcodec does not take; what is wrong with it, if anything, PyAV says


@cache
def _torchcodec() -> Any:
    """torchcodec's decoder of videos; None where the package is missing, or the FFmpeg that it needs."""
    try:
        return import_module("torchcodec.decoders").VideoDecoder
    except (ImportError, OSError, RuntimeError):
        return None
