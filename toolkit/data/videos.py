"""Videos as splits: files that are decoded when read, videos already in memory, and single frames of either.

What becomes of a file that is not as it should be:

| file | what is read |
| --- | --- |
| cut short | the frames that are left; `DataError` where its index is lost with its end, as in most MP4 files |
| empty, or no video (text, say) | `DataError` |
| sound only, or sound with a picture for its cover | `DataError` |
| a single frame | that frame |
| rotated or mirrored by its metadata | frames as players show them; by an angle in between, turned to the nearest |
| pixels that are not square | frames with square pixels: the side that is too short grows |
| several video streams | the first that is flagged as the default, else the first |
| several recordings in a row, whose time begins again | all of them, one after the other |
| variable frame rate | every frame, at its own time; the last one for as long as its packet says |
| a gap in time | the frame before it stays on show |
| larger than the model's input, 4K say | every frame, in its own size, never more than one of them in memory |
| odd width or height | frames of that size |
| another suffix than its format | as if the suffix were right |
| a frame that cannot be decoded | the last one before it; at the start the first one that can; it is counted |
| frames of several sizes | all in the size that the stream says it has at its start |
| times that are missing or do not ascend | the durations of its frames summed; without those, 30 frames a second |

None of them takes longer than a file of its length that is whole, read twice.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.clips import Times, duration, middle
from toolkit.data.decoding import read_frames, timeline
from toolkit.data.timeline import Timeline

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.api.contracts import Targets, VideoSplit

_OPEN_AT_ONCE = 64
"""Timelines kept between a video's `times` and its `read`; of all others only the times stay, 8 bytes a frame."""


@dataclass(frozen=True)
class VideoFiles:
    """A split of N video files."""

    ids: tuple[str, ...]
    targets: Targets
    keys: tuple[str, ...]
    paths: tuple[Path, ...]
    _times: dict[int, tuple[array[float], float]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def times(self, index: int) -> Times:
        """When each frame is shown, in seconds from the first, and when the last one ends; DataError naming the file
        when it cannot be opened or has no frames."""
        known = self._times.get(index)
        if known is None:
            times = _timeline(self.paths[index], self.keys[index]).times
            known = self._times.setdefault(index, (array("d", times), duration(times)))
        return Times(*known)

    def read(self, index: int, frames: Sequence[int]) -> Iterator[Tensor]:
        """The frames with these numbers, uint8 `[3, H, W]` laid out by pixels (channels last), as `read_frames` gives
        them. Raises DataError naming the file when none of its frames can be decoded."""
        import torch

        path = self.paths[index]
        for pixels in read_frames(path, _timeline(path, self.keys[index]), frames):
            yield torch.from_numpy(pixels).permute(2, 0, 1)

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

    def times(self, index: int) -> Times:
        """When each frame is shown, in seconds from the first, and when the last one ends."""
        count = self.pixels[index].shape[0]
        return Times((number / self.fps for number in range(count)), count / self.fps)

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
    def ids(self) -> Sequence[str]:
        return tuple(f"{name}#{part}" for name in self.videos.ids for part in range(self.per_video))

    @cached_property
    def targets(self) -> Targets:
        return tuple(target for target in self.videos.targets for _ in range(self.per_video))

    @cached_property
    def keys(self) -> Sequence[str]:
        parts = range(self.per_video)
        return tuple(f"{key}-{part}-{self.per_video}" for key in self.videos.keys for part in parts)

    @property
    def sources(self) -> dict[str, str]:
        """The video of each frame, by id."""
        return {f"{name}#{part}": name for name in self.videos.ids for part in range(self.per_video)}

    def __len__(self) -> int:
        return len(self.videos) * self.per_video

    def read(self, index: int) -> Tensor:
        """Pixels of one frame, uint8 `[3, H, W]`; DataError naming the video's file when it cannot be decoded."""
        video, part = divmod(index, self.per_video)
        number = middle(len(self.videos.times(video)), part, self.per_video)
        (pixels,) = self.videos.read(video, (number,))
        return pixels


@dataclass(frozen=True)
class BlockedFrames(FramesOf):
    """The same of a split whose videos lie in blocks."""

    videos: Any

    @property
    def blocks(self) -> Sequence[int]:
        return [count * self.per_video for count in self.videos.blocks]

    def expect(self, blocks: Sequence[int]) -> None:
        """Let the videos prepare for the frames of these blocks."""
        self.videos.expect(blocks)


@lru_cache(_OPEN_AT_ONCE)
def _timeline(path: Path, key: str) -> Timeline:  # noqa: ARG001 (a changed file has another key, and is read again)
    return timeline(path)
