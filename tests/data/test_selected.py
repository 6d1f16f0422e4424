"""Some items of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.api.contracts import Blocked
from toolkit.data.selected import of_whole_items, selected
from toolkit.data.videos import BlockedFrames


@dataclass
class Counting:
    """A split that makes its names each time they are asked for."""

    asked: list[str] = field(default_factory=list)
    targets: tuple[int, ...] = (0, 1, 0, 1)

    def __len__(self) -> int:
        return 4

    @property
    def ids(self) -> Sequence[str]:
        self.asked.append("ids")
        return [f"item {number}" for number in range(4)]

    @property
    def keys(self) -> Sequence[str]:
        self.asked.append("keys")
        return [f"key {number}" for number in range(4)]

    def read(self, index: int) -> Any:
        return index


def test_names_are_asked_for_once_however_many_there_are() -> None:
    """Else a selection of a selection takes time as the square of its items."""
    split = Counting()
    some = selected(selected(split, [0, 2, 3], (0, 0, 1)), [0, 2], (0, 1))
    split.asked.clear()
    for _ in range(2):
        assert (some.ids, some.keys, some.paths) == (("item 0", "item 3"), ("key 0", "key 3"), ())
    assert all(split.asked.count(what) <= 1 for what in ("ids", "keys"))
    assert [some.read(index) for index in range(2)] == [0, 3]


@dataclass
class InBlocks(Counting):
    """The first block has one item, the second none of those that are selected, the last two items."""

    blocks: Sequence[int] = (1, 1, 2)
    expected: list[Sequence[int]] = field(default_factory=list)

    def expect(self, blocks: Sequence[int]) -> None:
        self.expected.append(blocks)


class VideosInBlocks(InBlocks):
    def times(self, index: int) -> Sequence[float]:
        return [float(index)]


def test_items_of_blocks_lie_in_blocks() -> None:
    """Else the shards of a dataset are fetched again for each item."""
    split = InBlocks()
    some = selected(split, [0, 2, 3], (0, 0, 1))
    assert isinstance(some, Blocked)
    assert some.blocks == [1, 2]
    some.expect([1, 0])
    assert split.expected == [[2, 0]]
    assert not isinstance(selected(Counting(), [0, 2], (0, 0)), Blocked)


def test_frames_of_videos_in_blocks_lie_in_blocks_too() -> None:
    split = VideosInBlocks()
    frames = of_whole_items(BlockedFrames(split, 2), lambda videos: selected(videos, [0, 3], (0, 1)))
    assert frames.ids == ("item 0#0", "item 0#1", "item 3#0", "item 3#1")
    assert isinstance(frames, Blocked)
    assert frames.blocks == [2, 2]
    frames.expect([1])
    assert split.expected == [[2]]
    assert of_whole_items(frames, lambda videos: videos) is frames
