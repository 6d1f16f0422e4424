"""The dataset `har`: labelled actions as images, split so that nothing of one source stands on two sides."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from toolkit.contracts import Data, DataSpec, Split
from toolkit.images import ImageFiles, Listing
from toolkit.splits import SPLITS, Contents, Partition, contents, merge_groups, partition, split_hash
from toolkit_har.frames import Kept, VideoFrames, keep_frames, shown_progress
from toolkit_har.groups import compile_pattern, find_groups
from toolkit_har.layouts import find_files, some
from toolkit_har.sample import draw_clips, flatten
from toolkit_har.stick_figure import ACTIONS, REVERSED_PAIRS

SAMPLE_SIZE = 64
SAMPLE_FRAMES = 2


def har(
    root: Path | None,
    *,
    valid_share: Annotated[float, Field(ge=0, lt=1)] = 0.15,
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.15,
    split_seed: int = 0,
    group_pattern: str | None = None,
    frames_per_video: Annotated[int, Field(ge=1)] = 4,
    sample_clips: Annotated[int, Field(ge=3)] = 120,
) -> Data:
    """Human action recognition from single images.

    `root` holds the Kaggle layout (train/ and Training_set.csv with filename,label), class folders of images, or class
    folders of videos, whose frames are taken once and kept in the cache directory. A groups.csv (path,label,group)
    names items that come from one source. Splits are stratified by class; byte-identical files, items of one group
    and frames of one video stay on one side. Without `root`: frames of animated stick figures, drawn by code.

    valid_share: share of the items for validation, 0 to 1
    test_share: share of the items for the test, 0 to 1
    split_seed: any whole number; another one gives other splits
    group_pattern: regular expression with one group in parentheses, searched in each path relative to `root`: items
        for which the group reads the same are never split; replaces groups.csv
    frames_per_video: how many evenly spaced frames of each video become items
    sample_clips: clips of each action in the built-in sample; two frames of each become items
    """
    pattern = compile_pattern(group_pattern)
    if valid_share + test_share >= 1:
        raise ValueError(
            f"test_share: must leave a share for train, got {test_share:g} beside valid_share {valid_share:g}"
        )
    rule = _Rule(valid_share, test_share, split_seed)
    if root is None:
        return _sample(rule, sample_clips)
    return _real(root.resolve(), rule, pattern, frames_per_video)


@dataclass(frozen=True)
class _Rule:
    """How the items are divided."""

    valid_share: float
    test_share: float
    seed: int

    def divide(
        self, ids: Sequence[str], targets: Sequence[int], classes: Sequence[str], groups: Sequence[str] | None = None
    ) -> Partition:
        return partition(
            ids,
            targets,
            classes=classes,
            valid_share=self.valid_share,
            test_share=self.test_share,
            seed=self.seed,
            groups=groups,
        )

    def protocol(self, splits: Sequence[Split], grouping: str) -> dict[str, str | int | float]:
        return {
            "split": "stratified",
            "split_hash": split_hash({name: split.ids for name, split in zip(SPLITS, splits, strict=True)}),
            "split_seed": self.seed,
            "valid_share": self.valid_share,
            "test_share": self.test_share,
            "grouping": grouping,
        }


def _real(root: Path, rule: _Rule, pattern: re.Pattern[str] | None, frames: int) -> Data:
    found = find_files(root)
    listing = found.listing
    groups = find_groups(listing, pattern)
    known = contents(listing.paths)
    parts = rule.divide(listing.ids, listing.targets, listing.classes, merge_groups(groups.names, known.identical))
    splits: list[Split]
    if found.videos:
        kept = _kept_frames(listing, known, frames)
        splits = [_frames_of(listing, known, kept, positions) for positions in _sides(parts)]
    else:
        images = ImageFiles(listing.ids, listing.targets, known.keys, listing.paths)
        splits = [images.select(positions) for positions in _sides(parts)]
    protocol = rule.protocol(splits, groups.rule) | ({"frames_per_video": frames} if found.videos else {})
    notes = (*found.notes, *groups.notes, *_twins(listing, known), *_balance(listing), *parts.notes)
    return Data(DataSpec(listing.classes, size=224, stored=256), splits[0], splits[1], splits[2], protocol, notes)


def _sides(parts: Partition) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return parts.train, parts.valid, parts.test


def _kept_frames(listing: Listing, known: Contents, frames: int) -> list[Kept]:
    with shown_progress() as progress:
        return keep_frames(listing.paths, known.keys, frames, progress)


def _frames_of(listing: Listing, known: Contents, kept: Sequence[Kept], positions: Sequence[int]) -> VideoFrames:
    places = [(position, number) for position in positions for number in range(kept[position].count)]
    return VideoFrames(
        ids=tuple(f"{listing.ids[position]}#{number}" for position, number in places),
        targets=tuple(listing.targets[position] for position, _ in places),
        keys=tuple(f"{kept[position].path.stem}-{known.keys[position][:8]}-{number}" for position, number in places),
        files=tuple(kept[position].path for position, _ in places),
        numbers=tuple(number for _, number in places),
    )


def _twins(listing: Listing, known: Contents) -> Iterator[str]:
    if not known.identical:
        return
    labelled_twice = sum(len({listing.targets[position] for position in twins}) > 1 for twins in known.identical)
    kept = f"{some(len(known.identical), 'set')} of byte-identical files, each kept on one side of the split"
    yield f"{kept}; {labelled_twice} of them under more than one label" if labelled_twice else kept


def _balance(listing: Listing) -> Iterator[str]:
    counts = Counter(listing.targets)
    fewest, most = (choose(counts, key=lambda target: counts[target]) for choose in (min, max))
    if counts[most] > 1.5 * counts[fewest]:
        yield (
            f"the classes are unbalanced: {counts[fewest]} of {listing.classes[fewest]}, "
            f"{counts[most]} of {listing.classes[most]}"
        )


def _sample(rule: _Rule, clips: int) -> Data:
    drawn = draw_clips(clips, SAMPLE_FRAMES, SAMPLE_SIZE)
    parts = rule.divide(drawn.ids, drawn.targets, ACTIONS)
    splits = [flatten(drawn.select(positions)) for positions in _sides(parts)]
    pairs = "; ".join(" and ".join(pair) for pair in REVERSED_PAIRS)
    notes = (f"stick figures drawn by code; one frame cannot tell apart: {pairs}", *parts.notes)
    protocol = rule.protocol(splits, "clip") | {"frames_per_video": SAMPLE_FRAMES}
    return Data(DataSpec(ACTIONS, size=SAMPLE_SIZE, sample=True), splits[0], splits[1], splits[2], protocol, notes)
