"""The dataset `parquet`: labelled images in Parquet files, as `datasets` of Hugging Face writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

from pydantic import Field
from toolkit.api.contracts import Data, DataSpec
from toolkit.api.errors import DataError
from toolkit.data.splits import SPLITS, Partition, merge_groups, partition, split_hash

from toolkit_parquet.columns import Columns
from toolkit_parquet.listing import Listing, list_rows
from toolkit_parquet.rows import ParquetImages
from toolkit_parquet.shards import WHERE, find_shards

USUAL, STORED = 224, 256
MEASURED = 9
"""Images whose sides are looked at."""


def parquet(
    root: Path | None,
    *,
    image: str = "image",
    label: str = "label",
    valid_share: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.2,
    split_seed: int = 0,
) -> Data:
    """Labelled images in the Parquet files of a folder, as `datasets` of Hugging Face writes them.

    Splits come from the names of files (train-*, validation-*, test-*, or folders with these names). One that is
    missing is taken from train, by class; byte-identical images stay on one side of it. Rows without a label are left
    out. Images are read by row when they are needed; at the start all are read once, to find those that are identical.

    image: column of the encoded images
    label: column of the labels: class indices or texts
    valid_share: share of train for validation, 0 to 1, where no file is for that
    test_share: share of train for the test, 0 to 1, where no file is for that
    split_seed: any whole number; another one gives another split
    """
    if valid_share + test_share >= 1:
        raise ValueError(f"test_share: must leave a share for train, got {test_share:g} and {valid_share:g}")
    if root is None:
        raise DataError("parquet has no built-in sample", next_step=f"--set data.root=FOLDER. {WHERE}")
    root = root.resolve()
    shards = find_shards(root)
    named = any(shard.split for shard in shards)
    listing = list_rows([shard for shard in shards if shard.split or not named], Columns(image, label))
    shares = _Shares(valid_share, test_share, split_seed)
    parts = _divide(root, listing, shares)
    train, valid, test = (listing.items.select(getattr(parts, name)) for name in SPLITS)
    passed_over = [shard.name for shard in shards if named and not shard.split]
    return Data(
        _spec(listing.classes, train),
        train,
        valid,
        test,
        protocol=shares.protocol(listing, {"train": train.ids, "valid": valid.ids, "test": test.ids}),
        notes=(*listing.notes, *_no_split(passed_over), *_twins(listing, parts), *parts.notes),
    )


@dataclass(frozen=True)
class _Shares:
    """Of train, for the splits that no file is for."""

    valid: float
    test: float
    seed: int

    def missing(self, listing: Listing) -> dict[str, float]:
        """By split."""
        shares = {"valid": self.valid, "test": self.test}
        return {name: share for name, share in shares.items() if name not in listing.splits}

    def protocol(self, listing: Listing, ids: dict[str, tuple[str, ...]]) -> dict[str, str | int | float]:
        """How the splits were made, with all that it depends on."""
        missing = self.missing(listing)
        return {
            "split": "files" if any(listing.splits) else "stratified",
            "split_hash": split_hash(ids),
            **({"split_seed": self.seed} if missing else {}),
            **{f"{name}_share": share for name, share in missing.items()},
        }


def _divide(root: Path, listing: Listing, shares: _Shares) -> Partition:
    items, missing = listing.items, shares.missing(listing)
    given = {name: [at for at, split in enumerate(listing.splits) if (split or "train") == name] for name in SPLITS}
    pool = given["train"]
    if not pool:
        raise DataError("holds no labelled row to train on", path=root, next_step=WHERE)
    groups = merge_groups(items.ids, listing.identical())
    cut = partition(
        [items.ids[at] for at in pool],
        [items.targets[at] for at in pool],
        classes=listing.classes,
        valid_share=missing.get("valid", 0),
        test_share=missing.get("test", 0),
        seed=shares.seed,
        groups=[groups[at] for at in pool],
    )
    train, valid, test = (tuple(pool[at] for at in getattr(cut, name)) for name in SPLITS)
    return Partition(train, tuple(given["valid"]) or valid, tuple(given["test"]) or test, cut.notes)


def _spec(classes: tuple[str, ...], train: ParquetImages) -> DataSpec:
    """Images as large as they are, where they are small."""
    sides = list(_short_sides(train))
    side = int(median(sides)) if sides else STORED
    return DataSpec(classes, size=USUAL, stored=STORED) if side >= STORED else DataSpec(classes, size=min(side, USUAL))


def _short_sides(images: ParquetImages) -> Iterator[int]:
    """Of a few images, evenly spaced, that can be decoded."""
    for place in sorted({step * len(images) // MEASURED for step in range(MEASURED)}):
        try:
            yield min(images.read(place).shape[1:])
        except DataError:  # whether that is allowed, the core decides when it reads the image
            continue


def _no_split(names: Sequence[str]) -> Iterator[str]:
    if names:
        yield f"skipped files that belong to no split: {', '.join(names[:3])}{' and others' if names[3:] else ''}"


def _twins(listing: Listing, parts: Partition) -> Iterator[str]:
    identical = listing.identical()
    if identical:
        side = {at: name for name in SPLITS for at in getattr(parts, name)}
        torn = sum(len({side[at] for at in positions}) > 1 for positions in identical)
        kept = f"{torn} of them in files of different splits" if torn else "each kept on one side of the split"
        yield f"{len(identical)} sets of byte-identical images, {kept}"
