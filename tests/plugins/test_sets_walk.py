"""From a table of labels to predictions: images that show several classes each, made of small real or drawn ones."""

from __future__ import annotations

import csv
import json
import random
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Image as Picture

from tests.tiny import overridden
from toolkit.api.answers import SEPARATOR
from toolkit.cli.main import main

RECIPE = """
model = "cnn"
task = "multi_label"
metrics = ["accuracy", "precision", "recall", "f1", "average_precision"]

[data]
name = "image_folder"
train = "train.csv"
labels = "several"

[train]
epochs = 4
batch = 16
device = "cpu"
precision = "fp32"
metric = "mean_average_precision"

[train.optimizer]
name = "adamw"
lr = 1e-2

[train.schedule]
name = "one_cycle"
"""
SCORES = {
    *("loss", "accuracy", "mean_average_precision"),
    *(f"{name}_{average}" for name in ("precision", "recall", "f1") for average in ("macro", "weighted")),
}


def collages(
    root: Path, tiles: Mapping[str, Sequence[Callable[[], Picture]]], *, across: int, down: int, count: int, side: int
) -> Path:
    """`count` sheets of tiles at `root`, and train.csv with the set of classes that each shows; a place may stay empty
    but for noise, and all of them."""
    draw = random.Random(0)
    root.mkdir(parents=True)
    rows = []
    for number in range(count):
        size, shown = (across * side, down * side), set[str]()
        sheet = Image.frombytes("L", size, draw.randbytes(size[0] * size[1])).convert("RGB")
        for place in range(across * down):
            name = draw.choice([*sorted(tiles), None])
            if name is not None:
                shown.add(name)
                tile = draw.choice(tiles[name])().convert("RGB").resize((side, side))
                sheet.paste(tile, (place % across * side, place // across * side))
        sheet.save(root / f"{number:04}.png")
        rows.append([f"{number:04}.png", SEPARATOR.join(sorted(shown))])
    with (root / "train.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "labels"], *rows])
    return root


def drawn_tiles() -> dict[str, list[Callable[[], Picture]]]:
    """Noise that is red, green or blue."""
    rng = np.random.default_rng(0)

    def tile(channel: int) -> Picture:
        pixels = rng.integers(0, 60, (8, 8, 3), dtype=np.uint8)
        pixels[..., channel] += 180
        return Image.fromarray(pixels)

    return {name: [lambda channel=channel: tile(channel)] * 4 for channel, name in enumerate(("red", "green", "blue"))}


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collages(tmp_path_factory.mktemp("sets") / "sheets", drawn_tiles(), across=2, down=1, count=160, side=16)


def recipe(folder: Path, root: Path, text: str = RECIPE) -> Path:
    path = folder / "sets.toml"
    path.write_text(text.replace("[data]", f'[data]\nroot = "{root}"'), encoding="utf-8")
    return path


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def walk(path: Path, folder: Path, *overrides: str) -> Path:
    """Run, score again, export, predict; the run's directory."""
    runs = folder / "runs"
    assert main(["run", str(path), "--runs", str(runs), *overridden(overrides)]) == 0
    (run,) = (runs / "sets").iterdir()
    assert main(["evaluate", str(run)]) == 0
    assert main(["export", str(run), "--exports", str(folder / "exports"), "--name", "sets"]) == 0
    return run


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def set_of(cell: str) -> set[str]:
    return set(filter(None, cell.split(SEPARATOR)))


@pytest.mark.slow
def test_sets_of_classes_are_learned_and_answered(
    sheets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = walk(recipe(tmp_path, sheets), tmp_path, "model.widths=[8,16,32]", "input.size=32", "augment=[]")
    scores = read(run / "scores.json")
    assert {name for name, score in scores["test"].items() if isinstance(score, float)} == SCORES
    assert scores["test"]["mean_average_precision"] > 0.95
    labels = {row["path"]: set_of(row["labels"]) for row in rows_of(sheets / "train.csv")}
    answered = rows_of(run / "predictions.csv")
    assert all(set_of(row["target"]) == labels[row["id"]] for row in answered)
    assert any(not set_of(row["target"]) for row in answered)
    exact = [set_of(row["target"]) == set_of(row["prediction"]) for row in answered]
    assert sum(exact) / len(exact) == pytest.approx(scores["test"]["accuracy"])
    names = [row["id"] for row in answered[:8]]
    output = tmp_path / "out.csv"
    pictures = [str(sheets / name) for name in names]
    assert main(["predict", str(tmp_path / "exports" / "sets"), *pictures, "--output", str(output)]) == 0
    assert [set_of(row["prediction"]) for row in rows_of(output)] == [set_of(row["prediction"]) for row in answered[:8]]
    assert "without a label" in capsys.readouterr().out


@pytest.mark.slow
def test_a_study_of_sets_finds_its_best(sheets: Path, tmp_path: Path) -> None:
    space = '[tune]\ntrials = 2\n[tune.space]\ntask.positive_weights = {choices = ["none", "balanced"]}\n'
    path = recipe(tmp_path, sheets, RECIPE.replace("epochs = 4", "epochs = 1") + space)
    small = overridden(["model.widths=[4,4,8]", "input.size=16", "augment=['mixup','cutmix']"])
    assert main(["tune", str(path), "--runs", str(tmp_path / "runs"), *small]) == 0
    assert (tmp_path / "runs" / "sets" / "best.toml").is_file()


# What may be wrong


def refused(path: Path, folder: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    """What a run says that is not begun."""
    assert main(["run", str(path), "--runs", str(folder / "runs"), *overridden(overrides)]) in (2, 3)
    assert not list((folder / "runs").glob("*/*/records.jsonl"))
    return " ".join(capsys.readouterr().err.split())


SMALL = ("model.widths=[4,4,4]", "input.size=16", "train.epochs=1", "augment=[]")
REFUSED = {
    "sets to classification": (["task=classification"], 'task.name: "classification" takes one class an item, dataset'),
    "one class to multi_label": (
        ["data.train=one.csv", "data.labels=one"],
        'task.name: "multi_label" takes a set of classes an item, dataset "image_folder" has one class an item',
    ),
    **{
        name: (
            [f'metrics=["f1","{name}"]', "train.metric=loss"],
            f"metrics.{name}: is defined for one class an item, the data has sets of classes",
        )
        for name in ("top_k", "confusion_matrix", "log_loss", "calibration")
    },
    "an unknown score": (["train.metric=accurcy"], 'no metric of this recipe computes "accurcy"'),
    "nothing": (["data.train=empty.csv"], "no item has a label"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_meaning_for_sets_is_reported(
    sheets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    names = [row["path"] for row in rows_of(sheets / "train.csv")]
    for table, header, label in (("one.csv", "label", "ab"), ("empty.csv", "labels", ("", ""))):
        lines = [f"path,{header}", *(f"{name},{label[number % 2]}" for number, name in enumerate(names))]
        (sheets / table).write_text("\n".join([*lines, ""]), encoding="utf-8")
    overrides, message = REFUSED[case]
    assert message in refused(recipe(tmp_path, sheets), tmp_path, capsys, *SMALL, *overrides)


@pytest.mark.parametrize("case", ["one label", "everywhere", "never"])
def test_odd_sets_of_classes_are_learned_all_the_same(
    sheets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """One label alone, a label that each item has, and one that none has; weighed, mixed and mixed again."""
    header, cells = {
        "one label": ("path,a", ("1", "0")),
        "everywhere": ("path,a,b", ("1,1", "1,0")),
        "never": ("path,a,b", ("1,0", "0,0")),
    }[case]
    names = [row["path"] for row in rows_of(sheets / "train.csv")][:48]
    lines = [header, *(f"{name},{cells[number % 2]}" for number, name in enumerate(names))]
    (sheets / "odd.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    odd = ["data.train=odd.csv", "task={name='multi_label',positive_weights='balanced'}", "augment=['mixup','cutmix']"]
    path, runs = recipe(tmp_path, sheets), tmp_path / "runs"
    assert main(["run", str(path), "--runs", str(runs), *overridden([*SMALL[:3], *odd])]) == 0
    (run,) = (runs / "sets").iterdir()
    scores = read(run / "scores.json")["test"]
    assert scores["mean_average_precision"] is not None
    assert ("no item is labelled b" in capsys.readouterr().out) == (case == "never")


# Real images


@pytest.mark.real
@pytest.mark.long  # trains on 240 sheets
def test_four_real_objects_a_sheet(real_data: Path, tmp_path: Path) -> None:
    wanted = ("automobile", "bird", "ship")
    with tarfile.open(real_data / "cifar10-jpeg.tar.xz") as archive:
        members = [f"test/{name}/{number:04}.jpg" for name in wanted for number in range(60)]
        archive.extractall(tmp_path, members=[archive.getmember(name) for name in members], filter="data")
    tiles: dict[str, list[Callable[[], Picture]]] = {
        name: [lambda path=path: Image.open(path) for path in sorted((tmp_path / "test" / name).iterdir())]
        for name in wanted
    }
    root = collages(tmp_path / "sheets", tiles, across=2, down=2, count=240, side=32)
    run = walk(recipe(tmp_path, root), tmp_path, "input.size=64", "train.optimizer.lr=3e-3")
    scores = read(run / "scores.json")["test"]
    shown = [set_of(row["labels"]) for row in rows_of(root / "train.csv")]
    by_chance = sum(map(len, shown)) / (len(wanted) * len(shown))
    assert scores["mean_average_precision"] > by_chance + 0.05
