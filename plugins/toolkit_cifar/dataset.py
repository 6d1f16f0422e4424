"""The dataset `cifar10`: its own training and test images; the validation split is cut from the training images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from toolkit.api.contracts import Data, DataSpec
from toolkit.api.errors import DataError, first_few, setting
from toolkit.api.files import cache_directory
from toolkit.data.folders import Listing, folder_below, list_class_folders
from toolkit.data.images import ArrayItems, ImageFiles
from toolkit.data.splits import partition, split_hash, stat_key
from toolkit_cifar import official
from toolkit_cifar.sample import KINDS, draw_objects

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
WHERE = (
    f"Get cifar-10-python.tar.gz from {official.PAGE} and unpack it there (the folder cifar-10-batches-py), or set "
    "data.download = true, or put images at train/<class>/ and test/<class>/. Leave data.root out to use the built-in "
    "sample."
)


def cifar10(
    root: Path | None,
    *,
    valid_share: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    split_seed: int = 0,
    download: bool = False,
    sample_images: Annotated[int, Field(ge=1, le=10_000)] = 300,
) -> Data:
    """CIFAR-10: 32 x 32 colour images of ten classes, with their official test split.

    `root` holds the official files (cifar-10-batches-py) or image folders train/<class>/ and test/<class>/ (png, jpg).
    Without `root`: coloured objects, drawn by code.

    valid_share: share of the training images set aside for validation, 0 to 1; 0 trains on all of them
    split_seed: any whole number; another one sets other images aside
    download: get the official files into `root` (without `root`, into the cache directory) unless they are there
    sample_images: training images of each class in the built-in sample; its test has a fifth as many
    """
    if download:
        root = root or cache_directory() / "cifar10"
        official.download(root)
    found = _load(root.resolve()) if root else _sample(sample_images)
    return _divided(found, valid_share, split_seed)


@dataclass(frozen=True)
class _Found:
    """Training and test items as they were published."""

    classes: tuple[str, ...]
    train: ArrayItems | ImageFiles
    test: ArrayItems | ImageFiles
    sample: bool = False


def _divided(found: _Found, valid_share: float, seed: int) -> Data:
    parts = partition(
        found.train.ids, found.train.targets, classes=found.classes, valid_share=valid_share, test_share=0.0, seed=seed
    )
    train, valid = found.train.select(parts.train), found.train.select(parts.valid)
    ids = {"train": train.ids, "valid": valid.ids, "test": found.test.ids}
    protocol: dict[str, str | int | float] = {
        "split": "sample" if found.sample else "official",
        "split_hash": split_hash(ids),
        "split_seed": seed,
        "valid_share": valid_share,
    }
    spec = DataSpec(found.classes, size=official.SIZE, mean=MEAN, std=STD, sample=found.sample)
    notes = ("coloured objects drawn by code",) if found.sample else ()
    return Data(spec, train, valid, found.test, protocol, (*notes, *parts.notes))


def _sample(images: int) -> _Found:
    return _Found(KINDS, draw_objects("train", images), draw_objects("test", max(1, images // 5)), sample=True)


def _load(root: Path) -> _Found:
    if root.name == official.FOLDER:
        root = root.parent
    if not root.is_dir():
        raise DataError("is not a folder" if root.exists() else "does not exist", path=root, next_step=WHERE)
    if (root / official.FOLDER).is_dir():
        train, classes, test = official.load(root)
        return _Found(classes, train, test)
    if _holds_data(root):
        return _image_folders(root)
    if (inner := folder_below(root, _holds_data)) is not None:
        message = f"CIFAR-10 files not found here, but in {inner.relative_to(root)}/"
        raise DataError(message, path=root, next_step=setting("data.root", inner))
    names = sorted(path.name for path in root.iterdir())
    message = f"CIFAR-10 files not found, only {first_few(names, 5)}" if names else "is empty"
    raise DataError(message, path=root, next_step=WHERE)


def _holds_data(root: Path) -> bool:
    return (root / official.FOLDER).is_dir() or ((root / "train").is_dir() and (root / "test").is_dir())


def _image_folders(root: Path) -> _Found:
    train, test = (list_class_folders(root / split) for split in ("train", "test"))
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise DataError(
            f"train and test have different classes: only one of them has {', '.join(odd[:5])}",
            path=root,
            next_step="Give both the same class folders.",
        )
    if len(train.classes) < 2:
        raise DataError(
            f"train and test have only one class folder, {train.classes[0]}",
            path=root,
            next_step="Give both a folder of another class.",
        )
    return _Found(train.classes, _files(train), _files(test))


def _files(listing: Listing) -> ImageFiles:
    paths = listing.paths
    ids = tuple(f"{listing.root.name}/{item}" for item in listing.ids)
    return ImageFiles(ids, listing.targets, tuple(stat_key(path) for path in paths), paths)
