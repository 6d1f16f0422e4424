"""The dataset `shards`: labelled images in WebDataset tars or Parquet files, on a disk or behind a URL."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from toolkit.api.contracts import Data, DataSpec
from toolkit.api.errors import DataError, counted, first_few
from toolkit.data.shards.cache import BlockCache
from toolkit.data.shards.images import BlockReader, ShardImages
from toolkit.data.shards.index import ABSENT, Column, Index
from toolkit.data.shards.opened import USUAL_LABEL, open_index
from toolkit.data.splits import SPLITS
from toolkit_shards.division import Division

USUAL, STORED = 224, 256
WHERE = "set data.root to a folder, or data.url to a URL, of .tar or .parquet files"


def shards(  # noqa: PLR0913 - the keys of a recipe
    root: Path | None,
    *,
    url: str | None = None,
    index: str | None = None,
    image: str = "",
    label: str = "",
    train: str | None = None,
    valid: str | None = None,
    test: str | None = None,
    split: str | None = None,
    group: str | None = None,
    valid_share: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    split_seed: int = 0,
    cache_bytes: int = 50 << 30,
) -> Data:
    """Labelled images in WebDataset tars or Parquet files, on a disk or behind a URL.

    Blocks of shards are fetched ahead of use and kept in a cache of `input.cache_gb`. The command `data index URL`
    notes once where each image lies; of shards on a disk the first run does that. Splits come from lists of shards, a
    column, or from the names of shards (train-*, validation-*, test-*). What none of these gives is taken from train by
    a hash of the image, or of a column of groups; so byte-identical images stay on one side. It has no built-in sample.

    url: where the shards lie instead of `root`: s3://, gs://, hf://, https://; a folder, or a pattern such as
        https://HOST/train-{000..099}.tar
    index: file that data index has written with --output; unset: the one in the cache
    image: column of the images, of Parquet files with several; unset: the only one
    label: column of the labels; of tars a key of the .json files, or a suffix; unset: cls of tars, label of Parquet
    train: names of the shards to train on, with * for any part: train-*.tar
    valid: names of the shards to validate on
    test: names of the shards to test on
    split: column that holds the split of each image: train, valid or test
    group: column of groups, whose images stay on one side where shares are taken
    valid_share: share of train for validation, 0 to 1, where nothing gives a validation split
    test_share: share of train for the test, 0 to 1, where nothing gives a test split
    split_seed: any whole number; another one gives other shares
    """
    division = Division(
        {"train": train, "valid": valid, "test": test}, split, group, valid_share, test_share, split_seed
    )
    place = _place(root, url)
    asked = [label, *(column for column in (split, group) if column)]
    found = open_index(place, asked, image=image, file=Path(index) if index else None)
    labels = found.columns[label or USUAL_LABEL[found.kind]]
    parts = division.divide(found, place)
    reader = BlockReader(found, place_of_shards(place, found), BlockCache(cache_bytes))
    classes, targets = _classes(labels)
    splits = {name: _labelled(found, reader, parts.items[name], labels.codes, targets) for name in SPLITS}
    if not len(splits["train"]):
        raise DataError(f"{place}: no labelled image to train on", next_step=WHERE)
    unlabelled = sum(map(len, parts.items.values())) - sum(map(len, splits.values()))
    return Data(
        _spec(classes, found),
        splits["train"],
        splits["valid"],
        splits["test"],
        protocol={**division.protocol(parts), "split_hash": _split_hash(found, splits)},
        notes=(
            *found.notes,
            *parts.notes,
            *([f"skipped {counted(unlabelled, 'image')} without a label"] if unlabelled else []),
        ),
    )


def _labelled(index: Index, reader: BlockReader, items: Any, codes: Any, targets: Any) -> ShardImages:
    """The split of those `items` that have a label. `codes` are of all labels, `targets` has the class of each code."""
    found = codes[items]
    there = found != ABSENT
    if not there.all():
        items, found = items[there], found[there]
    return ShardImages(index, reader, items, targets[found])


def _place(root: Path | None, url: str | None) -> str:
    if url and root:
        raise DataError(f"data.root ({root}) and data.url are both set", next_step="remove one of them")
    if url:
        return url
    if root is None:
        raise DataError("shards has no built-in sample", next_step=WHERE)
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
    """Images as large as they are, where they are small."""
    side = index.side or STORED
    if side >= STORED:
        return DataSpec(tuple(classes), size=USUAL, stored=STORED)
    return DataSpec(tuple(classes), size=min(side, USUAL))


def _split_hash(index: Index, splits: Mapping[str, ShardImages]) -> str:
    """12 hexadecimal digits that change when an item moves, comes, goes or changes."""
    import numpy as np

    digest = hashlib.sha256(np.ascontiguousarray(index.arrays["digest"]).tobytes())
    for name in sorted(splits):
        digest.update(name.encode())
        for array in (splits[name].items, splits[name].labels):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:12]
