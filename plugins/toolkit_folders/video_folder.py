"""The dataset `video_folder`: any labelled videos, in class folders or named in lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from toolkit.api.contracts import Data
from toolkit.api.errors import DataError
from toolkit.data.division import Division
from toolkit.data.folders import check_root
from toolkit.data.groups import compile_pattern, one_group
from toolkit.data.labelled import labelled
from toolkit.data.labels import LabelForm, LabelsOfItem
from toolkit.data.lists import Lists, find_items

VIDEO_SETS = (
    "Arrange videos as <class>/<video>, or set data.train to a list of them. UCF101 is at "
    "https://www.crcv.ucf.edu/data/UCF101.php, KTH at https://www.csc.kth.se/cvap/actions/."
)


def video_folder(  # noqa: PLR0913 - the keys of a recipe
    root: Path | None,
    *,
    train: str | None = None,
    valid: str | None = None,
    test: str | None = None,
    official_split: Literal[1, 2, 3] | None = None,
    valid_share: Annotated[float, Field(ge=0, lt=1)] = 0.15,
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.15,
    split_seed: int = 0,
    folds: Annotated[int, Field(ge=2)] | None = None,
    fold: Annotated[int, Field(ge=0)] = 0,
    group_pattern: Annotated[str, AfterValidator(one_group)] | None = None,
    labels: LabelsOfItem = "one",
    separator: Annotated[str, Field(min_length=1)] | None = None,
    numbers: str | Sequence[str] = (),
    frames_per_video: Annotated[int, Field(ge=1)] = 4,
    clips: bool = False,
) -> Data:
    """Labelled videos: class folders as of UCF101, HMDB51 or KTH, or videos named in lists.

    Without lists `root` holds <class>/<video>, or the splits train/, valid/ and test/ with class folders in each. A
    groups.csv (path,label,group) names videos that come from one source. Splits that neither lists nor folders give are
    stratified by class; byte-identical files and videos of one group stay on one side. A recipe with `[clip]` sees
    clips of the videos, any other one single frames of them. It has no built-in sample.

    train: list of the videos to train on, a file relative to `root`: CSV with path,label or Kinetics' own columns, or
        lines of a path and a label
    valid: list of the videos to validate on; without it `valid_share` is taken from those to train on
    test: list of the videos to test on; without it `test_share` is taken from those to train on
    official_split: which of the three official splits of UCF101 or HMDB51, whose files lie in `root`; of its training
        videos `valid_share` are for validation
    valid_share: share of the videos for validation, 0 to 1
    test_share: share of the videos for the test, 0 to 1
    split_seed: any whole number; another one gives other splits
    folds: number of parts of all videos for cross-validation, in place of `test_share`; `run --folds` sets it
    fold: which of the parts, from 0, is the test split
    group_pattern: regular expression with one group in parentheses, searched in each path relative to `root`: videos
        for which the group reads the same are never split; replaces groups.csv
    labels: how many labels lists give a video; "several": a set, perhaps empty, for a task such as multi_label
    separator: stands between the labels of one video in a CSV; unset: |
    numbers: columns of the lists, which are then CSV, that hold the numbers of each video, for a task such as
        regression; one name, or a list of names
    frames_per_video: how many evenly spaced frames of each video become items where single frames are seen
    """
    pattern = compile_pattern(group_pattern)
    columns = (numbers,) if isinstance(numbers, str) else tuple(numbers)
    division = Division(valid_share, test_share, split_seed, folds, fold)
    lists = Lists(train, valid, test, official_split, LabelForm(labels, separator, columns))
    if root is None:
        raise DataError("video_folder has no built-in sample", next_step=f"Set data.root. {VIDEO_SETS}")
    root = root.resolve()
    check_root(root, VIDEO_SETS)
    found = find_items(root, lists, videos=True)
    return labelled(found, division, group_pattern=pattern, frames_per_video=frames_per_video, clips=clips)
