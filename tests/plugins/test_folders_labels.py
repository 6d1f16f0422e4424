"""Items with several labels each: tables and lists that name them, and what may be wrong in these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from data_files import all_ids, class_folders, refused, splits, write_image, write_video

from toolkit.api.contracts import Data, FileProblem
from toolkit_folders.image_folder import image_folder
from toolkit_folders.video_folder import video_folder
from toolkit_har.dataset import har

UNCUT = {"valid_share": 0.0, "test_share": 0.0}
SETS = {"labels": "several", **UNCUT}
IMAGES = pytest.mark.parametrize("dataset", [har, image_folder])


def images(root: Path, count: int = 4) -> Path:
    """`count` images that are all unlike: 0.png, 1.png, ..."""
    for number in range(count):
        write_image(root / f"{number}.png", number)
    return root


def written(root: Path, *lines: str, name: str = "train.csv") -> Path:
    (root / name).write_text("\n".join([*lines, ""]), encoding="utf-8")
    return root


def names(data: Data) -> dict[str, list[str]]:
    """The labels of each item."""
    return {
        item: [data.spec.classes[number] for number in target]  # type: ignore[union-attr]
        for split in splits(data)
        for item, target in zip(split.ids, split.targets, strict=True)
    }


# What is read

JOINED = {"0.png": ["cat"], "1.png": [], "2.png": ["cat", "dog"], "3.png": ["cat", "dog", "gnu"]}


@IMAGES
@pytest.mark.parametrize("header", ["path,labels", "filename,labels", "Path,Label"])
def test_names_stand_in_one_column(tmp_path: Path, dataset: Callable[..., Data], header: str) -> None:
    written(images(tmp_path), header, "0.png,cat", "1.png,", "2.png, dog | cat", "3.png,gnu|dog|cat|dog")
    data = dataset(tmp_path, train="train.csv", **SETS)
    assert (data.spec.classes, data.spec.targets) == (("cat", "dog", "gnu"), "set")
    assert names(data) == JOINED
    assert data.notes == (
        "1 item without a label: 1.png",
        "the classes are unbalanced: 1 of gnu, 3 of cat",
    )


@pytest.mark.parametrize(
    ("separator", "cells"),
    [(";", ("cat", "", "cat;dog", "gnu; dog;cat")), (",", ("cat", "", '"cat, dog"', '"gnu,dog,cat"'))],
)
def test_another_separator_is_asked_for(tmp_path: Path, separator: str, cells: Sequence[str]) -> None:
    rows = [f"{number}.png,{cell}" for number, cell in enumerate(cells)]
    written(images(tmp_path), "path,labels", *rows)
    assert names(image_folder(tmp_path, train="train.csv", separator=separator, **SETS)) == JOINED
    error = refused(tmp_path, image_folder, train="train.csv", **SETS)
    assert error.message == (
        f"{tmp_path / 'train.csv'}: line 4: {cells[2].strip(chr(34))} looks like several labels, "
        'but no value of labels holds "|"'
    )
    assert error.next_step == f'Set data.separator = "{separator}".'


@IMAGES
@pytest.mark.parametrize("one", ["1", "1.0"])
def test_each_class_has_a_column(tmp_path: Path, dataset: Callable[..., Data], one: str) -> None:
    rows = ["0.png,0,1,0", "1.png,0,0,0", "2.png,1,1,0", "3.png,1,1,1"]
    rows = [row.replace(",1", f",{one}").replace(",0", ",0.0" if one == "1.0" else ",0") for row in rows]
    written(images(tmp_path), "filename,dog,cat,gnu", *rows)
    assert names(dataset(tmp_path, train="train.csv", **SETS)) == JOINED


def test_a_class_that_no_item_shows_keeps_its_column_and_is_reported(tmp_path: Path) -> None:
    written(images(tmp_path, 2), "path,dog,cat,yak", "0.png,1,0,0", "1.png,0,1,0")
    data = image_folder(tmp_path, train="train.csv", **SETS)
    assert data.spec.classes == ("cat", "dog", "yak")
    assert data.notes == ("no item is labelled yak: its scores cannot be computed",)


def test_lines_end_in_numbers(tmp_path: Path) -> None:
    """As MMAction2's lists do."""
    for number in range(4):
        write_video(tmp_path / "my videos" / f"{number}.mp4", shade=number)
    lines = [f"my videos/{number}.mp4{labels}" for number, labels in enumerate((" 3", "", "  12 3", " 3 7 12"))]
    data = video_folder(written(tmp_path, *lines, name="train.txt"), train="train.txt", clips=True, **SETS)
    assert data.spec.classes == ("3", "7", "12")
    assert list(names(data).values()) == [["3"], [], ["3", "12"], ["3", "7", "12"]]
    frames = video_folder(tmp_path, train="train.txt", frames_per_video=2, **SETS)
    assert [len(split) for split in splits(frames)] == [8, 0, 0]
    assert frames.train.targets[:6] == ((0,), (0,), (), (), (0, 2), (0, 2))


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    images(tmp_path / "train")
    return tmp_path


