from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.api.errors import DataError
from toolkit.data.folders import find_class_folders, folders_with, list_class_folders
from toolkit.data.kinds import is_image, is_video


def put(path: Path) -> Path:
    """An empty file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_class_folders_are_listed_in_order_of_name(tmp_path):
    for name in ("dog/2.JPG", "dog/10.png", "cat/deep/1.jpeg", "cat/notes.txt", "cat/.hidden.jpg", ".git/1.jpg"):
        put(tmp_path / name)
    listing = list_class_folders(tmp_path)
    assert listing.classes == ("cat", "dog")
    assert listing.ids == ("cat/deep/1.jpeg", "dog/10.png", "dog/2.JPG")
    assert listing.targets == (0, 1, 1)
    assert listing.paths == tuple(tmp_path / item for item in listing.ids)


def test_what_macos_adds_to_an_archive_is_skipped_and_counted(tmp_path):
    for name in ("cat/1.jpg", "dog/2.jpg", "__MACOSX/cat/._1.jpg", "__MACOSX/dog/._2.jpg", ".trash/3.jpg"):
        put(tmp_path / name)
    found = find_class_folders(tmp_path, videos=False)
    assert found.listing.classes == ("cat", "dog")
    assert found.notes == ("skipped 2 hidden folders with 3 files: .trash, __MACOSX",)


def test_hidden_folders_next_to_splits_are_skipped_and_counted(tmp_path):
    for name in ("train/cat/1.jpg", "train/dog/2.jpg", "__MACOSX/train/cat/._1.jpg"):
        put(tmp_path / name)
    found = find_class_folders(tmp_path, videos=False)
    assert found.given is not None
    assert found.notes == ("skipped 1 hidden folder with 1 file: __MACOSX",)


def test_a_folder_may_be_named_as_a_file_is(tmp_path):
    put(tmp_path / "cat" / "1.jpg" / "2.jpg")
    assert list_class_folders(tmp_path).ids == ("cat/1.jpg/2.jpg",)


def test_files_without_class_folders_are_an_error_that_says_what_there_is(tmp_path):
    for name in "abcde":
        put(tmp_path / f"{name}.jpg")
    with pytest.raises(DataError, match=r"no class folders found, only a.jpg, b.jpg, c.jpg and 2 more") as caught:
        list_class_folders(tmp_path)
    assert caught.value.next_step == f"Arrange the image files as {tmp_path}/<class>/<file>."


@pytest.mark.parametrize(("name", "message"), [("gone", "does not exist"), ("file", "is not a folder")])
def test_a_root_that_is_not_a_folder_is_an_error(tmp_path, name, message):
    put(tmp_path / "file")
    with pytest.raises(DataError, match=message) as caught:
        list_class_folders(tmp_path / name)
    assert caught.value.path == tmp_path / name
    assert caught.value.next_step == f"Arrange the image files as {tmp_path / name}/<class>/<file>."


def test_an_empty_class_folder_is_an_error(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match=r"the class folder has no image file, only an empty folder") as caught:
        list_class_folders(tmp_path)
    assert caught.value.path == tmp_path / "cat"
    assert caught.value.next_step.startswith("Put image files (JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC) there")


def test_a_class_folder_without_images_is_an_error(tmp_path):
    put(tmp_path / "cat" / "a.txt")
    with pytest.raises(DataError, match=r"no image file, only a.txt"):
        list_class_folders(tmp_path)


def test_it_can_be_asked_which_folders_hold_files(tmp_path):
    put(tmp_path / "cat" / "a.MP4")
    put(tmp_path / "a.jpg")
    assert folders_with(tmp_path, is_video) == ["cat"]
    assert folders_with(tmp_path, is_image) == []


def test_a_link_that_leads_to_itself_is_no_class(tmp_path):
    for name in ("cat/1.jpg", "dog/2.jpg"):
        put(tmp_path / name)
    (tmp_path / "loop").symlink_to("loop")
    assert list_class_folders(tmp_path).classes == ("cat", "dog")


def test_a_link_to_a_folder_above_is_not_followed(tmp_path):
    put(tmp_path / "loop/a/1.png")
    put(tmp_path / "loop/b/2.png")
    (tmp_path / "loop/a/all").symlink_to(tmp_path / "loop/a")
    (tmp_path / "loop/b/sibling").symlink_to(tmp_path / "loop/a")
    assert list_class_folders(tmp_path / "loop").ids == ("a/1.png", "b/2.png", "b/sibling/1.png")


@pytest.mark.parametrize(("name", "message"), [("gone", "does not exist"), ("file", "is not a folder")])
def test_splits_are_not_looked_for_where_there_is_no_folder(tmp_path, name, message):
    put(tmp_path / "file")
    with pytest.raises(DataError, match=message) as caught:
        find_class_folders(tmp_path / name, videos=True)
    assert caught.value.next_step == f"Arrange the video files as {tmp_path / name}/<class>/<file>."
