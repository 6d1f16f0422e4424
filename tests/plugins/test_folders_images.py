"""Images in class folders, and in class folders below splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_files import all_ids, class_folders, splits, write_image, write_video
from data_files import refused as problem

from tests.odd_images import READ, SEVERAL
from toolkit.api.contracts import FileProblem
from toolkit.api.errors import DataError
from toolkit.data.pixels import decode_pixels
from toolkit_folders import toolkit_datasets
from toolkit_folders.image_folder import image_folder
from toolkit_har.dataset import har

SHARES = {"valid_share": 0.25, "test_share": 0.25}


def test_the_plugin_names_its_datasets():
    assert toolkit_datasets() == {
        "image_folder": "toolkit_folders.image_folder:image_folder",
        "video_folder": "toolkit_folders.video_folder:video_folder",
    }


def split_folders(root: Path, *splits: str, images: int = 8) -> Path:
    """Images that are all unlike each other: `images` of two classes in each split."""
    for place, split in enumerate(splits):
        for target, name in enumerate(("run", "sit")):
            for number in range(images):
                write_image(root / split / name / f"{number}.png", 1000 * place + 100 * target + number)
    return root


DATASETS = pytest.mark.parametrize("dataset", [har, image_folder])


@DATASETS
@pytest.mark.parametrize("names", [("train", "valid", "test"), ("Training", "VAL", "testing")])
def test_folders_of_splits_give_the_splits(tmp_path, dataset, names):
    data = dataset(split_folders(tmp_path, *names))
    assert data.spec.classes == ("run", "sit")
    for split, name in zip(splits(data), names, strict=True):
        assert split.ids == tuple(f"{name}/{label}/{number}.png" for label in ("run", "sit") for number in range(8))
        assert split.targets == (0,) * 8 + (1,) * 8
    assert {name: data.protocol.get(name) for name in ("split", "split_seed", "valid_share", "grouping")} == {
        "split": "folders",
        "split_seed": None,
        "valid_share": None,
        "grouping": "none",
    }
    assert data.notes == ()


@DATASETS
@pytest.mark.parametrize(
    ("names", "sizes", "shares"),
    [
        (("train",), [8, 4, 4], {"valid_share", "test_share", "split_seed"}),
        (("train", "val"), [12, 16, 4], {"test_share", "split_seed"}),
        (("train", "test"), [12, 4, 16], {"valid_share", "split_seed"}),
    ],
)
def test_splits_that_no_folder_gives_are_taken_from_those_to_train_on(tmp_path, dataset, names, sizes, shares):
    data = dataset(split_folders(tmp_path, *names), **SHARES)
    assert [len(split) for split in splits(data)] == sizes
    assert all(item.startswith(("train/", f"{names[-1]}/")) for item in all_ids(data))
    assert {"valid_share", "test_share", "split_seed"} & set(data.protocol) == shares


def test_a_split_may_lack_a_class_which_is_reported(tmp_path):
    root = split_folders(tmp_path, "train", "test")
    for image in (root / "test" / "run").iterdir():
        image.unlink()
    (root / "test" / "run").rmdir()
    data = image_folder(root)
    assert set(data.test.targets) == {1}
    assert "the given test split has no item of run" in data.notes


def test_folders_without_images_next_to_splits_are_skipped_and_reported(tmp_path):
    root = split_folders(tmp_path, "train", "test")
    (root / "annotations").mkdir()
    (root / "annotations" / "a.xml").write_text("")
    assert image_folder(root).notes == ("skipped 1 folder without image files: annotations",)


@pytest.mark.parametrize("place", ["", "train/"])
def test_files_that_are_not_items_are_skipped_and_reported(tmp_path, place):
    class_folders(tmp_path / place)
    write_image(tmp_path / place / "loose.png", 7)
    for name in ("run/0.psd", "run/deep/1.XML", "sit/Thumbs.db", "sit/.DS_Store", "README.md"):
        (tmp_path / place / name).parent.mkdir(exist_ok=True)
        (tmp_path / place / name).write_bytes(name.encode())
    data = image_folder(tmp_path)
    assert all_ids(data) == sorted(f"{place}{name}/{number}.png" for name in ("run", "sit") for number in range(4))
    assert data.notes == (
        f"skipped 1 file outside the class folders: {place}loose.png",
        f"skipped 2 files that are not images: {place}run/0.psd, {place}run/deep/1.XML",
        f"skipped 2 hidden files: {place}sit/.DS_Store, {place}sit/Thumbs.db",
    )
    other = "skipped: not an image"
    assert set(data.files) == {
        FileProblem(f"{place}loose.png", "skipped: outside the class folders"),
        *(FileProblem(f"{place}{name}", other) for name in ("run/0.psd", "run/deep/1.XML")),
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jfif", "RGB.jpg"),
        ("a.JPE", "RGB.jpg"),
        ("a.bmp", "RGB.bmp"),
        ("a.tif", "RGB.tif"),
        ("a.TIFF", "deep.tif"),
        ("a.gif", "P.gif"),
        ("a.gif", "animated.gif"),
        ("a.avif", "RGB.avif"),
        ("a.webp", "RGBA.webp"),
        ("a", "RGB.png"),
        ("a.dat", "RGB.jpg"),
        ("2031.05.06 photo", "progressive.jpg"),
        ("a.ts", "RGB.png"),
    ],
)
def test_every_image_is_found_and_read(tmp_path, name, content):
    root = class_folders(tmp_path)
    (root / "run" / name).write_bytes(READ[content])
    data = image_folder(root, valid_share=0, test_share=0)
    assert data.train.ids == tuple(sorted([f"run/{name}", *(f"{c}/{n}.png" for c in ("run", "sit") for n in range(4))]))
    pixels = data.train.read(data.train.ids.index(f"run/{name}"))
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), decode_pixels(READ[content]))


def test_of_files_that_hold_several_pictures_the_first_is_read_and_reported(tmp_path):
    root = class_folders(tmp_path)
    for name in SEVERAL:
        (root / "run" / name).write_bytes(READ[name])
    data = image_folder(root)
    named = "run/animated.avif, run/animated.gif, run/animated.png and 2 more"
    assert f"only the first picture is read of 5 files with several: {named}" in data.notes
    assert {FileProblem(f"run/{name}", f"holds {n} pictures: the first is read") for name, n in SEVERAL.items()} == {
        *data.files
    }


def test_videos_among_images_are_skipped_and_reported(tmp_path):
    root = class_folders(tmp_path)
    write_video(root / "sit" / "clip.mp4")
    (root / "sit" / "clip.mp4").rename(root / "sit" / "clip")
    data = image_folder(root)
    assert data.notes == ("skipped 1 file that is not an image: sit/clip",)
    assert data.files == (FileProblem("sit/clip", "skipped: not an image"),)


def test_a_class_may_be_called_as_a_split_is(tmp_path):
    data = image_folder(class_folders(tmp_path, classes=("bus", "train")))
    assert (data.spec.classes, data.notes) == (("bus", "train"), ())


def test_splits_that_are_used_as_classes_are_reported(tmp_path):
    root = split_folders(tmp_path, "train", "val")
    write_image(root / "examples" / "0.png", 5)
    data = image_folder(root)
    assert data.spec.classes == ("examples", "train", "val")
    assert data.notes[0] == (
        "folders named like splits are used as classes: train, val; if they are splits, move the other folders away: "
        "examples"
    )


def test_twins_in_splits_that_are_given_are_reported(tmp_path):
    root = split_folders(tmp_path, "train", "test")
    (root / "test" / "run" / "0.png").write_bytes((root / "train" / "run" / "0.png").read_bytes())
    data = image_folder(root, valid_share=0)
    assert data.notes == ("1 set of byte-identical files, 1 of them in more than one split",)
    assert data.files == (FileProblem("train/run/0.png", "duplicate in another split", "test/run/0.png"),)


@pytest.mark.parametrize(
    ("names", "place", "message"),
    [
        (("test/a/1.png", "val/a/1.png"), "", "has no folder train, only val, test"),
        (("train/a/1.png", "val/a/1.png", "Valid/a/1.png"), "", "has several folders for valid: Valid, val"),
        (("train/a/1.png", "train/b/1.png", "test/1.png"), "test", "no class folders found, only 1.png"),
        (("train/a/1.png", "train/b/1.png", "test/x.txt"), "test", "no class folders found, only x.txt"),
        (("train/a/1.png", "train/b/1.png", "val/b/x.txt"), "val/b", "the class folder has no image file, only x.txt"),
        (("train/a/1.png", "val/a/1.png"), "train", "has only one class folder, a"),
        (
            ("train/a/1.png", "train/b/1.png", "val/c/1.png", "val/d/1.png"),
            "val",
            "2 class folders not among those of train: c, d",
        ),
    ],
)
def test_folders_of_splits_that_do_not_fit_are_an_error(tmp_path, names, place, message):
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / name, number) if name.endswith("png") else (tmp_path / name).touch()
    error = problem(tmp_path, image_folder)
    assert error.message == f"{tmp_path / place}: {message}"
    assert error.next_step


@pytest.mark.parametrize("names", [(), ("1.png", "2.png")])
def test_a_folder_of_a_split_without_class_folders_may_be_moved_away(tmp_path, names):
    root = split_folders(tmp_path, "train")
    (root / "test").mkdir()
    for name in names:
        write_image(root / "test" / name)
    error = problem(root, image_folder)
    assert error.path == root / "test"
    assert error.next_step.endswith(" Or move the folder away: the split is then taken from train/.")


def test_image_folder_has_no_sample_and_names_its_layouts(tmp_path):
    with pytest.raises(DataError, match="image_folder has no built-in sample") as caught:
        image_folder(None)
    assert "train/<class>/<image>" in caught.value.next_step
    assert problem(tmp_path / "gone", image_folder).message == f"{tmp_path / 'gone'}: does not exist"
    assert problem(write_image(tmp_path / "a" / "1.txt.png").parent, image_folder).next_step


def test_groups_of_folders_stay_together(tmp_path):
    root = split_folders(tmp_path, "train", "test")
    data = image_folder(root, group_pattern=r"(\d)\.png", valid_share=0.25)
    train, valid = ({item[-5] for item in split.ids} for split in (data.train, data.valid))
    assert not train & valid
    assert data.notes[0] == (
        r"the given splits divide 8 groups (pattern (\d)\.png), so scores can show the source instead of the class"
    )
