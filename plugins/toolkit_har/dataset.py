"""The dataset `har`: labelled actions as images or videos, split so that no source is in two splits."""

from __future__ import annotations

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
from toolkit.data.lists import Lists, find_listed
from toolkit_har.layouts import WHERE, find_files
from toolkit_har.sample import sample


def har(  # noqa: PLR0913 - the keys of a recipe
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
    frames_per_video: Annotated[int, Field(ge=1)] = 4,
    sample_clips: Annotated[int, Field(ge=3, le=5000)] = 160,
    clips: bool = False,
) -> Data:
    """Human action recognition from single images or from clips of videos.

    `root` holds the Kaggle layout (train/ and Training_set.csv with filename,label), class folders of images or videos,
    alone or below the splits train/, valid/ and test/, or videos named in lists. A groups.csv (path,label,group) names
    items that come from one source. Splits that neither lists nor folders give are stratified by class; byte-identical
    files, items of one group and frames of one video stay on one side. Without `root`: animated stick figures, drawn by
    code. A recipe with `[clip]` sees clips of the videos, any other one single frames of them.

    train: list of the videos to train on, a file relative to `root`: CSV with path,label or Kinetics' own columns, or
        lines of a path and a label
    valid: list of the videos to validate on; without it `valid_share` is taken from those to train on
    test: list of the videos to test on; without it `test_share` is taken from those to train on
    official_split: which of the three official splits of UCF101 or HMDB51, whose files lie in `root`; of its training
        videos `valid_share` are for validation
    valid_share: share of the items for validation, 0 to 1
    test_share: share of the items for the test, 0 to 1
    split_seed: any whole number; another one gives other splits
    folds: number of parts of all items for cross-validation, in place of `test_share`; `run --folds` sets it
    fold: which of the parts, from 0, is the test split
    group_pattern: regular expression with one group in parentheses, searched in each path relative to `root`: items
        for which the group reads the same are never split; replaces groups.csv
    labels: how many labels lists and Training_set.csv give an item; "several": a set, perhaps empty, for a task such as
        multi_label
    separator: stands between the labels of one item in a CSV; unset: |
    frames_per_video: how many evenly spaced frames of each video become items where single frames are seen
    sample_clips: clips of each action in the built-in sample; two frames of each become items where single frames are
        seen
    """
    pattern = compile_pattern(group_pattern)
    division = Division(valid_share, test_share, split_seed, folds, fold)
    lists = Lists(train, valid, test, official_split, LabelForm(labels, separator))
    if root is None:
        if lists.form.several:
            step = 'Set data.root to a folder of your data, or data.labels = "one".'
            raise DataError("the built-in sample has one label an item", next_step=step)
        return sample(division, sample_clips, clips=clips)
    root = root.resolve()
    check_root(root, WHERE)
    found = find_listed(root, lists) if lists.given else find_files(root, lists.form)
    return labelled(found, division, group_pattern=pattern, frames_per_video=frames_per_video, clips=clips)
