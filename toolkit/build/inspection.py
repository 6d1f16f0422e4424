"""A look at the data of a recipe before a run: what the splits hold, a first item of each, and the room they need."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

from toolkit.api.clips import evaluation_clips, middles, seen
from toolkit.api.contract_checks import read_frames_of, read_image_of
from toolkit.api.contracts import Data, DataSpec, Split, VideoSplit
from toolkit.api.errors import DataError
from toolkit.api.files import cache_directory
from toolkit.build.assemble import corrupt_of, memory_for_pixels
from toolkit.build.plan import Plan
from toolkit.data.damage import Damage, hearing_of_damage
from toolkit.data.geometry import covering
from toolkit.data.splits import NO_CLASS, SPLITS, count_classes
from toolkit.data.store.corrupt import Corrupt
from toolkit.data.store.storage import Place, cache_file, place_for, stored_shape
from toolkit.system.machine import memory_available

TRIED = 10
"""Items of a split that are tried before it counts as damaged, where the recipe skips damaged ones."""
LOOKED_AT = 100
"""Frames of a video at most, spread over it, that are decoded to find damage."""


@dataclass(frozen=True)
class First:
    """The first item of a split that could be decoded."""

    name: str
    height: int
    width: int
    frames: int | None
    """Of a video, those that are kept; None for an image."""
    damage: Damage | None = None
    """Of a video, its frames that cannot be decoded."""
    damaged: tuple[str, ...] = ()
    """Why the items before it could not be decoded."""


@dataclass(frozen=True)
class Room:
    """Where the decoded pixels of a split are kept."""

    bytes: int
    place: Place
    new_bytes: int
    """Of a file, what it still has to take of the disk."""


@dataclass(frozen=True)
class Inspection:
    """What a look at a recipe's data finds."""

    data: Data
    first: dict[str, First]
    """Of each split that has items."""
    rooms: dict[str, Room]
    memory_free: int
    disk_free: int
    cache: Path

    @property
    def spec(self) -> DataSpec:
        return self.data.spec

    @cached_property
    def counts(self) -> dict[str, Counter[int]]:
        """Items of each class, by split; an item of several classes counts for each. Empty where targets are
        numbers."""
        if self.spec.targets == "number":
            return {name: Counter() for name in SPLITS}
        return {name: count_classes(getattr(self.data, name).targets) for name in SPLITS}

    @cached_property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Where targets are numbers, the lowest and the highest one of each output in the training split."""
        if self.spec.targets != "number":
            return {}
        columns = zip(*cast(Sequence[Sequence[float]], self.data.train.targets), strict=True)
        return {name: (min(column), max(column)) for name, column in zip(self.spec.classes, columns, strict=True)}

    def without_class(self, split: str) -> int:
        return self.counts[split][NO_CLASS]

    @property
    def lacks_disk(self) -> bool:
        return sum(room.new_bytes for room in self.rooms.values()) > self.disk_free


def inspect(plan: Plan, data: Data) -> Inspection:
    """Look at `data`, the data of `plan`. Raises DataError where a first item cannot be decoded and may not be
    skipped, or a split to train on has no items."""
    if not len(data.train):
        show = f"python -m toolkit plugins show {plan.one('dataset').name}"
        raise DataError("the training split has no items", next_step=f"see how to divide it: {show}")
    corrupt = corrupt_of(plan.resolved)
    splits = {name: getattr(data, name) for name in SPLITS if len(getattr(data, name))}
    first = {name: _first(split, data.spec, corrupt, training=name == "train") for name, split in splits.items()}
    rooms = dict(_rooms(plan, data.spec, splits, first))
    folder = cache_directory()
    return Inspection(data, first, rooms, memory_available(), _free_disk(folder), folder)


def _first(split: Split | VideoSplit, spec: DataSpec, corrupt: Corrupt, *, training: bool) -> First:
    damaged: list[str] = []
    for index in range(min(len(split), TRIED)):
        try:
            with hearing_of_damage() as found:
                height, width, frames = _decoded(split, spec, index, training=training)
            damage = corrupt.accept(split.ids[index], found)
        except DataError as error:
            if not corrupt.skip:
                raise
            damaged.append(error.message)
        else:
            return First(split.ids[index], height, width, frames, damage, tuple(damaged))
    raise DataError(
        f"none of the first {len(damaged)} items can be decoded: {damaged[0]}", next_step="repair or replace the files"
    )


def _decoded(split: Split | VideoSplit, spec: DataSpec, index: int, *, training: bool) -> tuple[int, int, int | None]:
    """Height, width and, of a video, the number of the frames that are kept."""
    if not isinstance(split, VideoSplit):
        height, width = read_image_of(split, index).shape[1:]
        return height, width, None
    times = split.times(index)
    if spec.clip is None:
        frames = [0]
    elif training:
        frames = seen(spec.clip, times)
    else:
        frames = sorted({number for clip in evaluation_clips(spec.clip, times) for number in clip})
    looked_at = [frames[place] for place in middles(len(frames), LOOKED_AT)]
    height = width = 0
    for frame in read_frames_of(split, index, looked_at):
        height, width = frame.shape[1:]
    return height, width, len(frames)


def _rooms(
    plan: Plan, spec: DataSpec, splits: dict[str, Split | VideoSplit], first: dict[str, First]
) -> Iterator[tuple[str, Room]]:
    """As a run shares out memory and the cache: the first splits get what there is."""
    table = plan.resolved.input
    memory, cache = memory_for_pixels(table), int(table.cache_gb * 2**30)
    for name, split in splits.items():
        needed = len(split) * _item_bytes(spec, first[name])
        if isinstance(split, VideoSplit):
            yield name, Room(needed, "file" if needed <= cache else "nowhere", min(needed, cache))
            continue
        place = place_for(needed, memory_bytes=memory, cache_bytes=cache)
        memory -= needed if place == "memory" else 0
        yield name, Room(needed, place, _new_bytes(cache_file(split, spec), needed) if place == "file" else 0)


def _new_bytes(kept: Path, needed: int) -> int:
    return max(needed - (kept.stat().st_blocks * 512 if kept.is_file() else 0), 0)


def _item_bytes(spec: DataSpec, item: First) -> int:
    """Of a video as many frames as its first one has, with their short side at the stored size."""
    if item.frames is None:
        return math.prod(stored_shape(spec))
    side = spec.stored_size
    height, width = covering(item.height, item.width, side) if spec.fit == "crop" else (side, side)
    return item.frames * height * width * 3


def _free_disk(folder: Path) -> int:
    """Free bytes where the cache lies, which need not exist yet."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free
