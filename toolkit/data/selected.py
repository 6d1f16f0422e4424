"""Some items of a split, with targets of their own: of any dataset's, so plugins know nothing of it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.contracts import Blocked, Targets, VideoSplit
from toolkit.data.videos import BlockedFrames, FramesOf

if TYPE_CHECKING:
    from torch import Tensor


def selected(split: Any, positions: Sequence[int], targets: Targets) -> Any:
    """The items of a split of images or videos at these ascending positions, with one of `targets` each. They lie in
    blocks where those of the split do."""
    plain, blocked = (_Videos, _BlockedVideos) if isinstance(split, VideoSplit) else (_Images, _BlockedImages)
    return (blocked if isinstance(split, Blocked) else plain)(split, tuple(positions), targets)


def of_whole_items(split: Any, change: Callable[[Any], Any]) -> Any:
    """What `change` makes of a split; of single frames of videos, those of what it makes of the videos."""
    if not isinstance(split, FramesOf):
        return change(split)
    videos = change(split.videos)
    if videos is split.videos:
        return split
    return (BlockedFrames if isinstance(videos, Blocked) else FramesOf)(videos, split.per_video)


@dataclass(frozen=True, eq=False)
class _Selected:
    split: Any
    positions: tuple[int, ...]
    targets: Targets

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def ids(self) -> Sequence[str]:
        ids = self.split.ids  # once: a split may make its names each time that they are asked for
        return tuple(ids[position] for position in self.positions)

    @cached_property
    def keys(self) -> Sequence[str]:
        keys = self.split.keys
        return tuple(keys[position] for position in self.positions)

    @cached_property
    def paths(self) -> Sequence[Path]:
        """Those of the items; empty where the split has no files."""
        paths = getattr(self.split, "paths", ())
        return tuple(paths[position] for position in self.positions) if paths else ()


class _Images(_Selected):
    def read(self, index: int) -> Tensor:
        pixels: Tensor = self.split.read(self.positions[index])
        return pixels


class _Videos(_Selected):
    def times(self, index: int) -> Sequence[float]:
        times: Sequence[float] = self.split.times(self.positions[index])
        return times

    def read(self, index: int, frames: Sequence[int]) -> Iterator[Tensor]:
        read: Iterator[Tensor] = self.split.read(self.positions[index], frames)
        return read


class _InBlocks(_Selected):
    @cached_property
    def _held(self) -> Counter[int]:
        """How many items there are of each block that has any, in order."""
        ends = list(accumulate(self.split.blocks))
        return Counter(bisect_right(ends, position) for position in self.positions)

    @property
    def blocks(self) -> Sequence[int]:
        return list(self._held.values())

    def expect(self, blocks: Sequence[int]) -> None:
        """Let the split prepare for the items of these blocks."""
        held = list(self._held)
        self.split.expect([held[block] for block in blocks])


class _BlockedImages(_InBlocks, _Images):
    """Images of a split in blocks."""


class _BlockedVideos(_InBlocks, _Videos):
    """Videos of a split in blocks."""
