"""What names of files, keys and values may hold never reaches a terminal as it is."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.plugins.data_files import write_image
from tests.tiny import RECIPE, only_run, write_recipe
from toolkit.cli.main import main

HOSTILE = "\x1b]0;owned\x07\nerror: forged\r\u202egnp\x9b2J"


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    main(words)
    out, err = capsys.readouterr()
    assert out + err
    assert not [line for line in (out + err).split("\n") if not line.isprintable()]
    assert "\nerror: forged" not in out + err
    return out + err


@pytest.mark.parametrize(
    "words",
    [
        ["check", f"{HOSTILE}.toml"],
        ["run", HOSTILE],
        ["run", "--resume", HOSTILE],
        ["check", "cifar10_cnn", "--set", f"{HOSTILE}=1"],
        ["check", "cifar10_cnn", "--set", f"model.{HOSTILE}=1"],
        ["check", "cifar10_cnn", "--set", f'model.dropout="{HOSTILE}"'],
        ["check", "cifar10_cnn", "--set", f"model.name={HOSTILE}"],
        ["check", "cifar10_cnn", "--set", f"data.root={HOSTILE}"],
        ["plugins", "show", HOSTILE],
        ["plugins", "new", HOSTILE],
        ["plugins", "disable", HOSTILE],
        ["recipes", HOSTILE],
        ["init", "images", HOSTILE],
        ["report", HOSTILE],
        ["export", HOSTILE],
        ["evaluate", HOSTILE],
        ["predict", HOSTILE, HOSTILE],
        [HOSTILE],
        ["check", f"--{HOSTILE}"],
    ],
    ids=lambda words: " ".join(words).replace(HOSTILE, "X"),
)
def test_of_a_command_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    printed(words, capsys)


def test_of_classes_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cat", HOSTILE):
        for number in range(12):
            write_image(tmp_path / "photos" / name / f"{number}{HOSTILE}.png", len(name) + number)
    (tmp_path / "photos" / "cat" / f"{HOSTILE}.txt").write_text("")
    recipe = write_recipe(tmp_path)
    words = ["check", str(recipe), "--set", "data={name='image_folder', root='photos'}"]
    assert "valid" in printed(words, capsys)
    assert "\\x1b]0;owned" in printed(["init", "images", "photos"], capsys)


def test_of_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('"\\u001b[2J\\n\\u202e" = 1\n[data]\nname = "\\u009b2J"\n')
    printed(["check", str(recipe)], capsys)
    recipe.write_text("a = \u202e\n")
    printed(["check", str(recipe)], capsys)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of two classes, in the working folder; the name of one class, and those of all files, are hostile."""
    monkeypatch.chdir(tmp_path)
    for name in ("cat", HOSTILE):
        for number in range(12):
            write_image(tmp_path / "photos" / name / f"{number}{HOSTILE}.png", len(name) + number)
    return Path("photos")


@pytest.mark.slow
def test_of_a_run_and_all_that_is_done_with_it(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Slow: it trains and exports. What is written holds the names as they are, and pages are safe to look at."""
    folders = RECIPE.replace('"cifar10"\nvalid_share = 0.2', f'"image_folder"\nroot = "{photos}"')
    recipe = str(write_recipe(Path(), text=folders))
    assert "scores" in printed(["run", recipe, "--set", "train.epochs=1"], capsys)
    run = only_run(Path("runs"))
    photo = next(str(path) for path in sorted((photos / HOSTILE).iterdir()))
    for words in (
        ["find-lr", recipe],
        ["evaluate", str(run)],
        ["report", str(run)],
        ["export", str(run), "--name", "mine"],
        ["evaluate", "exports/mine"],
        ["predict", "exports/mine", photo],
        ["predict", "exports/mine", photo, f"{HOSTILE}.png"],
        ["predict", "exports/mine", str(photos), "--output", "rows.csv", "--save", "copies"],
        ["predict", "exports/mine", photo, "--output", f"{HOSTILE}.csv"],
    ):
        assert "unexpected" not in printed(words, capsys), words
    with Path("rows.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["class_1"] for row in rows} <= {"cat", HOSTILE}
    assert {row["file"] for row in rows} == {str(path) for path in photos.rglob("*.png")}
    for page in (run / "report.html", Path("exports/mine/README.md")):
        assert not [line for line in page.read_text("utf-8").split("\n") if "\x1b" in line or "\x9b" in line]
    assert not [path for path in Path("copies").iterdir() if not path.name.isprintable()]
