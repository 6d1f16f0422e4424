"""Which layouts of folders `init` recognises, and what it says of those that it does not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from toolkit.api.errors import DataError
from toolkit.cli.init.layout import Layout, data_root, recognise


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def table(path: Path, header: str, rows: Iterable[str]) -> None:
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")


def images(root: Path, count: int = 6) -> Path:
    return put(root, *(f"images/{number}.jpg" for number in range(count)))


def classes(layout: Layout) -> tuple[str, ...]:
    return layout.found.listing.classes


def refused(root: Path, *, videos: bool = False) -> DataError:
    with pytest.raises(DataError) as caught:
        recognise(root, videos=videos)
    return caught.value


def test_class_folders(tmp_path: Path) -> None:
    layout = recognise(put(tmp_path, "cat/1.jpg", "dog/2.png"), videos=False)
    assert (layout.what, classes(layout), layout.keys, layout.notes) == ("class folders", ("cat", "dog"), {}, ())


@pytest.mark.parametrize("valid", ["val", "valid", "Validation"])
def test_splits_of_class_folders(tmp_path: Path, valid: str) -> None:
    put(tmp_path, *(f"{split}/{name}/1.jpg" for split in ("train", valid, "test") for name in ("cat", "dog")))
    layout = recognise(tmp_path, videos=False)
    assert layout.what == "splits of class folders"
    assert layout.found.given is not None
    assert set(layout.found.given.splits) == {"train", "valid", "test"}


def test_an_archive_of_a_folder_in_a_folder_made_on_macos(tmp_path: Path) -> None:
    put(tmp_path, "a/b/cat/1.jpg", "a/b/dog/2.jpg", "a/__MACOSX/b/cat/._1.jpg")
    layout = recognise(tmp_path, videos=False)
    assert layout.root == tmp_path / "a" / "b"
    assert layout.notes == ("the data is in a/b/ below it", "skipped 1 hidden folder with 1 file: __MACOSX")


@pytest.mark.parametrize("names", [["cats/1.jpg", "cats/2.jpg"], ["train/cat/1.jpg", "train/dog/1.jpg"]])
def test_a_class_folder_or_a_split_alone_is_not_entered(tmp_path: Path, names: list[str]) -> None:
    assert data_root(put(tmp_path, *names), videos=False) == tmp_path


@pytest.mark.parametrize("column", ["path", "filename"])
def test_a_table_of_labels(tmp_path: Path, column: str) -> None:
    images(tmp_path)
    table(tmp_path / "labels.csv", f"{column},label", [f"{number}.jpg,{'ab'[number % 2]}" for number in range(6)])
    layout = recognise(tmp_path, videos=False)
    assert (layout.what, layout.keys) == ("labels.csv with one label per item", {"train": "labels.csv"})
    assert classes(layout) == ("a", "b")


def test_a_table_for_each_split(tmp_path: Path) -> None:
    images(tmp_path)
    for split, first in (("train", 0), ("val", 2), ("test", 4)):
        table(tmp_path / f"my_{split}.csv", "path,label", [f"images/{first}.jpg,a", f"images/{first + 1}.jpg,b"])
    layout = recognise(tmp_path, videos=False)
    assert layout.keys == {"train": "my_train.csv", "valid": "my_val.csv", "test": "my_test.csv"}


@pytest.mark.parametrize(
    ("header", "row", "numbers"),
    [
        ("path,price", "{0}.jpg,{1}", "price"),
        ("filename,price", "{0}.jpg,{1}", "price"),
        ("path,width,note,height", "{0}.jpg,{1},wide,{1}", ["width", "height"]),
        ("id,path,price", "{0},{0}.jpg,{1}", "price"),
        ("path,label", "{0}.jpg,{1}", "label"),
    ],
    ids=["one", "filename", "several, next to text", "next to a count of rows", "label with decimals"],
)
def test_a_table_of_numbers(tmp_path: Path, header: str, row: str, numbers: str | list[str]) -> None:
    images(tmp_path)
    table(tmp_path / "prices.csv", header, [row.format(number, (7.5, 2.25)[number % 2]) for number in range(6)])
    layout = recognise(tmp_path, videos=False)
    assert layout.keys == {"train": "prices.csv", "numbers": numbers}
    assert layout.found.listing.form == "number"
    listed = numbers if isinstance(numbers, str) else ", ".join(numbers)
    assert layout.what == f"prices.csv with numbers ({listed})"


def test_a_table_of_numbers_for_each_split(tmp_path: Path) -> None:
    images(tmp_path)
    for split, first in (("train", 0), ("val", 2), ("test", 4)):
        table(tmp_path / f"{split}.csv", "path,age", [f"images/{first}.jpg,3.5", f"images/{first + 1}.jpg,40"])
    layout = recognise(tmp_path, videos=False)
    assert layout.keys == {"train": "train.csv", "valid": "val.csv", "test": "test.csv", "numbers": "age"}


def test_labels_that_are_whole_numbers_are_classes(tmp_path: Path) -> None:
    images(tmp_path)
    table(tmp_path / "train.csv", "path,label,age", [f"{number}.jpg,{number % 2},3.5" for number in range(6)])
    layout = recognise(tmp_path, videos=False)
    assert layout.keys == {"train": "train.csv"}
    assert classes(layout) == ("0", "1")


def test_columns_of_ones_and_zeros_are_classes(tmp_path: Path) -> None:
    images(tmp_path)
    table(tmp_path / "train.csv", "path,sun,sea", [f"{number}.jpg,{number % 2},1" for number in range(6)])
    layout = recognise(tmp_path, videos=False)
    assert layout.found.listing.form == "set"
    assert classes(layout) == ("sea", "sun")


def test_lines_of_paths_and_labels(tmp_path: Path) -> None:
    images(tmp_path)
    (tmp_path / "train.txt").write_text("".join(f"{number}.jpg {number % 2}\n" for number in range(6)), "utf-8")
    (tmp_path / "notes.txt").write_text("Pictures of my garden.\n", "utf-8")
    assert recognise(tmp_path, videos=False).keys == {"train": "train.txt"}


@pytest.mark.parametrize(("between", "keys"), [("|", {}), (";", {"separator": ";"})])
def test_several_labels_an_item(tmp_path: Path, between: str, keys: dict[str, str]) -> None:
    images(tmp_path)
    sets = ["sun|sea", "sea", "sun|dog"]
    rows = [f"images/{number}.jpg,{sets[number % 3].replace('|', between)}" for number in range(6)]
    table(tmp_path / "train.csv", "path,labels", rows)
    layout = recognise(tmp_path, videos=False)
    assert layout.keys == {"train": "train.csv", "labels": "several"} | keys
    assert layout.what == "train.csv with several labels per item"
    assert classes(layout) == ("dog", "sea", "sun")


def test_a_column_called_labels_makes_several_even_of_single_ones(tmp_path: Path) -> None:
    images(tmp_path)
    table(tmp_path / "train.csv", "path,labels", ["0.jpg,sun", "1.jpg,", "2.jpg,sea"])
    assert recognise(tmp_path, videos=False).keys == {"train": "train.csv", "labels": "several"}


def test_a_label_that_is_missing_does_not_make_several(tmp_path: Path) -> None:
    images(tmp_path)
    table(tmp_path / "train.csv", "path,label", ["0.jpg,a", "1.jpg,", "2.jpg,b"])
    assert "line 3: label is empty" in refused(tmp_path).message


def test_groups_are_not_a_list_of_labels(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg", "dog/2.jpg")
    table(tmp_path / "groups.csv", "path,label,group", ["cat/1.jpg,cat,1", "dog/2.jpg,dog,2"])
    assert recognise(tmp_path, videos=False).what == "class folders"


def test_class_folders_next_to_an_unusable_table(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg", "dog/2.jpg")
    table(tmp_path / "weather.csv", "day,rain", ["1,2"])
    layout = recognise(tmp_path, videos=False)
    assert layout.what == "class folders"
    (note,) = layout.notes
    assert note.startswith("not used: ")
    assert "got day,rain" in note


def test_a_table_with_other_columns(tmp_path: Path) -> None:
    images(tmp_path)
    table(tmp_path / "labels.csv", "image,class", ["0,a", "1,b"])
    error = refused(tmp_path)
    assert error.message.endswith("expected the columns path,label (or filename,label), got image,class")
    assert error.next_step is not None
    assert error.next_step.startswith("Rename the columns")


def test_a_table_for_the_test_alone(tmp_path: Path) -> None:
    images(tmp_path)
    table(tmp_path / "test.csv", "path,label", ["0.jpg,a", "1.jpg,b"])
    assert refused(tmp_path).message.endswith("no list for training among test.csv")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no images found (no files)"),
        (["a.psd", "b.psd", "c.txt"], "no images found (2 .psd, 1 .txt)"),
        (["1.jpg", "2.jpg"], "2 images without labels: no class folders"),
        (["cats/1.jpg"], "has only one class folder, cats"),
    ],
)
def test_nothing_to_train_on(tmp_path: Path, names: list[str], message: str) -> None:
    error = refused(put(tmp_path, *names))
    assert error.message == f"{tmp_path}: {message}"
    assert error.next_step is not None
    assert "CLASS/image.jpg; or train/CLASS/image.jpg" in error.next_step


def test_videos_where_images_are_asked_for_and_the_other_way_round(tmp_path: Path) -> None:
    put(tmp_path / "v", "a/1.mp4", "b/2.mp4")
    assert refused(tmp_path / "v").next_step == f"python -m toolkit init videos {tmp_path / 'v'}"
    put(tmp_path / "i", "a/1.jpg", "b/2.jpg")
    assert refused(tmp_path / "i", videos=True).next_step == f"python -m toolkit init images {tmp_path / 'i'}"
