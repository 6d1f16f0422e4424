"""The dataset `shards`: labelled images or videos in WebDataset tars or Parquet files, on a disk or behind a URL."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from toolkit.api.contracts import Data, DataSpec, Split, VideoSplit
from toolkit.api.errors import DataError, counted, first_few
from toolkit.data.shards.cache import BlockCache
from toolkit.data.shards.images import ShardImages
from toolkit.data.shards.index import ABSENT, Column, Index
from toolkit.data.shards.opened import USUAL_LABEL, open_index
from toolkit.data.shards.reader import BlockReader
from toolkit.data.splits import SPLITS
from toolkit_shards.division import Division
from toolkit_shards.sample import sample

USUAL, STORED = 224, 256
WHERE = "set data.root to a folder, or data.url to a URL, of .tar or .parquet files"


def shards(  # noqa: PLR0913 - the keys of a recipe
    root: Path | None,
    *,
    url: str | None = None,
    index: str | None = None,
    content: str = "",
    label: str = "",
    train: str | None = None,
    valid: str | None = None,
    test: str | None = None,
    split: str | None = None,
    group: str | None = None,
    valid_share: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    split_seed: int = 0,
    frames_per_video: Annotated[int, Field(ge=1)] = 4,
    clips: bool = False,
    cache_bytes: int = 50 << 30,
) -> Data:
    """Labelled images or videos in WebDataset tars or Parquet files, on a disk or behind a URL.

    Blocks of shards are fetched ahead of use and kept in a cache of `input.cache_gb`. The command `data index URL`
    notes once where each item lies; of shards on a disk the first run does that. Splits come from lists of shards, a
    column, or from the names of shards (train-*, validation-*, test-*). What none of these gives is taken from train by
    a hash of the item, or of a column of groups; so byte-identical items stay on one side. A recipe with `[clip]` sees
    clips of the videos, any other one single frames of them. Without a place it writes shards of its built-in sample.

    url: where the shards lie instead of `root`: s3://, gs://, hf://, https://; a folder, or a pattern such as
        https://HOST/train-{000..099}.tar
    index: file that data index has written with --output; unset: the one in the cache
    content: column of the encoded images or videos, of Parquet files with several; unset: the only one
    label: column of the labels; of tars a key of the .json files, or a suffix; unset: cls of tars, label of Parquet
    train: names of the shards to train on, with * for any part: train-*.tar
    valid: names of the shards to validate on
    test: names of the shards to test on
    split: column that holds the split of each item: train, valid or test
    group: column of groups, whose items stay on one side where shares are taken
    valid_share: share of train for validation, 0 to 1, where nothing gives a validation split
    test_share: share of train for the test, 0 to 1, where nothing gives a test split
    split_seed: any whole number; another one gives other shares
    frames_per_video: how many evenly spaced frames of each video become items where single frames are seen
    """
    division = Division(
        {"train": train, "valid": valid, "test": test}, split, group, valid_share, test_share, split_seed
    )
    drawn = root is None and url is None and index is None
    place = sample(clips=clips) if drawn else _place(root, url)
    asked = [label, *(column for column in (split, group) if column)]
    found = open_index(place, asked, content=content, file=Path(index) if index else None)
    if clips and found.medium != "video":
        raise DataError(
            f"{place}: holds images, but clips need videos",
            next_step="give shards of videos, or remove [clip] and choose a model of images",
        )
    labels = found.columns[label or USUAL_LABEL[found.kind]]
    parts = division.divide(found, place)
    reader = BlockReader(found, place_of_shards(place, found), BlockCache(cache_bytes))
    classes, targets = _classes(labels)
    items = {name: _labelled(parts.items[name], labels.codes, targets) for name in SPLITS}
    if not len(items["train"][0]):
        raise DataError(f"{place}: no labelled {found.medium} to train on", next_step=WHERE)
    frames = frames_per_video if found.medium == "video" and not clips else None
    splits = {name: _split(found, reader, *held, frames) for name, held in items.items()}
    unlabelled = sum(map(len, parts.items.values())) - sum(len(held) for held, _ in items.values())
    return Data(
        replace(_spec(classes, found), sample=drawn, frames_per_video=frames),
        splits["train"],
        splits["valid"],
        splits["test"],
        protocol={
            **division.protocol(parts),
            "split_hash": _split_hash(found, items),
            **({"frames_per_video": frames} if frames else {}),
        },
        notes=(
            *found.notes,
            *parts.notes,
            *([f"skipped {counted(unlabelled, found.medium)} without a label"] if unlabelled else []),
        ),
        sources=_sources(found, [*splits.values()], group, frames),
    )


def _labelled(items: Any, codes: Any, targets: Any) -> tuple[Any, Any]:
    """Those of `items` that have a label, and the class of each. `codes` are of all labels, `targets` has the class of
    each code."""
    found = codes[items]
    there = found != ABSENT
    if not there.all():
        items, found = items[there], found[there]
    return items, targets[found]


def _split(index: Index, reader: BlockReader, items: Any, labels: Any, frames: int | None) -> Split | VideoSplit:
    if index.medium == "image":
        return ShardImages(index, reader, items, labels)
    from toolkit.data.shards.videos import ShardFrames, ShardVideos

    videos = ShardVideos(index, reader, items, labels)
    return ShardFrames(videos, frames) if frames else videos


def _sources(index: Index, splits: Sequence[Any], group: str | None, frames: int | None) -> dict[str, str]:
    """The group of each item that has one; of a single frame, else its video."""
    found: dict[str, str] = {}
    for split in splits:
        found |= split.sources if frames else {}
        if group:
            column, each = index.columns[group], frames or 1
            codes = column.codes[(split.videos if frames else split).items]
            found |= {
                split.ids[at * each + part]: str(column.values[code])
                for at, code in enumerate(codes.tolist())
                if code != ABSENT
                for part in range(each)
            }
    return found


def _place(root: Path | None, url: str | None) -> str:
    if url and root:
        raise DataError(f"data.root ({root}) and data.url are both set", next_step="remove one of them")
    if url:
        return url
    if root is None:
        raise DataError("data.index is set, but not where the shards lie", next_step=WHERE)
    root = root.resolve()
    if not root.exists():
        raise DataError("not found", path=root, next_step=WHERE)
    return str(root)


def place_of_shards(place: str, index: Index) -> str:
    """What the names of shards are relative to: the place itself, if it is a folder."""
    return index.base if re.search(r"[*?{]|\.(tar|parquet)$", place) else place


def _classes(labels: Column) -> tuple[tuple[str, ...], Any]:
    """Names of classes, and the class of each value."""
    import numpy as np

    names = labels.names
    if names is None:
        return tuple(map(str, labels.values)), np.arange(
            len(labels.values), dtype=np.min_scalar_type(len(labels.values))
        )
    if wrong := [value for value in labels.values if value not in names and value not in range(len(names))]:
        raise DataError(
            f"label {wrong[0]} is not one of the {len(names)} classes that the files name: {first_few(names)}",
            next_step="write the files again",
        )
    targets = [value if isinstance(value, int) else names.index(value) for value in labels.values]
    return names, np.array(targets, dtype=np.min_scalar_type(len(names)))


def _spec(classes: Sequence[str], index: Index) -> DataSpec:
    """Items as large as they are, where they are small."""
    side = index.side or STORED
    if side >= STORED:
        return DataSpec(tuple(classes), size=USUAL, stored=STORED)
    return DataSpec(tuple(classes), size=min(side, USUAL))


def _split_hash(index: Index, held: Mapping[str, tuple[Any, Any]]) -> str:
    """12 hexadecimal digits that change when an item moves, comes, goes or changes."""
    import numpy as np

    digest = hashlib.sha256(np.ascontiguousarray(index.arrays["digest"]).tobytes())
    for name in sorted(held):
        digest.update(name.encode())
        for array in held[name]:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:12]
