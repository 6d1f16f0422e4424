"""From a table of numbers to predictions: images whose brightness is learned, drawn by code and real ones."""

from __future__ import annotations

import contextlib
import csv
import json
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.tiny import overridden
from toolkit.cli.main import main

RECIPE = """
model = "cnn"
task = "regression"

[data]
name = "image_folder"
train = "train.csv"
numbers = "brightness"

[train]
epochs = 6
batch = 16
device = "cpu"
precision = "fp32"

[train.optimizer]
name = "adamw"
lr = 1e-2

[train.schedule]
name = "one_cycle"
"""
SMALL = ("model.widths=[8,8,8]", "input.size=16")


def measured(root: Path, paths: list[Path]) -> Path:
    """`root` with train.csv: the mean of each image, and how much redder than blue it is."""
    rows = []
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("RGB"), np.float64)
        rows.append([path.relative_to(root).as_posix(), pixels.mean(), 100 * (pixels[..., 0] - pixels[..., 2]).mean()])
    with (root / "train.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "brightness", "warmth"], *rows])
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise around levels from 20 to 200, of two tints."""
    root, rng, paths = tmp_path_factory.mktemp("numbers") / "pictures", np.random.default_rng(0), []
    root.mkdir()
    for number in range(240):
        levels = rng.uniform(20, 200) + rng.uniform(-20, 20, 3)
        noise = rng.integers(-20, 20, (16, 16, 3))
        paths.append(root / f"{number:03}.png")
        Image.fromarray((levels + noise).clip(0, 255).astype(np.uint8)).save(paths[-1])
    return measured(root, paths)


def recipe(folder: Path, root: Path, text: str = RECIPE) -> Path:
    path = folder / "numbers.toml"
    path.write_text(text.replace("[data]", f'[data]\nroot = "{root}"'), encoding="utf-8")
    return path


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def walk(path: Path, folder: Path, *overrides: str) -> Path:
    """Run, score again, export, score the bundle; the run's directory."""
    runs, exports = folder / "runs", folder / "exports"
    assert main(["run", str(path), "--runs", str(runs), *overridden(overrides)]) == 0
    (run,) = (runs / "numbers").iterdir()
    assert main(["evaluate", str(run)]) == 0
    assert main(["export", str(run), "--exports", str(exports), "--name", "numbers"]) == 0
    with contextlib.chdir(folder):
        # The bundle does not hold the folder of this machine.
        root = overridden([f"data.root={tomllib.loads(path.read_text(encoding='utf-8'))['data']['root']}"])
        assert main(["evaluate", str(exports / "numbers"), "--device", "cpu", *root]) == 0
    return run


def spread_of(root: Path, name: str = "brightness") -> float:
    return float(np.std([float(row[name]) for row in rows_of(root / "train.csv")]))


@pytest.mark.slow  # it trains, exports and predicts
def test_a_number_is_learned_and_answered_in_its_unit(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = walk(recipe(tmp_path, pictures), tmp_path, *SMALL)
    scores = read(run / "scores.json")["test"]
    assert {*scores} == {"loss", *(f"{name}{end}" for name in METRICS for end in ("", "_per_output"))}
    assert scores["mae"] < 0.5 * spread_of(pictures)
    assert scores["r2"] > 0.7
    written = {row["path"]: float(row["brightness"]) for row in rows_of(pictures / "train.csv")}
    answered = rows_of(run / "predictions.csv")
    assert all(float(row["target_brightness"]) == pytest.approx(written[row["id"]]) for row in answered)
    errors = [abs(float(row["prediction_brightness"]) - float(row["target_brightness"])) for row in answered]
    assert np.mean(errors) == pytest.approx(scores["mae"], rel=1e-5)
    (bundled,) = (tmp_path / "runs" / "numbers-bundle").iterdir()
    assert read(bundled / "scores.json")["test"]["mae"] == pytest.approx(scores["mae"], rel=1e-4)
    output, ids = tmp_path / "out.csv", [row["id"] for row in answered[:8]]
    bundle = str(tmp_path / "exports" / "numbers")
    assert main(["predict", bundle, *(str(pictures / name) for name in ids), "--output", str(output)]) == 0
    found = [float(row["prediction_brightness"]) for row in rows_of(output)]
    assert found == pytest.approx([float(row["prediction_brightness"]) for row in answered[:8]], rel=1e-4)
    assert "1 number (brightness)" in capsys.readouterr().out
    card = (tmp_path / "exports" / "numbers" / "README.md").read_text(encoding="utf-8")
    assert "A model that gives 1 number for an image" in card
    assert "| brightness |" in card
    assert "classif" not in card.partition("## Training")[0]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "test mean absolute error" in page
    assert "Prediction by target" in page
    assert 'id="confusion"' not in page
    assert 'id="calibration"' not in page


METRICS = ("mae", "rmse", "r2", "median_absolute_error")


@pytest.mark.slow  # it trains two trials
def test_a_study_of_numbers_finds_its_best(pictures: Path, tmp_path: Path) -> None:
    space = '[tune]\ntrials = 2\n[tune.space]\ntask.loss = {choices = ["mse", "l1"]}\n'
    path = recipe(tmp_path, pictures, RECIPE.replace("epochs = 6", "epochs = 1") + space)
    small = overridden([*SMALL, "augment=['mixup','cutmix']", 'data.numbers=["brightness","warmth"]'])
    assert main(["tune", str(path), "--runs", str(tmp_path / "runs"), *small]) == 0
    assert (tmp_path / "runs" / "numbers" / "best.toml").is_file()


# What may be wrong


REFUSED = {
    "numbers to classification": (
        ["task=classification", 'metrics=["accuracy"]', "train.metric=loss"],
        'task.name: "classification" takes one class an item, dataset "image_folder" has numbers an item; did you mean '
        '"regression"?',
    ),
    "numbers to multi_label": (["task=multi_label"], '"multi_label" takes a set of classes an item'),
    "classes to regression": (
        ["data.numbers=[]", "data.train=labels.csv"],
        'task.name: "regression" takes numbers an item, dataset "image_folder" has one class an item; did you mean '
        '"classification"?',
    ),
    **{
        name: ([f'metrics=["mae","{name}"]'], f"metrics.{name}: is defined for")
        for name in ("accuracy", "f1", "confusion_matrix", "average_precision", "calibration")
    },
    "an unknown score": (["train.metric=accuracy"], 'no metric of this recipe computes "accuracy"'),
    "an unknown column": (["data.numbers=bright"], "the header has no column bright"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_meaning_for_numbers_is_reported_before_training(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    names = [row["path"] for row in rows_of(pictures / "train.csv")]
    lines = ["path,label", *(f"{name},{'ab'[number % 2]}" for number, name in enumerate(names))]
    (pictures / "labels.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    overrides, message = REFUSED[case]
    words = ["run", str(recipe(tmp_path, pictures)), "--runs", str(tmp_path / "runs")]
    assert main([*words, *overridden([*SMALL, *overrides])]) in (2, 3)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list((tmp_path / "runs").glob("*/*/records.jsonl"))


# Real images


@pytest.mark.real
@pytest.mark.long  # trains, exports and predicts
def test_the_brightness_of_real_images(real_data: Path, tmp_path: Path) -> None:
    with tarfile.open(real_data / "cifar10-jpeg.tar.xz") as archive:
        members = [f"test/{name}/{number:04}.jpg" for name in ("bird", "ship", "truck") for number in range(120)]
        archive.extractall(tmp_path, members=[archive.getmember(name) for name in members], filter="data")
    root = measured(tmp_path / "test", sorted((tmp_path / "test").rglob("*.jpg")))
    run = walk(recipe(tmp_path, root), tmp_path, "input.size=32", "train.epochs=8", "train.optimizer.lr=3e-3")
    scores = read(run / "scores.json")["test"]
    assert scores["mae"] < 0.4 * spread_of(root)
    assert scores["r2"] > 0.8
