"""The dataset `image_folder`: any labelled images, in class folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from toolkit.api.contracts import Data
from toolkit.api.errors import DataError
from toolkit.data.division import Division
from toolkit.data.folders import check_root, find_class_folders
from toolkit.data.groups import compile_pattern, one_group
from toolkit.data.labelled import labelled

IMAGE_SETS = "Arrange images as <class>/<image>, or as train/<class>/<image> beside valid/ and test/."


def image_folder(
    root: Path | None,
    *,
    valid_share: Annotated[float, Field(ge=0, lt=1)] = 0.15,
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.15,
    split_seed: int = 0,
    group_pattern: Annotated[str, AfterValidator(one_group)] | None = None,
) -> Data:
    """Labelled images of any kind, in class folders.

    `root` holds <class>/<image>, or the splits train/, valid/ and test/ with class folders in each. A groups.csv
    (path,label,group) names images that come from one source. Splits that no folder gives are stratified by class and
    taken from train/; byte-identical files and images of one group stay on one side. There is no built-in sample.

    valid_share: share of the images for validation, 0 to 1, where no folder gives them
    test_share: share of the images for the test, 0 to 1, where no folder gives them
    split_seed: any whole number; another one gives other splits
    group_pattern: regular expression with one group in parentheses, searched in each path relative to `root`: images
        for which the group reads the same are never split; replaces groups.csv
    """
    pattern = compile_pattern(group_pattern)
    division = Division(valid_share, test_share, split_seed)
    if root is None:
        raise DataError("image_folder has no built-in sample", next_step=f"Set data.root. {IMAGE_SETS}")
    root = root.resolve()
    check_root(root, IMAGE_SETS)
    return labelled(find_class_folders(root, videos=False), division, group_pattern=pattern)
