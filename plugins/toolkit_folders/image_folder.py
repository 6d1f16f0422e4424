"""The dataset `image_folder`: any labelled images, in class folders or named in lists."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from toolkit.api.contracts import Data
from toolkit.api.errors import DataError
from toolkit.data.division import Division
from toolkit.data.folders import Found, check_root
from toolkit.data.groups import compile_pattern, one_group
from toolkit.data.kinds import items_below, wanted
from toolkit.data.labelled import labelled
from toolkit.data.labels import LabelForm, LabelsOfItem
from toolkit.data.lists import Lists, find_items
from toolkit.data.unlabelled import unlabelled_images

IMAGE_SETS = (
    "Arrange images as <class>/<image>, or as train/<class>/<image> with valid/ and test/; or set data.train to a "
    "list of them."
)


def image_folder(  # noqa: PLR0913 - the keys of a recipe
    root: Path | None,
    *,
    train: str | None = None,
    valid: str | None = None,
    test: str | None = None,
    valid_share: Annotated[float, Field(ge=0, lt=1)] = 0.15,
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.15,
    split_seed: int = 0,
    folds: Annotated[int, Field(ge=2)] | None = None,
    fold: Annotated[int, Field(ge=0)] = 0,
    group_pattern: Annotated[str, AfterValidator(one_group)] | None = None,
    labels: LabelsOfItem | Literal["none"] = "one",
    separator: Annotated[str, Field(min_length=1)] | None = None,
    numbers: str | Sequence[str] = (),
) -> Data:
    """Labelled images of any kind, in class folders or named in lists.

    Without lists `root` holds <class>/<image>, or the splits train/, valid/ and test/ with class folders in each. A
    groups.csv (path,label,group) names images that come from one source. Splits that neither lists nor folders give are
    stratified by class and taken from those to train on; byte-identical files and images of one group stay on one side.
    It has no built-in sample.

    train: list of the images to train on, a file relative to `root`: CSV with path,label, or lines of a path and a
        label
    valid: list of the images to validate on; without it `valid_share` is taken from those to train on
    test: list of the images to test on; without it `test_share` is taken from those to train on
    valid_share: share of the images for validation, 0 to 1, where neither a list nor a folder gives them
    test_share: share of the images for the test, 0 to 1, where neither a list nor a folder gives them
    split_seed: any whole number; another one gives other splits
    folds: number of parts of all images for cross-validation, in place of `test_share`; `run --folds` sets it
    fold: which of the parts, from 0, is the test split
    group_pattern: regular expression with one group in parentheses, searched in each path relative to `root`: images
        for which the group reads the same are never split; replaces groups.csv
    labels: how many labels an image has; "several": lists give it a set, perhaps empty, for a task such as
        multi_label; "none": all images below `root`, in folders of any depth, are trained on without labels, by a task
        such as simsiam
    separator: stands between the labels of one image in a CSV; unset: |
    numbers: columns of the lists, which are then CSV, that hold the numbers of each image, for a task such as
        regression; one name, or a list of names
    """
    if labels == "none":
        splits = {"train": train, "valid": valid, "test": test, "folds": folds, "numbers": numbers or None}
        if given := [key for key, value in splits.items() if value is not None]:
            raise ValueError(f'{given[0]}: cannot be combined with data.labels = "none", which trains on all images')
        return unlabelled_images(_checked(root))
    pattern = compile_pattern(group_pattern)
    columns = (numbers,) if isinstance(numbers, str) else tuple(numbers)
    division = Division(valid_share, test_share, split_seed, folds, fold)
    lists = Lists(train, valid, test, form=LabelForm(labels, separator, columns))
    return labelled(_found(_checked(root), lists), division, group_pattern=pattern)


def _found(root: Path, lists: Lists) -> Found:
    try:
        return find_items(root, lists, videos=False)
    except DataError as error:
        if lists.train is None and any(os.sep not in item for item in items_below(root, wanted(videos=False))):
            error.next_step = f'{error.next_step} To pretrain without labels, set data.labels = "none".'
        raise


def _checked(root: Path | None) -> Path:
    if root is None:
        raise DataError("image_folder has no built-in sample", next_step=f"Set data.root. {IMAGE_SETS}")
    root = root.resolve()
    check_root(root, IMAGE_SETS)
    return root
