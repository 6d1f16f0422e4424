"""The command init as a user types it. The commands that it prints are typed in tests/journeys."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.plugins.data_files import class_folders, write_image, write_video
from toolkit.api.errors import DataError
from toolkit.cli.init.start import start
from toolkit.cli.main import main
from toolkit.recipe.read import load


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("toolkit.cli.init.start.has_gpu", lambda: False)


def photos(root: Path, images: int = 12, side: int = 120) -> Path:
    for target, name in enumerate(("daisy", "rose")):
        for number in range(images):
            write_image(root / name / f"{number}.jpg", 100 * target + number, height=side, width=side + 20)
    return root


def kaggle(root: Path) -> Path:
    for number in range(8):
        write_image(root / "train" / f"Image_{number}.jpg", number)
    rows = "".join(f"Image_{number}.jpg,{('run', 'sit')[number % 2]}\n" for number in range(8))
    (root / "Training_set.csv").write_text(f"filename,label\n{rows}", "utf-8")
    return root


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[str, str]:
    found = main(arguments)
    out, err = capsys.readouterr()
    assert found == code, err
    return out, err


def followed(out: str) -> list[str]:
    """The commands that come next."""
    return re.findall(r"^(?:next: |      ) python -m toolkit (.*)$", out, re.MULTILINE)


def test_photos_get_a_recipe_of_their_own_and_the_commands_that_come_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = photos(tmp_path / "My Flowers")
    out, err = printed(["init", "images", str(root)], capsys)
    assert out.splitlines() == [
        f"found 24 images of 2 classes: class folders in {root}",
        "classes: daisy 12, rose 12",
        "usual image: short side 120 px; looked at 24 of 24",
        "splits: train 14, valid 6, test 4",
        "wrote my_flowers.toml: resnet18 at 128 px, imagenet weights, 20 epochs of batches of 4 (no GPU was found)",
        "next:  python -m toolkit check my_flowers.toml",
        "       python -m toolkit run my_flowers.toml",
        f"       python -m toolkit predict runs/latest '{root / 'daisy' / '0.jpg'}'",
    ]
    assert err == ""
    recipe = load(Path("my_flowers.toml"))
    assert (recipe.data.name, recipe.data.root) == ("image_folder", root)


def test_what_is_odd_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "zip" / "flowers", images=4)
    whole = (root / "rose" / "2.jpg").read_bytes()
    (root / "rose" / "2.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "rose" / ".DS_Store").write_bytes(b"")
    (tmp_path / "zip" / "__MACOSX").mkdir()
    _, err = printed(["init", "images", str(tmp_path / "zip")], capsys)
    lines = err.splitlines()
    assert lines[0].startswith("note: 1 file of 8 looked at cannot be read: rose/2.jpg (")
    assert lines[1:] == [
        "note: 4 items of class daisy: expect scores to vary by much from run to run; add items",
        "note: skipped 1 hidden file: rose/.DS_Store",
        "note: the data is in flowers/ below it",
        "note: skipped 1 hidden folder with 0 files: __MACOSX",
    ]


def test_a_recipe_is_not_overwritten_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "flowers", images=3)
    Path("flowers.toml").write_text("mine", "utf-8")
    _, err = printed(["init", "images", str(root)], capsys, code=2)
    assert err.splitlines() == [
        "error: flowers.toml: file exists; --force overwrites it, --output FILE names another",
        f"next:  python -m toolkit init images {root} --force",
    ]
    assert Path("flowers.toml").read_text("utf-8") == "mine"
    printed(["init", "images", str(root), "--output", "new/other.toml"], capsys)
    assert Path("new/other.toml").is_file()
    printed(["init", "images", str(root), "--force"], capsys)
    assert Path("flowers.toml").read_text("utf-8") != "mine"


@pytest.mark.parametrize(
    ("words", "code", "message", "step"),
    [
        ("init images", 2, "init images: a folder is missing", "python -m toolkit init images FOLDER"),
        ("init videos nowhere", 3, "nowhere: folder not found", "python -m toolkit init videos --help"),
        (
            "init images a --output a.json",
            2,
            "--output a.json: expected a name",
            "python -m toolkit init images a --output a.json.toml",
        ),
        (
            "init images ../set.zip",
            3,
            "../set.zip: expected a folder, got a file",
            "mkdir -p set && unzip ../set.zip -d set && python -m toolkit init images set",
        ),
        (
            "init images ../set.tar.gz",
            3,
            "../set.tar.gz: expected a folder, got a file",
            "mkdir -p set && tar -xf ../set.tar.gz -C set && python -m toolkit init images set",
        ),
        ("init images ../set.txt", 3, "../set.txt: expected a folder, got a file", "give a folder"),
    ],
)
def test_wrong_words(
    words: str, code: int, message: str, step: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("set.zip", "set.tar.gz", "set.txt"):
        (tmp_path / name).write_bytes(b"")
    _, err = printed(words.split(), capsys, code)
    lines = err.splitlines()
    assert lines[0].startswith(f"error: {message}")
    assert lines[1].startswith(f"next:  {step}")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", [b"a\nb", b"a\xffb"], ids=["line break", "not UTF-8"])
def test_a_folder_that_no_text_can_name_is_refused(name: bytes, tmp_path: Path) -> None:
    root = photos(tmp_path / os.fsdecode(name), images=3)
    with pytest.raises(DataError, match="its path has characters that cannot be written"):
        start("images", root, Path("a.toml"))


def test_classes_and_files_may_have_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "f", images=3)
    (root / "rose").rename(root / "r\nseed = 3")
    (root / "daisy").rename(root / os.fsdecode(b"d\xff"))
    (root / "r\nseed = 3" / "bad\nseed = 4.jpg").write_bytes(b"no image")
    printed(["init", "images", str(root)], capsys)
    assert load(Path("f.toml")).seed == 0


@pytest.mark.parametrize("kind", ["cifar10", "har"])
def test_without_a_folder_the_shipped_recipe_is_copied(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(["init", kind], capsys)
    assert f"wrote {kind}.toml: a copy of the shipped recipe {kind}_" in out
    assert err.startswith("note: it trains on a built-in sample")
    text = Path(f"{kind}.toml").read_text("utf-8")
    assert f"python -m toolkit run {kind}.toml" in text
    assert "recipes/" not in text
    assert "root" not in tomllib.loads(text)["data"]
    printed(["check", f"{kind}.toml", "--recipe-only"], capsys)


def test_the_layout_of_kaggle_is_recognised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = kaggle(tmp_path / "archive" / "Human Action Recognition")
    for kind in ("har", "images"):
        out, err = printed(["init", kind, str(tmp_path / "archive"), "--force"], capsys)
        assert out.startswith(f"found 8 items of 2 classes below {root}\nsplits: train ")
        assert load(Path("archive.toml")).data.root == root
    assert load(Path("archive.toml")).data.name == "har"
    faster = re.search(r"^note: no GPU was found; a faster model: add (.*) to each command$", err, re.MULTILINE)
    assert faster is not None
    printed(["check", "archive.toml", *faster[1].split()], capsys)


def test_images_in_the_layout_of_cifar10(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        class_folders(tmp_path / "c" / split, images=10)
    out, _ = printed(["init", "cifar10", str(tmp_path / "c")], capsys)
    assert out.startswith("found 40 items of 2 classes")
    assert load(Path("c.toml")).data.root == tmp_path / "c"


def test_a_folder_that_is_not_cifar10_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = printed(["init", "cifar10", str(photos(tmp_path / "flowers", images=3))], capsys, code=3)
    assert "CIFAR-10" in err
    assert list(Path().iterdir()) == []


def test_images_and_videos_import_no_torch(tmp_path: Path) -> None:
    root = photos(tmp_path / "flowers", images=3)
    for name in ("run", "sit"):
        for number in range(3):
            write_video(tmp_path / "videos" / name / f"{number}.mp4", shade=number)
    for kind, folder in (("images", root), ("videos", tmp_path / "videos")):
        words = [sys.executable, "-X", "importtime", "-m", "toolkit", "init", kind, str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "toolkit.cli.init.start" in loaded
        assert loaded.isdisjoint({"torch", "torchvision"})


def test_numbers_get_a_recipe_whose_check_succeeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(30):
        write_image(tmp_path / "cars" / f"{number}.jpg", number, height=40, width=60)
    rows = "".join(f"{number}.jpg,{1000.5 + 10 * number}\n" for number in range(30))
    (tmp_path / "cars" / "prices.csv").write_text(f"path,price\n{rows}", "utf-8")
    out, _ = printed(["init", "images", str(tmp_path / "cars")], capsys)
    assert f"found 30 images: prices.csv with numbers (price) in {tmp_path / 'cars'}\n" in out
    assert "numbers: price 1000 to 1290\n" in out
    made = tomllib.loads(Path("cars.toml").read_text("utf-8"))
    assert (made["task"]["name"], made["data"]["numbers"]) == ("regression", "price")
    check, *_ = followed(out)
    out, _ = printed(shlex.split(check), capsys)
    assert "cars.toml: valid\n" in out