@pytest.mark.parametrize("form", ["names", "columns"])
def test_the_table_of_kaggles_layout_may_name_several(kaggle: Path, form: str) -> None:
    rows = {
        "names": ("filename,labels", "0.png,cat", "1.png,", "2.png,cat|dog", "3.png,gnu|dog|cat"),
        "columns": ("filename,cat,dog,gnu", "0.png,1,0,0", "1.png,0,0,0", "2.png,1,1,0", "3.png,1,1,1"),
    }
    written(kaggle, *rows[form], name="Training_set.csv")
    data = har(kaggle, **SETS)
    assert names(data) == {f"train/{name}": labels for name, labels in JOINED.items()}


def test_images_of_lists_have_one_label_by_default(tmp_path: Path) -> None:
    written(images(tmp_path), "filename,label,width", "0.png,cat,8", '1.png,"dog, small",8', "2.png,cat,8")
    written(tmp_path, "3.png cat", name="test.txt")
    data = image_folder(tmp_path, train="train.csv", test="test.txt", valid_share=0.0)
    assert (data.spec.classes, data.spec.targets) == (("cat", "dog, small"), "index")
    assert [split.ids for split in splits(data)] == [("0.png", "1.png", "2.png"), (), ("3.png",)]
    assert data.protocol["split"] == "lists"


# Splits, groups and twins


def many(root: Path) -> Path:
    """48 items: of dog, of dog and grass, of grass, and of nothing, in turn."""
    kinds = ("dog", "dog|grass", "grass", "")
    rows = [f"{number}.png,{kinds[number % 4]}" for number in range(48)]
    return written(images(root, 48), "path,labels", *rows)


def test_splits_have_their_share_of_each_set(tmp_path: Path) -> None:
    data = image_folder(many(tmp_path), train="train.csv", labels="several", valid_share=0.25, test_share=0.25)
    for split, share in zip(splits(data), (0.5, 0.25, 0.25), strict=True):
        assert len(split) == pytest.approx(48 * share, abs=3)
        for number in (0, 1):
            shown = sum(number in target for target in split.targets)  # type: ignore[operator]
            assert shown == pytest.approx(24 * share, abs=2)
        assert () in split.targets
    assert data.notes == ("12 items without a label: 11.png, 15.png, 19.png and 9 more",)


