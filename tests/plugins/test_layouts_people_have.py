"""Folders and tables as systems, archivers and competitions leave them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.plugins.data_files import all_ids, write_image
from toolkit.api.contracts import Data
from toolkit.api.errors import DataError, setting
from toolkit_cifar.dataset import cifar10
from toolkit_folders.image_folder import image_folder
from toolkit_har.dataset import har

CLASSES = ("café", "thé")


def form(kind: str, text: str) -> str:
    return unicodedata.normalize(kind, text)


def images(root: Path, *folders: str, count: int = 8) -> Path:
    for number, folder in enumerate(folders):
        for place in range(count):
            write_image(root / folder / f"{place}.png", 100 * number + place)
    return root


@pytest.mark.parametrize("dataset", [image_folder, har])
@pytest.mark.parametrize("kinds", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")], ids="-".join)
def test_splits_that_two_systems_wrote_have_the_same_classes(
    tmp_path: Path, dataset: Callable[..., Data], kinds: Sequence[str]
) -> None:
    for split, kind in zip(("train", "val"), kinds, strict=True):
        images(tmp_path, *(f"{split}/{form(kind, name)}" for name in CLASSES))
    data = dataset(tmp_path)
    assert data.spec.classes == CLASSES
    assert set(data.train.targets) == set(data.valid.targets) == {0, 1}
    assert data.train.read(0).shape[0] == 3


def test_two_forms_of_a_name_in_one_folder_are_one_class(tmp_path: Path) -> None:
    names = [form("NFC", CLASSES[0]), form("NFD", CLASSES[0]), "thé"]
    data = image_folder(images(tmp_path, *names))
    assert data.spec.classes == CLASSES
    assert len(all_ids(data)) == 24


def test_the_images_of_cifar_compare_by_form(tmp_path: Path) -> None:
    for split, kind in (("train", "NFC"), ("test", "NFD")):
        images(tmp_path, *(f"{split}/{form(kind, name)}" for name in CLASSES))
    assert cifar10(tmp_path).spec.classes == CLASSES


@pytest.mark.parametrize("listed", ["NFC", "NFD"])
@pytest.mark.parametrize("files", ["NFC", "NFD"])
def test_lists_and_groups_name_files_and_classes_in_any_form(tmp_path: Path, listed: str, files: str) -> None:
    images(tmp_path, *(form(files, name) for name in CLASSES))
    rows = [f"{form(listed, name)}/{number}.png,{form(files, name)}" for name in CLASSES for number in range(8)]
    (tmp_path / "all.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    groups = [f"{row},{row[:6]}" for row in rows]
    (tmp_path / "groups.csv").write_text("\n".join(["path,label,group", *groups]), encoding="utf-8")
    data = image_folder(tmp_path, train="all.csv")
    assert data.spec.classes == CLASSES
    assert len(all_ids(data)) == 16


JUNK = {
    "__MACOSX/cat/._0.png": "skipped 1 hidden folder with 1 file: __MACOSX",
    "__MACOSX/cat/0.png": "skipped 1 hidden folder with 1 file: __MACOSX",
    ".DS_Store": "skipped 1 hidden file: .DS_Store",
    "cat/.DS_Store": "skipped 1 hidden file: cat/.DS_Store",
    "cat/._0.png": "skipped 1 hidden file: cat/._0.png",
    "cat/Thumbs.db": "skipped 1 hidden file: cat/Thumbs.db",
    "cat/desktop.ini": "skipped 1 hidden file: cat/desktop.ini",
    "cat/@eaDir/0.png": "skipped 1 hidden folder with 1 file: cat/@eaDir",
    "@eaDir/0.png": "skipped 1 hidden folder with 1 file: @eaDir",
    ".ipynb_checkpoints/0.png": "skipped 1 hidden folder with 1 file: .ipynb_checkpoints",
    "cat/.git/objects/0.png": "skipped 1 hidden folder with 1 file: cat/.git",
    "$RECYCLE.BIN/0.png": "skipped 1 hidden folder with 1 file: $RECYCLE.BIN",
    "lost+found/0.png": "skipped 1 hidden folder with 1 file: lost+found",
    "System Volume Information/0.png": "skipped 1 hidden folder with 1 file: System Volume Information",
}


@pytest.mark.parametrize("junk", JUNK)
def test_what_systems_add_is_skipped_and_counted(tmp_path: Path, junk: str) -> None:
    images(tmp_path, "cat", "dog")
    write_image(tmp_path / "x.png", 999)
    (tmp_path / junk).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "x.png").rename(tmp_path / junk)
    data = image_folder(tmp_path)
    assert len(all_ids(data)) == 16
    assert data.spec.classes == ("cat", "dog")
    assert data.notes == (JUNK[junk],)


def kaggle(root: Path, write: Callable[[int], str], *, table: str = "Training_set.csv", folder: str = "train") -> Path:
    """The layout of Kaggle, with names in the table as `write` makes them of numbers."""
    for number in range(16):
        write_image(root / folder / f"Image_{number}.jpg", number)
    rows = [f"{write(number)},{'ab'[number % 2]}" for number in range(16)]
    (root / table).write_text("\n".join(["filename,label", *rows]), encoding="utf-8")
    return root


NAMES: dict[str, tuple[Callable[[int], str], str | None]] = {
    "as they are": (lambda number: f"Image_{number}.jpg", None),
    "without a suffix": (lambda number: f"Image_{number}", "without a suffix"),
    "in another case": (lambda number: f"IMAGE_{number}.JPG", "in another case"),
    "in another case without a suffix": (lambda number: f"image_{number}", "without a suffix"),
    "below a folder": (lambda number: f"train/Image_{number}.jpg", None),
    "below a folder without a suffix": (lambda number: f"train/Image_{number}", "without a suffix"),
    "with backslashes": (lambda number: f"data\\train\\Image_{number}.jpg", None),
    "of another machine": (lambda number: f"/kaggle/input/har/train/Image_{number}.jpg", None),
    "of a drive": (lambda number: f"C:\\data\\train\\Image_{number}.jpg", None),
    "in quotes": (lambda number: f'"Image_{number}.jpg"', None),
    "with blanks": (lambda number: f" Image_{number}.jpg ", None),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_a_table_mean_the_one_file_that_fits(tmp_path: Path, name: str) -> None:
    write, said = NAMES[name]
    data = har(kaggle(tmp_path, write))
    assert sorted(all_ids(data)) == sorted(f"train/Image_{number}.jpg" for number in range(16))
    notes = [note for note in data.notes if note.startswith("Training_set.csv")]
    assert bool(notes) == (said is not None)
    assert all(note.startswith(f"Training_set.csv: 16 names {said}, each of which one file fits: ") for note in notes)


@pytest.mark.parametrize("name", ["without a suffix", "in another case", "as they are"])
def test_a_list_means_the_one_file_that_fits(tmp_path: Path, name: str) -> None:
    write, said = NAMES[name]
    root = kaggle(tmp_path, write)
    data = image_folder(root, train="Training_set.csv")
    assert len(all_ids(data)) == 16
    assert data.spec.classes == ("a", "b")
    assert any(said in note for note in data.notes) if said else not any("fits" in note for note in data.notes)


def test_a_name_without_a_suffix_that_two_files_fit_is_an_error(tmp_path: Path) -> None:
    root = kaggle(tmp_path, NAMES["without a suffix"][0])
    write_image(root / "train" / "Image_3.png", 99)
    with pytest.raises(DataError, match=r"Image_3 may be any of Image_3\.jpg, Image_3\.png"):
        har(root)


def test_names_of_no_file_show_what_there_is(tmp_path: Path) -> None:
    root = kaggle(tmp_path, lambda number: f"picture-{number}.jpg")
    with pytest.raises(DataError) as caught:
        har(root)
    assert caught.value.message.endswith(
        "16 files named in it are not in train/: picture-0.jpg, picture-1.jpg, picture-2.jpg and 13 more; "
        "it holds Image_0.jpg, Image_1.jpg, Image_10.jpg and 13 more"
    )


@pytest.mark.parametrize(("table", "folder"), [("training_set.csv", "train"), ("TRAINING_SET.CSV", "Train")])
def test_the_layout_of_kaggle_is_known_in_any_case(tmp_path: Path, table: str, folder: str) -> None:
    data = har(kaggle(tmp_path, NAMES["as they are"][0], table=table, folder=folder))
    assert len(all_ids(data)) == 16


@pytest.mark.parametrize("above", ["Human Action Recognition", "archive/har", "a b/$HOME", "__MACOSX x"])
def test_a_folder_above_the_layout_names_the_one_below(tmp_path: Path, above: str) -> None:
    inner = kaggle(tmp_path / above, NAMES["as they are"][0])
    images(tmp_path / above, "test")
    with pytest.raises(DataError) as caught:
        har(tmp_path)
    assert caught.value.message == f"{tmp_path}: has no Training_set.csv, but {above}/ in it has"
    assert caught.value.next_step == setting("data.root", inner)
    assert len(all_ids(har(inner))) == 16


@pytest.mark.parametrize("dataset", [image_folder, har])
@pytest.mark.parametrize("above", ["photos", "archive/photos"])
def test_a_folder_above_class_folders_names_the_one_below(
    tmp_path: Path, dataset: Callable[..., Data], above: str
) -> None:
    inner = images(tmp_path / above, "cat", "dog")
    with pytest.raises(DataError) as caught:
        dataset(tmp_path)
    first = above.partition("/")[0]
    assert caught.value.message == f"{tmp_path}: has only one class folder, {first}, but 2 folders in {inner}"
    assert caught.value.next_step == f"use the folder that holds the class folders: {setting('data.root', inner)}"


def test_a_folder_above_cifar_names_the_one_below(tmp_path: Path) -> None:
    inner = tmp_path / "cifar10"
    for split in ("train", "test"):
        images(inner, f"{split}/cat", f"{split}/dog")
    with pytest.raises(DataError) as caught:
        cifar10(tmp_path)
    assert caught.value.message == f"{tmp_path}: CIFAR-10 files not found here, but in cifar10/"
    assert caught.value.next_step == setting("data.root", inner)