def test_groups_of_sets_stay_together(tmp_path: Path) -> None:
    many(tmp_path)
    kinds = ("dog", "grass | dog", "grass", "")
    rows = [f"{number}.png,{kinds[number % 4]},{number // 8}" for number in range(48)]
    written(tmp_path, "path,label,group", *rows, name="groups.csv")
    data = image_folder(tmp_path, train="train.csv", labels="several", valid_share=0.25, test_share=0.25)
    groups = [{int(item.partition(".")[0]) // 8 for item in split.ids} for split in splits(data)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 6
    for row, reason in (("0.png,dog|yak,1", "labelled dog|yak, but its files say dog"), ("3.png,dog,1", "say nothing")):
        written(tmp_path, "path,label,group", row, name="groups.csv")
        assert reason in refused(tmp_path, image_folder, train="train.csv", **SETS).message


def test_twins_with_other_sets_are_reported(tmp_path: Path) -> None:
    many(tmp_path)
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes())
    for seed in range(4):
        data = image_folder(tmp_path, train="train.csv", labels="several", split_seed=seed)
        assert data.notes[0] == (
            "1 set of byte-identical files, each kept on one side of the split; 1 of them under more than one "
            "set of labels"
        )
        assert data.files == (FileProblem("1.png", "duplicate under another set of labels", "0.png"),)
        assert any({"0.png", "1.png"} <= set(split.ids) for split in splits(data))


def test_lists_give_splits_of_sets(tmp_path: Path) -> None:
    images(tmp_path)
    written(tmp_path, "path,labels", "0.png,cat|dog", "1.png,cat", "1.png,cat")
    written(tmp_path, "path,labels", "2.png,dog|cat", name="valid.csv")
    written(tmp_path, "path,labels", "3.png,", name="test.csv")
    data = image_folder(tmp_path, train="train.csv", valid="valid.csv", test="test.csv", labels="several")
    assert [split.targets for split in splits(data)] == [((0, 1), (0,)), ((0, 1),), ((),)]
    assert data.notes == (
        "1 image named more than once: 1.png",
        "1 item without a label: 3.png",
        "the given test split has no item of cat, dog",
    )


# What is refused

WRONG: Mapping[str, tuple[Sequence[str], str, str]] = {
    "contradiction": (
        ["path,labels", "0.png,cat|dog", "0.png,cat"],
        ": 1 image in more than one set of labels: 0.png",
        "Keep one line of each image, with all its labels.",
    ),
    "nothing": (["path,labels", "0.png,", "1.png,"], ": no item has a label", "Label some items"),
    "one alone": (["path,labels", "0.png,cat", "1.png,cat"], ": every item is labelled cat, the only label", "without"),
    "no name": (["path,labels", "0.png,cat", ",dog"], "train.csv: line 3: path is empty", "Fill it in"),
    "no header": (["file,labels", "0.png,a|b"], "line 1: the header has no column path; it reads file,labels", "path,"),
    "a number": (
        ["path,cat,dog,width", "0.png,1,0,640"],
        "train.csv: line 2: column width must hold 1 or 0 for each item, got 640",
        "Name the column after a class, or remove it; or write all labels of an item into one column labels.",
    ),
    "a blank": (
        ["path,cat,dog", "0.png,1,0", "1.png,,0"],
        "line 3: column cat must hold 1 or 0 for each item, got nothing",
        "remove it",
    ),
    "an index": ([",path,cat", "0,0.png,1"], "train.csv: line 1: column 1 has no name", "remove it"),
    "a column twice": (
        ["path,cat,cat", "0.png,1,0"],
        "line 1: column 2 has the same name as another, cat",
        "remove it",
    ),
    "no column": (["path", "0.png"], "line 1: the header has no column labels", "labels"),
    "a row too long": (
        ["path,labels", "0.png,cat,dog"],
        "train.csv: line 2: has 3 values, the header names 2 columns",
        "Put values that hold commas in quotes, or name all columns in line 1.",
    ),
    "a name in a line": (
        ["0.png cat|dog"],
        "1 image named there not found: 0.png cat|dog",
        "In lines labels are numbers",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_tables_of_sets_that_do_not_fit_are_an_error(tmp_path: Path, case: str) -> None:
    lines, message, step = WRONG[case]
    written(images(tmp_path, 2), *lines)
    if case == "no column":
        (tmp_path / "train.csv").rename(tmp_path / "train.txt")
    error = refused(tmp_path, image_folder, train=next(tmp_path.glob("train.*")).name, **SETS)
    assert message in error.message
    assert step in str(error.next_step)


MANY = 'set data.labels = "several"'
SEVERAL: Mapping[str, tuple[Sequence[str], str, str]] = {
    "joined": (
        ["path,label", "0.png,cat", "1.png,cat|dog", "2.png,dog"],
        "train.csv: line 3: cat|dog looks like several labels",
        f"{MANY}; or rename the class.",
    ),
    "joined otherwise": (
        ["path,label", "0.png,cat", "1.png,cat;dog", "2.png,dog"],
        "train.csv: line 3: cat;dog looks like several labels",
        f'{MANY} and data.separator = ";"; or',
    ),
    "labels": (
        ["path,labels", "0.png,cat", "1.png,dog"],
        "train.csv: line 1: the header has no column label; it reads path,labels",
        f"Make the first line path,label. For several labels an item, all in one line, {MANY}",
    ),
    "columns": (
        ["path,cat,dog", "0.png,1,0", "1.png,0,1"],
        "train.csv: line 1: the header has no column label; it reads path,cat,dog",
        MANY,
    ),
    "several lines": (
        ["path,label", "0.png,cat", "1.png,cat", "1.png,dog"],
        ": 1 image in more than one label: 1.png",
        MANY,
    ),
    "numbers": (["0.png 3", "1.png 3 7", "2.png 3 7 12"], "2 images named there not found: 1.png 3, 2.png 3 7", MANY),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_labels_are_never_taken_for_one(tmp_path: Path, case: str) -> None:
    lines, message, step = SEVERAL[case]
    written(images(tmp_path, 3), *lines)
    error = refused(tmp_path, image_folder, train="train.csv", **UNCUT)
    assert message in error.message
    assert step in str(error.next_step)


def test_names_that_hold_separators_are_classes_where_nothing_else_says_so(tmp_path: Path) -> None:
    written(images(tmp_path, 2), "path,label", "0.png,push|pull", "1.png,rest; sleep")
    assert image_folder(tmp_path, train="train.csv", **UNCUT).spec.classes == ("push|pull", "rest; sleep")


def test_kaggles_rows_that_contradict_each_other_are_an_error(kaggle: Path) -> None:
    written(kaggle, "filename,label", "0.png,cat", "1.png,dog", "0.png,dog", name="Training_set.csv")
    assert MANY in str(refused(kaggle, har, **UNCUT).next_step)
    written(kaggle, "filename,labels", "0.png,cat|dog", "0.png,", name="Training_set.csv")
    error = refused(kaggle, har, **SETS)
    assert error.message.endswith("Training_set.csv: line 3: 0.png is labelled nothing, earlier cat|dog")
    assert error.next_step == "Keep the line with the right label."


def test_lists_of_other_columns_do_not_go_together(tmp_path: Path) -> None:
    written(images(tmp_path), "path,cat,dog", "0.png,1,0", "1.png,0,1")
    written(tmp_path, "path,cat", "2.png,1", name="valid.csv")
    error = refused(tmp_path, image_folder, train="train.csv", valid="valid.csv", **SETS)
    assert error.message == f"{tmp_path}: valid.csv has no column dog, which train.csv has"
    assert error.next_step == "Give valid.csv the columns of train.csv."


def test_a_class_that_no_item_to_train_on_shows_is_an_error(tmp_path: Path) -> None:
    written(images(tmp_path), "path,cat,dog", "0.png,1,0", "1.png,0,0")
    written(tmp_path, "path,cat,dog", "2.png,1,1", name="valid.csv")
    error = refused(tmp_path, image_folder, train="train.csv", valid="valid.csv", **SETS)
    assert error.message == f"{tmp_path}: 1 label not among those to train on: dog"


@pytest.mark.parametrize("dataset", [har, image_folder, video_folder])
def test_class_folders_give_one_label(tmp_path: Path, dataset: Callable[..., Data]) -> None:
    error = refused(class_folders(tmp_path), dataset, labels="several")
    assert error.message == f'{tmp_path}: class folders give each item one label, but data.labels is "several"'
    assert "data.train" in str(error.next_step)


def test_a_file_in_two_class_folders_has_two_labels_in_two_items(tmp_path: Path) -> None:
    root = class_folders(tmp_path)
    (root / "sit" / "9.png").write_bytes((root / "run" / "0.png").read_bytes())
    data = image_folder(root)
    assert data.spec.targets == "index"
    assert len(all_ids(data)) == 9
    assert data.notes[0].endswith("1 of them under more than one label")


def test_frames_extracted_from_videos_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "run" / "one").mkdir(parents=True)
    written(tmp_path, "run/one 120 0 3", "sit/two 96 1", name="train.txt")
    error = refused(tmp_path, video_folder, train="train.txt", **SETS)
    assert "2 videos named there not found: run/one, sit/two" in error.message
    assert "MMAction2's lists of extracted frames" in str(error.next_step)


def test_the_tables_of_kinetics_have_one_label(tmp_path: Path) -> None:
    written(images(tmp_path), "label,youtube_id,time_start,time_end", "run,abc,1,2")
    error = refused(tmp_path, video_folder, train="train.csv", **SETS)
    assert error.message.endswith("train.csv: a table of Kinetics has one label a video")
    assert error.next_step


def test_lists_name_images_to_those_who_read_images(tmp_path: Path) -> None:
    written(images(tmp_path), "path,label", "0.png,cat", "a.mp4,dog", "b.ts,dog")
    (tmp_path / "b.ts").write_bytes(b"G".ljust(188, b"\0") * 4)
    (tmp_path / "a.mp4").touch()
    error = refused(tmp_path, image_folder, train="train.csv", **UNCUT)
    assert error.message == f"{tmp_path}: lists name 2 videos, expected images: a.mp4, b.ts"
    assert "video_folder" in str(error.next_step)


@pytest.mark.parametrize(
    ("dataset", "arguments", "message"),
    [
        (video_folder, {"labels": "several", "official_split": 1}, "labels: an official split has one label an item"),
        (image_folder, {"separator": ";"}, 'separator: needs data.labels = "several", got "one"'),
        (image_folder, {"valid": "a.csv"}, "train: required with valid"),
    ],
)
def test_arguments_are_checked_before_anything_is_read(
    tmp_path: Path, dataset: Callable[..., Data], arguments: Mapping[str, object], message: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared below)
        dataset(tmp_path / "gone", **arguments)
    assert str(caught.value).startswith(message)


def test_the_sample_has_one_label() -> None:
    with pytest.raises(Exception, match="the built-in sample has one label an item") as caught:
        har(None, labels="several")
    assert "data.root" in caught.value.next_step  # type: ignore[attr-defined]
