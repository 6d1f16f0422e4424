"""A run from end to end, on real files through real plugins: what it leaves, what it refuses, what it survives."""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import math
import os
import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score
from torch.nn import functional

from tests import tiny
from tests.installed import install
from tests.runs.test_report import read_page
from tests.test_architecture import loaded_by
from toolkit.api.contracts import DataSpec, EpochRecord
from toolkit.api.errors import DataError
from toolkit.build.plan import plan
from toolkit.cli.main import main
from toolkit.host.registry import discover
from toolkit.recipe.read import load
from toolkit.recipe.write import digest
from toolkit.runs.files import read_run
from toolkit.runs.report import write_report
from toolkit.training.checkpoint import BestCheckpoint, LastCheckpoint
from toolkit.training.state import State
from toolkit_tasks.classification import balanced
from toolkit_vision.cnn import cnn

FILES = {
    *("recipe.toml", "summary.txt", "environment.json", "facts.json", "records.jsonl", "scores.json"),
    *("predictions.csv", "last.pt", "best.pt", "report.html", "figures", ".lock"),
}
FIGURES = {
    *("augmented", "calibrated", "calibration", "confusion", "confusion_normalised", "feature_maps", "learning_rate"),
    *("loss", "score", "scores"),
}
TIMES = {"seconds", "valid_seconds", "waiting"}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def records(run: Path) -> list[dict[str, Any]]:
    """The lines of records.jsonl without their times."""
    lines = (run / "records.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


def predictions(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Of a best.pt, or of the network in a last.pt."""
    state = torch.load(path, weights_only=True)
    found: dict[str, torch.Tensor] = state["network"] if "network" in state else state["state"]["network"]
    return found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture
def recipe(tmp_path: Path, images: Path) -> Path:
    return tiny.write_recipe(tmp_path, images)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """A finished run, for looking only."""
    folder = tmp_path_factory.mktemp("made")
    assert tiny.run(tiny.write_recipe(folder, images), folder / "runs") == 0
    return tiny.only_run(folder / "runs")


@pytest.fixture
def finished(made: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, for spoiling."""
    return shutil.copytree(made, tmp_path / "copied" / "tiny" / made.name)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without pictures and page, which take most of a tiny run's time."""
    monkeypatch.setattr("toolkit.runs.session.draw_pictures", lambda *arguments: {})
    monkeypatch.setattr("toolkit.runs.evaluation.write_report", lambda path: path)


# What a run leaves


def test_every_file_is_there_and_no_other(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == FILES
    assert {path.stem for path in (made / "figures").glob("*.png")} - {"worst_errors"} == FIGURES


def test_the_kept_recipe_is_the_resolved_one(made: Path) -> None:
    kept = load(made / "recipe.toml", name="tiny")
    assert plan(kept, discover()).resolved == kept
    assert (kept.train.optimizer.args["nesterov"], kept.train.schedule.args["peak"]) == (False, 0.3)
    assert digest(kept) == BestCheckpoint.load(made / "best.pt").origin.digest


def test_there_is_one_record_an_epoch(made: Path) -> None:
    lines = [json.loads(line) for line in (made / "records.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 3), (2, 6)]
    for line in lines:
        assert set(line) == {field.name for field in fields(EpochRecord)}
        assert {"loss", "accuracy", "f1_macro", "log_loss", "ece"} <= set(line["valid"])
        assert set(line["lr"]) == {"backbone", "head"}
        assert math.isfinite(line["train_loss"])
        assert line["seconds"] > 0
        assert 0 <= line["waiting"] <= 1
        assert line["sample"] is False


def test_scores_are_those_of_the_best_checkpoint(made: Path, images: Path) -> None:
    """Computed again by other means: PIL, the normalisation by hand, scikit-learn."""
    scores, kept = read_json(made / "scores.json"), BestCheckpoint.load(made / "best.pt")
    logits, targets = answers(kept, images)
    assert scores["best_epoch"] == kept.epoch == 1
    assert scores["test"]["loss"] == pytest.approx(float(functional.cross_entropy(logits, targets)), abs=1e-5)
    assert scores["test"]["accuracy"] == pytest.approx(float((logits.argmax(1) == targets).float().mean()))
    assert scores["test"]["f1_macro"] == pytest.approx(f1_score(targets, logits.argmax(1), average="macro"))
    assert {name: scores["valid"][name] for name in kept.valid} == pytest.approx(kept.valid, abs=1e-5)


def answers(kept: BestCheckpoint, images: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets of the test images."""
    model = cnn(DataSpec(tiny.CLASSES, tiny.SIDE), widths=(8, 8)).eval()
    model.load_state_dict({key.removeprefix("model."): value for key, value in kept.network.items()})
    paths = sorted((images / "test").glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths]) / 255
    normalised = (pixels - (0.4914, 0.4822, 0.4465)) / (0.2470, 0.2435, 0.2616)
    with torch.no_grad():
        logits = model(torch.from_numpy(normalised).float().permute(0, 3, 1, 2))
    return logits, torch.tensor([tiny.CLASSES.index(path.parent.name) for path in paths])


def test_scores_carry_their_protocol(made: Path) -> None:
    protocol = read_json(made / "scores.json")["protocol"]
    assert len(protocol.pop("split_hash")) == 12
    assert protocol == {
        "dataset": "cifar10",
        "sample": False,
        "split": "official",
        "split_seed": 0,
        "valid_share": 0.2,
        "size": 32,
        "stored": 32,
        "fit": "crop",
        "views": "1 centre crop",
        "precision": "fp32",
        "skipped": {"train": 0, "valid": 0, "test": 0},
    }


def test_predictions_list_every_test_item(made: Path, images: Path) -> None:
    rows = predictions(made)
    ranks = [f"{column}_{rank}" for rank in (1, 2, 3) for column in ("class", "probability")]
    assert list(rows[0]) == ["id", "target", "prediction", "confidence", *ranks]
    assert [row["id"] for row in rows] == [str(p.relative_to(images)) for p in sorted((images / "test").glob("*/*"))]
    for row in rows:
        shares = [float(row[f"probability_{rank}"]) for rank in (1, 2, 3)]
        assert row["target"] == row["id"].split("/")[1]
        assert (row["prediction"], row["confidence"]) == (row["class_1"], row["probability_1"])
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1, abs=1e-5)
    right = sum(row["prediction"] == row["target"] for row in rows)
    assert read_json(made / "scores.json")["test"]["accuracy"] == pytest.approx(right / len(rows))


def test_facts_and_environment_say_what_it_ran_on(made: Path) -> None:
    facts, environment = read_json(made / "facts.json"), read_json(made / "environment.json")
    assert facts["items"] == {"train": 24, "valid": 6, "test": 12}
    assert facts["epoch_items"] == 24
    assert (facts["sample"], facts["classes"]) == (False, list(tiny.CLASSES))
    assert [note.partition(" = ")[0] for note in facts["notes"]] == ["train.direction"]
    assert (facts["device"], facts["precision"], facts["epochs"]) == ("cpu", "fp32", 2)
    counted = sum(value.numel() for key, value in weights(made / "best.pt").items() if "weight" in key or "bias" in key)
    assert facts["parameters"] == counted
    assert facts["multiply_adds"] > 100_000
    assert environment["packages"]["torch"] == metadata.version("torch")
    assert environment["hardware"]["threads"] == 1
    assert {"python", "platform", "git", "command"} <= set(environment)


def test_checkpoints_belong_to_the_records(made: Path) -> None:
    last, best, lines = LastCheckpoint.load(made / "last.pt"), BestCheckpoint.load(made / "best.pt"), records(made)
    assert (last.state["epoch"], last.state["step"]) == (2, 0)
    assert best.origin == last.origin
    assert best.origin.classes == list(tiny.CLASSES)
    assert best.valid == lines[best.epoch - 1]["valid"]
    assert [line["best"] for line in lines] == [True, False]
    assert not same(weights(made / "best.pt"), weights(made / "last.pt"))
    assert "Conv2d" in (made / "summary.txt").read_text(encoding="utf-8")


def test_the_page_shows_the_run(made: Path) -> None:
    page = (made / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in (*tiny.CLASSES, "one_cycle", "random_crop"))
    assert read_json(made / "scores.json")["protocol"]["split_hash"] in page
    assert "SAMPLE" not in page


# Splits that the data has not


def test_validation_items_are_never_called_test_items(tmp_path: Path) -> None:
    recipe = tiny.write_recipe(tmp_path, text=HAR)
    with chdir(tmp_path):
        assert tiny.run(recipe, tmp_path / "runs", "train.epochs=1", "data.test_share=0") == 0
    run = tiny.only_run(tmp_path / "runs")
    scores, rows = read_json(run / "scores.json"), predictions(run)
    assert scores["test"] == {}
    assert len(rows) == read_json(run / "facts.json")["items"]["valid"] > 0
    page = read_page(run / "report.html").text
    assert f"valid accuracy {100 * scores['valid']['accuracy']:.1f} %" in page
    assert "test accuracy" not in page
    assert "test split" not in page
    assert "items of the valid split" in page


@pytest.mark.usefixtures("plain")
def test_without_validation_and_test_items_there_are_no_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.write_recipe(tmp_path, text=HAR)
    monkeypatch.setattr("toolkit.runs.evaluation.write_report", write_report)
    with chdir(tmp_path):
        overrides = ["data.test_share=0", "data.valid_share=0"]
        assert tiny.run(recipe, tmp_path / "runs", "train.epochs=1", *overrides) == 0
    nothing = "Nothing was scored: the dataset has no validation and no test items."
    run = tiny.only_run(tmp_path / "runs")
    assert nothing in read_page(run / "report.html").text
    screen = capsys.readouterr().out
    assert f"verdict: {nothing} Try: data.test_share, data.valid_share.\n" in screen
    assert "score" not in screen.partition("epoch 1/1")[2].replace("scored", "")
    assert read_json(run / "facts.json")["verdicts"][0]["kind"] == "nothing_scored"


@pytest.mark.usefixtures("plain")
def test_facts_name_the_keys_that_differ_from_the_recipes_file(recipe: Path, tmp_path: Path) -> None:
    assert tiny.run(recipe, tmp_path / "runs", "train.epochs=1", "train.batch=8", "model.dropout=0.2") == 0
    run = tiny.only_run(tmp_path / "runs")
    changed = {"train.epochs": "1", "model.dropout": "0.2"}
    assert read_json(run / "facts.json")["changed"] == changed
    assert main(["run", "--resume", str(run)]) == 0
    assert read_json(run / "facts.json")["changed"] == changed
    assert main(["evaluate", str(run), "--set", "train.eval_batch=3"]) == 0
    (evaluation,) = (run / "evaluations").iterdir()
    assert read_json(evaluation / "facts.json")["changed"] == changed | {"train.eval_batch": "3"}


@pytest.mark.usefixtures("plain")
def test_verdicts_are_printed_and_kept(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny.run(recipe, tmp_path / "runs") == 0
    kept = read_json(tiny.only_run(tmp_path / "runs") / "facts.json")["verdicts"]
    few = next(verdict for verdict in kept if verdict["kind"] == "few_items")
    assert few["text"].startswith("Too few items to judge: 12 items in the test split")
    screen = capsys.readouterr().out
    assert f"verdict: {few['text']}" in screen
    assert screen.index("loss") < screen.index("verdict: ") < screen.index("report ")


# The built-in sample

HAR = tiny.RECIPE.replace('"cifar10"', '"har"\nsample_clips = 3').replace("[8, 8]", "[4, 4, 4, 4, 4]")
CIFAR = tiny.RECIPE.replace('"cifar10"', '"cifar10"\nsample_images = 4')


@pytest.mark.parametrize(("text", "places"), [(CIFAR, 10), (HAR, 8)])
def test_the_sample_says_sample_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, places: int
) -> None:
    recipe = tiny.write_recipe(tmp_path, text=text)
    with chdir(tmp_path):
        assert tiny.run(recipe, tmp_path / "runs", "train.epochs=1") == 0
    run = tiny.only_run(tmp_path / "runs")
    screen = capsys.readouterr().out
    assert "note: the data is the built-in SAMPLE" in screen
    assert "tiny (SAMPLE data)" in screen
    assert [line["sample"] for line in records(run)] == [True]
    facts, scores = read_json(run / "facts.json"), read_json(run / "scores.json")
    assert facts["sample"] is True
    assert not any("SAMPLE" in text for text in facts["notes"])  # a page has a banner for it
    assert (run / "report.html").read_text(encoding="utf-8").count("SAMPLE DATA") == 1
    assert scores["protocol"]["sample"] is True
    assert len(scores["test"]["confusion_matrix"]) >= places
    assert LastCheckpoint.load(run / "last.pt").origin.sample is True
    assert BestCheckpoint.load(run / "best.pt").origin.sample is True
    assert "SAMPLE DATA" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("plain")
def test_data_at_the_default_place_is_used_instead_of_the_sample(tmp_path: Path, images: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10").symlink_to(images)
    recipe = tiny.write_recipe(tmp_path)
    with chdir(tmp_path):
        assert tiny.run(recipe, tmp_path / "runs") == 0
    assert read_json(tiny.only_run(tmp_path / "runs") / "facts.json")["sample"] is False


# Ways to train


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    "overrides",
    [
        ["train.accumulate=2", "train.clip_norm=1.0"],
        ["train.precision=bf16", "train.channels_last=false"],
        ["task.class_weights=balanced", "task.label_smoothing=0.1"],
        ["task.class_weights=[1, 2.0, 0.5]", "data.valid_share=0.0"],
        ["train.optimizer=adamw", "train.optimizer.lr=0.01", "train.optimizer.decay_norms_and_biases=false"],
        ["train.optimizer.parts.backbone.lr_scale=0.1", "train.schedule.warmup_epochs=0.5"],
        ["train.schedule=plateau", "train.metric=accuracy", "train.eval_batch=5"],
        ["input.size=16", "input.stored=24", "input.memory_gb=0"],
        ["input.memory_gb=0", "input.cache_gb=0", "input.workers=2"],
        ['metrics=["accuracy"]', "augment=[]"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_it_trains_with(recipe: Path, tmp_path: Path, overrides: list[str]) -> None:
    assert tiny.run(recipe, tmp_path / "runs", *overrides) == 0
    run = tiny.only_run(tmp_path / "runs")
    assert [line["epoch"] for line in records(run)] == [1, 2]
    assert math.isfinite(read_json(run / "scores.json")["test"]["accuracy"])


@pytest.mark.usefixtures("plain")
def test_where_pixels_lie_does_not_change_what_is_computed(recipe: Path, tmp_path: Path, made: Path) -> None:
    for place in ("mapped", "nowhere"):
        overrides = ["input.memory_gb=0", f"input.cache_gb={1 if place == 'mapped' else 0}"]
        assert tiny.run(recipe, tmp_path / place, *overrides) == 0
        run = tiny.only_run(tmp_path / place)
        assert same(weights(run / "last.pt"), weights(made / "last.pt"))
        assert records(run) == records(made)


@pytest.mark.usefixtures("plain")
def test_a_file_whose_name_is_not_text_costs_nothing(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(images, tmp_path / "named")
    (root / "test/blue/00.png").rename(root / "test/blue" / os.fsdecode(b"caf\xe9.png"))
    (root / "train/red/00.png").rename(root / "train/red" / os.fsdecode(b"caf\xe9.png"))
    for number, memory in enumerate(("input.memory_gb=1", "input.memory_gb=0")):
        assert tiny.run(tiny.write_recipe(tmp_path, root), tmp_path / f"{number}", memory) == 0, capsys.readouterr().err
        run = tiny.only_run(tmp_path / f"{number}")
        assert r"test/blue/caf\udce9.png" in (run / "predictions.csv").read_text(encoding="utf-8")


def test_a_class_whose_folders_name_is_not_text_is_escaped(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(images, tmp_path / "named")
    for split in ("train", "test"):
        (root / split / "red").rename(root / split / os.fsdecode(b"caf\xe9"))
    assert tiny.run(tiny.write_recipe(tmp_path, root), tmp_path / "runs") == 0, capsys.readouterr().err
    run = tiny.only_run(tmp_path / "runs")
    assert json.loads((run / "facts.json").read_text(encoding="utf-8"))["classes"] == ["blue", r"caf\udce9", "green"]


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(("batch", "items"), [(10, 20), (24, 24), (100, 24)])
def test_facts_say_what_an_epoch_trains(recipe: Path, tmp_path: Path, batch: int, items: int) -> None:
    assert tiny.run(recipe, tmp_path / "runs", f"train.batch={batch}", "train.epochs=1") == 0
    assert read_json(tiny.only_run(tmp_path / "runs") / "facts.json")["epoch_items"] == items


@pytest.mark.usefixtures("plain")
def test_parts_learn_at_their_own_rates(recipe: Path, tmp_path: Path) -> None:
    overrides = ["train.optimizer.parts.head.lr_scale=0.1", "train.schedule=constant"]
    assert tiny.run(recipe, tmp_path / "runs", *overrides) == 0
    assert records(tiny.only_run(tmp_path / "runs"))[0]["lr"] == {"backbone": 0.05, "head": pytest.approx(0.005)}


@pytest.mark.usefixtures("plain")
def test_the_averaged_network_is_what_is_kept(recipe: Path, tmp_path: Path) -> None:
    assert tiny.run(recipe, tmp_path / "runs", "train.ema=0.5", "data.valid_share=0.0") == 0
    run = tiny.only_run(tmp_path / "runs")
    state = LastCheckpoint.load(run / "last.pt").state
    assert same(weights(run / "best.pt"), state["average"])
    assert not same(weights(run / "best.pt"), state["network"])


def test_a_class_that_training_lacks_weighs_nothing() -> None:
    """Its share of a smoothed target would outweigh all others together."""
    weights = balanced([0, 0, 0, 2], classes=3)
    assert weights.tolist() == pytest.approx([4 / 9, 0, 4 / 3])


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    ("metric", "direction", "noted"),
    [
        *(("loss", "maximize", True), ("ece", "maximize", True), ("loss", "minimize", False)),
        *(("accuracy", "minimize", True), ("accuracy", "maximize", False)),
    ],
)
def test_a_direction_that_keeps_the_worst_epoch_is_reported(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str, direction: str, noted: bool
) -> None:
    overrides = [f"train.metric={metric}", f"train.direction={direction}", "train.epochs=1"]
    assert tiny.run(recipe, tmp_path / "runs", *overrides) == 0
    other = "minimize" if direction == "maximize" else "maximize"
    note = (
        f'train.direction = "{direction}" keeps the epoch with the worst "{metric}": by it right answers score '
        f"worse than wrong ones; to keep the best: --set train.direction={other}"
    )
    assert (f"note: {note}\n" in capsys.readouterr().out) == noted
    assert (note in read_json(tiny.only_run(tmp_path / "runs") / "facts.json")["notes"]) == noted


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(("epochs", "noted"), [(0.5, False), (1, False), (1.5, True)])
def test_a_warm_up_that_training_does_not_see_the_end_of_is_reported(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], epochs: float, noted: bool
) -> None:
    overrides = [f"train.schedule.warmup_epochs={epochs}", "train.epochs=1"]
    assert tiny.run(recipe, tmp_path / "runs", *overrides) == 0
    text = capsys.readouterr().out
    assert ("note: the learning rate never reaches train.optimizer.lr: the warm-up takes 1.5 epochs" in text) == noted


@pytest.mark.usefixtures("plain")
def test_runs_of_one_seed_are_equal_and_of_another_not(recipe: Path, tmp_path: Path, made: Path) -> None:
    assert tiny.run(recipe, tmp_path / "again") == 0
    assert tiny.run(recipe, tmp_path / "other", "seed=1") == 0
    again, other = tiny.only_run(tmp_path / "again"), tiny.only_run(tmp_path / "other")
    assert same(weights(again / "last.pt"), weights(made / "last.pt"))
    assert records(again) == records(made)
    assert not same(weights(other / "last.pt"), weights(made / "last.pt"))


@pytest.fixture
def indeterminate() -> Iterator[None]:
    """Whatever a deterministic run asked of torch is taken back."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("plain", "indeterminate")
def test_deterministic_is_passed_on(recipe: Path, tmp_path: Path) -> None:
    assert tiny.run(recipe, tmp_path / "runs", "train.deterministic=true") == 0
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.usefixtures("plain")
def test_it_stops_early_when_nothing_gets_better(recipe: Path, tmp_path: Path) -> None:
    assert tiny.run(recipe, tmp_path / "runs", "train.epochs=9", "train.patience=2") == 0
    run = tiny.only_run(tmp_path / "runs")
    assert [line["best"] for line in records(run)] == [True, False, False]
    assert read_json(run / "scores.json")["best_epoch"] == 1
    before = (run / "best.pt").read_bytes()
    assert main(["run", "--resume", str(run)]) == 0
    assert len(records(run)) == 3
    assert (run / "best.pt").read_bytes() == before


TRACKERS = """
    from toolkit import hookimpl

    class Loud:
        def __init__(self, run):
            self.file = run / "heard.txt"
        def track(self, record):
            with self.file.open("a") as file:
                print(type(record).__name__, file=file)
        def close(self):
            self.track(self)

    class Failing(Loud):
        def track(self, record):
            raise RuntimeError("no server")

    @hookimpl
    def toolkit_trackers():
        return {"loud": lambda run: Loud(run), "failing": lambda run: Failing(run)}
"""


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    install(tmp_path / "site", "tracking", {"tracking_of_test_run": TRACKERS}, {"main": "tracking_of_test_run"})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


@pytest.mark.usefixtures("plain", "tracking")
def test_a_tracker_that_fails_costs_a_warning(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny.run(recipe, tmp_path / "runs", 'trackers=["failing", "loud"]') == 0
    heard = (tiny.only_run(tmp_path / "runs") / "heard.txt").read_text().split()
    assert heard == ["RunStarted", "EpochRecord", "EpochRecord", "RunFinished", "Loud"]
    screen = " ".join(capsys.readouterr().out.split())
    warning = "warning: tracker Failing failed and is skipped from here on: RuntimeError: no server"
    assert screen.count(warning) == 1


@pytest.mark.usefixtures("plain", "tracking")
def test_trackers_are_closed_when_training_fails(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = tiny.run(recipe, tmp_path / "runs", 'trackers=["loud"]', "train.optimizer.lr=1e30")
    assert "the loss is not finite" in failure(capsys, code, 1)
    assert (tiny.only_run(tmp_path / "runs") / "heard.txt").read_text().split() == ["RunStarted", "Loud"]


@pytest.mark.usefixtures("plain")
def test_no_checkpoint_is_written_after_a_loss_that_is_not_finite(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(State, "checked_late", True)
    code = tiny.run(recipe, tmp_path / "runs", "train.optimizer.lr=1e30", "train.checkpoint_minutes=1e-9")
    assert "not finite at epoch 1, step 2 of 3" in failure(capsys, code, 1)
    assert LastCheckpoint.load(tiny.only_run(tmp_path / "runs") / "last.pt").state["step"] == 1


OPTIMIZERS = """
    import torch
    from toolkit import hookimpl
    from toolkit.api.contracts import Curve

    class Plain(torch.optim.SGD):
        pass

    class Still:
        def __init__(self, horizon, direction):
            self.factor = lambda step: 0.5
        def observe(self, score): ...
        def state_dict(self): return {}
        def load_state_dict(self, state): ...

    @hookimpl
    def toolkit_optimizers():
        return {
            "plain": lambda params, *, lr: Plain(params, lr=lr),
            "sgd": lambda params, *, lr: Plain(params, lr=lr),
            "regrouping": lambda params, *, lr: Plain([p for group in params for p in group["params"]], lr=lr),
            "stateless": lambda params, *, lr: object(),
        }

    @hookimpl
    def toolkit_schedules():
        return {"still": Still, "half": lambda horizon, direction: Curve(lambda step: 0.5), "none": lambda *given: None}
"""


@pytest.fixture
def optimizing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    install(tmp_path / "site", "acme-optim", {"optim_of_test_run": OPTIMIZERS}, {"main": "optim_of_test_run"})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


@pytest.mark.usefixtures("plain", "optimizing")
def test_an_optimizer_and_a_schedule_of_others_train(recipe: Path, tmp_path: Path) -> None:
    ours = ["train.optimizer={name='vision-toolkit:sgd', lr=0.025}", "train.schedule=constant"]
    for folder, chosen in (("a", ["train.optimizer={name='plain', lr=0.05}", "train.schedule=half"]), ("b", ours)):
        assert tiny.run(recipe, tmp_path / folder, *chosen) == 0
    theirs, own = (tiny.only_run(tmp_path / folder) for folder in ("a", "b"))
    assert same(weights(theirs / "last.pt"), weights(own / "last.pt"))
    assert {rate for line in records(theirs) for rate in line["lr"].values()} == {0.025}


@pytest.mark.usefixtures("plain", "optimizing")
@pytest.mark.parametrize(
    ("overrides", "code", "problem"),
    [
        (
            ["train.schedule=constant"],
            4,
            'train.optimizer.name: optimizer "sgd" is offered by acme-optim[main] 1.0 and',
        ),
        (["train.optimizer={name='regrouping', lr=0.1}"], 4, "does not keep the parameter groups it receives"),
        (["train.optimizer={name='stateless', lr=0.1}"], 4, "made object, which has no param_groups"),
        (["train.optimizer={name='plain', lr=0.1, eps=1}"], 2, "train.optimizer.eps: unknown key"),
        (
            ["train.optimizer={name='plain', lr=0.1}", "train.schedule=none"],
            4,
            'schedule "none" of plugin acme-optim[main] 1.0: made NoneType, which has no factor',
        ),
        (
            ["train.optimizer={name='plain', lr=0.1}", "train.schedule=still", "data.valid_share=0.0"],
            2,
            'train.schedule.name: "still" requires a validation split, but the dataset has none',
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_an_optimizer_or_a_schedule_of_others_that_does_not_fit(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], code: int, problem: str
) -> None:
    assert problem in failure(capsys, tiny.run(recipe, tmp_path / "runs", *overrides), code)


def test_where_our_optimizers_are_disabled_that_is_reported(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_DISABLE", "vision-toolkit[optim]")
    text = failure(capsys, tiny.run(recipe, tmp_path / "runs"), 2)
    for name, kind in (("train.optimizer.name", 'optimizer "sgd"'), ("train.schedule.name", 'schedule "one_cycle"')):
        assert f"{name}: unknown {kind}; disabled: vision-toolkit[optim] " in text


def test_where_our_optimizers_are_broken_that_is_reported(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))  # that of earlier tests knows what it offers
    monkeypatch.setitem(sys.modules, "toolkit_optim", None)
    text = failure(capsys, tiny.run(recipe, tmp_path / "runs"), 4)
    assert 'train.optimizer.name: unknown optimizer "sgd"\n  it may belong to a plugin that is broken: ' in text
    assert "vision-toolkit[optim] " in text


# What is refused


@pytest.mark.parametrize("command", ["run --resume", "evaluate", "export"])
def test_a_run_of_an_earlier_version_is_refused_as_such(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Though its recipe has keys that this version does not know."""
    old = tmp_path / "old"
    shutil.copytree(made, old)
    for name in ("last.pt", "best.pt"):
        torch.save({"format": 1, "epoch": 1}, old / name)
    recipe = old / "recipe.toml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("[train]", "[train]\nlabel_smoothing = 0.1"))
    error = failure(capsys, main([*command.split(), str(old)]), 2)
    assert "not a checkpoint of this version (format 3)" in error
    assert "next:  train again with this version" in error


def failure(capsys: pytest.CaptureFixture[str], code: int, expected: int) -> str:
    """The text of the one error that ended a command, whose form is the same everywhere."""
    text = capsys.readouterr().err
    assert code == expected, text
    first, *_, last = text.splitlines()
    assert first.startswith("error: ")
    assert last.startswith("next:  ")
    assert "Traceback" not in text
    return text


def test_all_problems_of_a_recipe_are_reported_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tiny.write_recipe(tmp_path)), "--recipe-only"]) == 0  # its components are known now
    text = tiny.RECIPE.replace("momentum", "momentun").replace("widths = [8, 8]", "width = 8") + "\n[trian]\n"
    recipe = tiny.write_recipe(tmp_path, text=text)
    text = failure(capsys, tiny.run(recipe, tmp_path / "runs", "train.epochs=many", "augment.0.pading=1"), 2)
    for problem in (
        'train.optimizer.momentun: unknown key; did you mean "momentum"?',
        'model.width: unknown key; did you mean "widths"?',
        'trian: unknown key; did you mean "train"?',
    ):
        assert f"error: {recipe}: {problem}" in text
    assert "error: --set augment.0.pading=1: " in text
    assert 'unknown key; did you mean "padding"?' in text
    assert 'error: --set train.epochs=many: must be an integer, got "many"' in text
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("there", ["absent", "empty", "foreign"])
def test_a_root_without_data_is_reported_with_where_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    root = tmp_path / "images"
    if there != "absent":
        root.mkdir()
    if there == "foreign":
        (root / "notes.txt").touch()
    text = failure(capsys, tiny.run(tiny.write_recipe(tmp_path, root), tmp_path / "runs"), 3)
    assert str(root) in text
    assert "cifar-10-python.tar.gz" in text
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("plain")
def test_no_more_can_be_seen_than_is_stored(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = failure(capsys, tiny.run(recipe, tmp_path / "runs", "input.stored=24"), 2)
    assert "error: --set input.stored=24: must be at least the 32 px that the model sees, got 24" in text
    assert not (tmp_path / "runs").exists()


def spoil(images: Path, folder: Path, *damaged: str) -> Path:
    root = shutil.copytree(images, folder / "spoilt")
    for item in damaged:
        (root / item).write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    return root


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("item", ["train/red/03.png", "test/blue/01.png"])
def test_a_corrupt_image_is_named(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], item: str) -> None:
    root = spoil(images, tmp_path, item)
    text = failure(capsys, tiny.run(tiny.write_recipe(tmp_path, root), tmp_path / "runs"), 3)
    assert f"error: {root / item}: cannot be decoded" in text
    assert "--set input.on_corrupt=skip" in text


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("memory", ["input.workers=2", "input.memory_gb=0"])
def test_skipped_images_are_counted_and_listed(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], memory: str
) -> None:
    root = spoil(images, tmp_path, "train/red/03.png", "train/red/04.png", "test/blue/01.png")
    recipe = tiny.write_recipe(tmp_path, root)
    overrides = ["input.on_corrupt=skip", "input.corrupt_limit=0.4", "input.cache_gb=0", memory]
    assert tiny.run(recipe, tmp_path / "runs", *overrides) == 0
    run = tiny.only_run(tmp_path / "runs")
    skipped = read_json(run / "scores.json")["protocol"]["skipped"]
    assert skipped["train"] + skipped["valid"] == 2
    assert skipped["test"] == 1
    assert len(predictions(run)) == 11
    notes = " ".join(read_json(run / "facts.json")["notes"])
    assert all(str(root / item) in notes for item in ("train/red/03.png", "train/red/04.png", "test/blue/01.png"))
    assert "test: skipped 1 of 12 items" in notes
    listed = read_run(run).file_problems
    assert {one.path for one in listed} == {"train/red/03.png", "train/red/04.png", "test/blue/01.png"}
    assert all(one.problem.startswith("damaged, skipped: ") for one in listed)
    assert str(root) not in (run / "files.csv").read_text(encoding="utf-8")
    text = f"note: test: skipped 1 of 12 items that cannot be read: {root / 'test/blue/01.png'}"
    screen = capsys.readouterr().out
    assert text in screen
    assert f"note: 3 files with a problem: see {run / 'files.csv'}" in screen
    assert main(["evaluate", str(run), *tiny.overridden(overrides)]) == 0
    assert text in capsys.readouterr().out


@pytest.mark.usefixtures("plain")
def test_more_than_the_limit_is_not_skipped(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = spoil(images, tmp_path, *(f"train/{name}/{number:02}.png" for name in tiny.CLASSES for number in range(3)))
    recipe = tiny.write_recipe(tmp_path, root)
    overrides = ["input.on_corrupt=skip", "input.corrupt_limit=0.1"]
    text = failure(capsys, tiny.run(recipe, tmp_path / "runs", *overrides), 3)
    assert "more than input.corrupt_limit = 0.1 allows" in text


@pytest.mark.usefixtures("plain")
def test_a_batch_that_is_all_corrupt_is_passed_over(tmp_path: Path, images: Path) -> None:
    root = spoil(images, tmp_path, "train/red/03.png", "test/blue/01.png")
    recipe = tiny.write_recipe(tmp_path, root)
    overrides = ["input.on_corrupt=skip", "input.corrupt_limit=1", "train.batch=1", "data.valid_share=0.0"]
    assert tiny.run(recipe, tmp_path / "runs", *overrides) == 0
    assert read_json(tiny.only_run(tmp_path / "runs") / "scores.json")["protocol"]["skipped"]["train"] == 1


@pytest.mark.usefixtures("plain")
def test_a_split_that_is_all_corrupt_cannot_be_scored(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every = [str(path.relative_to(images)) for path in (images / "test").glob("*/*.png")]
    recipe = tiny.write_recipe(tmp_path, spoil(images, tmp_path, *every))
    overrides = ["input.on_corrupt=skip", "input.corrupt_limit=1"]
    text = failure(capsys, tiny.run(recipe, tmp_path / "runs", *overrides), 3)
    assert "nothing can be scored: every item of a split was skipped" in text


@pytest.mark.parametrize(
    ("overrides", "code", "problem"),
    [
        (["task.class_weights=[1, 2]"], 2, "has 2 weights for 3 classes"),
        (
            ["train.optimizer.parts.neck.lr_scale=1"],
            2,
            "train.optimizer.parts.neck: no such part of the model (choose from",
        ),
        (["train.optimizer.nesterov=true", "train.optimizer.momentum=0"], 2, "train.optimizer: Nesterov momentum"),
        (["train.optimizer.differentiable=true"], 2, "train.optimizer: `fused` does not support `differentiable`"),
        (["train.schedule=step"], 2, "train.schedule.every: give either every or milestones"),
        (["train.precision=fp16"], 2, "train.precision: fp16 trains on CUDA only"),
        (["train.device=gpu"], 2, '--set train.device=gpu: no device is called "gpu"'),
        (["train.device=mps"], 2, '--set train.device=mps: no device is called "mps"'),
        (["train.accumulate=9"], 2, "--set train.accumulate=9: cannot divide a batch of 8 items"),
        (["data.valid_share=0.0", "train.patience=3"], 2, "train.patience=3: requires a validation split"),
        (["train.schedule=plateau", "data.valid_share=0.0"], 2, '"plateau" requires a validation'),
        (["train.metric=acuracy"], 2, '--set train.metric=acuracy: no metric of this recipe computes "acuracy"'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_fits_no_run_leaves_no_run(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], code: int, problem: str
) -> None:
    assert problem in failure(capsys, tiny.run(recipe, tmp_path / "runs", *overrides), code)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("place", ["training.step.Asked.autocast", "api.contract_checks.BlamedAugmentation._component"])
def test_too_little_memory_on_the_device_says_what_takes_less(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    def refuse(*_: object, **more: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a capacity of ...")

    monkeypatch.setattr(f"toolkit.{place}", property(lambda _: refuse, lambda *_: None), raising=False)
    text = failure(capsys, tiny.run(recipe, tmp_path / "runs"), 1)
    assert "error: too little memory on the device: CUDA out of memory. Tried to allocate 2.00 GiB\n" in text
    assert "--set train.accumulate=" in text


@pytest.mark.usefixtures("plain")
def test_a_loss_that_is_not_finite_stops_before_harm(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = failure(capsys, tiny.run(recipe, tmp_path / "runs", "train.optimizer.lr=1e38", "train.epochs=3"), 1)
    assert "the loss is not finite at epoch 1, step" in text
    assert "learning rate backbone " in text
    assert text.count("train/") == 8
    run = tiny.only_run(tmp_path / "runs")
    state = LastCheckpoint.load(run / "last.pt").state
    assert (state["epoch"], state["step"]) == (0, 0)
    assert all(bool(value.isfinite().all()) for value in state["network"].values())
    assert records(run) == []


# Full disks and folders that cannot be written


def test_a_runs_folder_that_is_a_file(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").touch()
    text = failure(capsys, tiny.run(recipe, tmp_path / "runs"), 1)
    assert f"error: {tmp_path / 'runs' / 'tiny'}: cannot be written: " in text
    assert "--runs DIR" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_runs_folder(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir(mode=0o500)
    assert "Permission denied" in failure(capsys, tiny.run(recipe, tmp_path / "runs"), 1)


def full_disk(name: str, after: int) -> Callable[[Path, bytes], int]:
    """A `Path.write_bytes` that lets `after` files called `name` be written, then no more of them."""
    write, written = Path.write_bytes, Counter[str]()

    def write_bytes(path: Path, data: bytes) -> int:
        if not path.name.startswith(f".{name}.unfinished"):
            return write(path, data)
        written[name] += 1
        if written[name] <= after:
            return write(path, data)
        write(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return write_bytes


@pytest.mark.parametrize(
    ("name", "after"),
    [
        *(("last.pt", 0), ("last.pt", 1), ("last.pt", 2), ("best.pt", 0), ("records.jsonl", 1)),
        *(("predictions.csv", 0), ("augmented.png", 0), ("scores.json", 0), ("report.html", 0)),
    ],
)
def test_a_full_disk_leaves_nothing_half_written_and_a_run_to_resume(
    recipe: Path,
    tmp_path: Path,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    after: int,
) -> None:
    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", full_disk(name, after))
        if name == "report.html":
            full.setattr("toolkit.runs.session.draw_pictures", lambda *arguments: {})
        text = failure(capsys, tiny.run(recipe, tmp_path / "runs"), 1)
    run = tiny.only_run(tmp_path / "runs")
    assert "cannot be written: No space left on device" in text
    assert str(run) in text
    again = "report" if name == "report.html" else "run --resume"
    begun = (name, after) != ("last.pt", 0)
    assert text.endswith(f"then: python -m toolkit {again} {run}\n") or not begun
    assert {path.name for path in run.rglob(".*")} == {".lock"}
    monkeypatch.setattr("toolkit.runs.session.draw_pictures", lambda *arguments: {})
    monkeypatch.setattr("toolkit.runs.evaluation.write_report", lambda path: path)
    assert main(["run", "--resume", str(run)]) == 0
    assert same(weights(run / "last.pt"), weights(made / "last.pt"))
    assert same(weights(run / "best.pt"), weights(made / "best.pt"))
    assert records(run) == records(made)
    assert read_json(run / "scores.json") == read_json(made / "scores.json")


def test_a_full_disk_stops_a_new_report_too(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "report.html").read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full_disk("report.html", 0))
    text = failure(capsys, main(["report", str(finished)]), 1)
    assert f"{finished / 'report.html'}: cannot be written: No space left on device" in text
    assert (finished / "report.html").read_bytes() == before


# Going on with a run


@pytest.mark.usefixtures("plain")
def test_resuming_a_finished_run_finishes_it_again(finished: Path) -> None:
    kept = {name: (finished / name).read_bytes() for name in ("scores.json", "predictions.csv", "records.jsonl")}
    for name in kept:
        (finished / name).unlink()
    assert main(["run", "--resume", str(finished)]) == 0
    assert {name: (finished / name).read_bytes() for name in kept} == kept


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("path", [".", "../RUN"])
def test_a_run_keeps_its_name_from_wherever_it_is_looked_at(finished: Path, path: str) -> None:
    with chdir(finished):
        assert main(["run", "--resume", path.replace("RUN", finished.name)]) == 0
    assert read_json(finished / "facts.json")["recipe"] == "tiny"


def test_an_evaluation_is_not_a_run_to_resume(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(finished)]) == 0
    (evaluation,) = (finished / "evaluations").iterdir()
    before = {path.name for path in evaluation.iterdir()}
    text = failure(capsys, main(["run", "--resume", str(evaluation)]), 2)
    assert f"{evaluation}: an evaluation cannot be resumed: it has no checkpoint" in text
    assert text.splitlines()[-1] == f"next:  python -m toolkit run --resume {finished}"
    assert {path.name for path in evaluation.iterdir()} == before


@pytest.mark.usefixtures("plain")
def test_what_changes_no_result_may_change_on_resume(finished: Path) -> None:
    overrides = tiny.overridden(["train.checkpoint_minutes=1", "input.memory_gb=0", "input.cache_gb=0"])
    assert main(["run", "--resume", str(finished), *overrides]) == 0


@pytest.mark.usefixtures("plain")
def test_a_run_goes_on_in_the_precision_it_began_with(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.system.device._has_bf16", lambda device: True)
    assert tiny.run(recipe, tmp_path / "runs", "train.precision=auto", "train.epochs=1") == 0
    run = tiny.only_run(tmp_path / "runs")
    monkeypatch.setattr("toolkit.system.device._has_bf16", lambda device: False)
    assert main(["run", "--resume", str(run)]) == 0
    assert read_json(run / "facts.json")["precision"] == "bf16"
    assert main(["evaluate", str(run)]) == 0
    (evaluation,) = (run / "evaluations").iterdir()
    assert read_json(evaluation / "facts.json")["precision"] == "fp32"


@pytest.mark.parametrize("override", ["train.batch=4", "seed=3", "model.dropout=0.0"])
def test_another_recipe_is_not_resumed(finished: Path, capsys: pytest.CaptureFixture[str], override: str) -> None:
    text = failure(capsys, main(["run", "--resume", str(finished), "--set", override]), 2)
    assert f"{finished / 'last.pt'}: belongs to another recipe" in text
    assert f"python -m toolkit run --resume {finished}" in text


def test_a_checkpoint_of_another_recipe_is_refused(
    finished: Path, recipe: Path, tmp_path: Path, plain: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.run(recipe, tmp_path / "others", "train.batch=6") == 0
    shutil.copy(tiny.only_run(tmp_path / "others") / "last.pt", finished)
    capsys.readouterr()
    assert "belongs to another recipe" in failure(capsys, main(["run", "--resume", str(finished)]), 2)


@pytest.mark.parametrize("what", ["classes", "items"])
def test_a_run_is_not_resumed_on_other_data(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    root = tiny.write_images(tmp_path / "others", ("ant", "bee", "cat", "dog")[: 4 if what == "classes" else 3])
    if what == "items":
        for old, new in zip(("ant", "bee", "cat"), tiny.CLASSES, strict=True):
            for split in tiny.PER_CLASS:
                (root / split / old).rename(root / split / new)
        (root / "train" / "red" / "00.png").rename(root / "train" / "red" / "99.png")
    text = failure(capsys, main(["run", "--resume", str(finished), "--set", f"data.root={root}"]), 2)
    assert f"{finished / 'last.pt'}: was trained on other data" in text


@pytest.mark.parametrize("damage", ["cut", "absent"])
def test_a_damaged_checkpoint_is_reported_and_a_missing_one_starts_again(
    finished: Path, plain: None, made: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    last = finished / "last.pt"
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:1000])
        assert "not a readable checkpoint" in failure(capsys, main(["run", "--resume", str(finished)]), 2)
    else:
        last.unlink()
        assert main(["run", "--resume", str(finished)]) == 0
        assert same(weights(last), weights(made / "last.pt"))


def test_two_processes_do_not_work_on_one_run(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the other one is about to save must be read after it, not before."""
    monkeypatch.setattr(LastCheckpoint, "load", lambda path: pytest.fail(f"{path} was read"))
    with (finished / ".lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        text = failure(capsys, main(["run", "--resume", str(finished)]), 1)
    assert f"{finished}: another process is working on this run" in text


@pytest.mark.usefixtures("plain")
def test_a_run_goes_on_where_nothing_can_be_locked(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", refuse)
    assert main(["run", "--resume", str(finished)]) == 0
    text = f"warning: {finished}: cannot be locked: Function not implemented; let no other process work on this run\n"
    assert capsys.readouterr().err == text


@pytest.mark.parametrize("command", [["run", "--resume"], ["report"]])
def test_the_latest_run_is_the_latest_of_all_recipes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    for began, run in enumerate(("c/2026-01-01_00-00-00", "a b/2026-02-01_00-00-00")):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "recipe.toml").touch()
        os.utime(tmp_path / run / "recipe.toml", (began, began))
    text = failure(capsys, main([*command, str(tmp_path)]), 2)
    assert text.endswith(f"{shlex.quote(str(tmp_path / 'a b' / '2026-02-01_00-00-00'))}\n")


def test_a_run_with_weights_is_named_before_a_later_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("a/2026-01-01_00-00-00", "a-bundle/2026-02-01_00-00-00"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "recipe.toml").touch()
    (tmp_path / "a/2026-01-01_00-00-00/best.pt").touch()
    text = failure(capsys, main(["export", str(tmp_path)]), 2)
    assert text.endswith(f"python -m toolkit export {tmp_path / 'a/2026-01-01_00-00-00'}\n")


def test_an_evaluation_that_cannot_be_written_ends_before_the_work_and_suggests_no_missing_option(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("toolkit.runs.session.score_splits")
    (finished / "evaluations").touch()
    text = failure(capsys, main(["evaluate", str(finished)]), 1)
    assert text.endswith("next:  free disk space or fix the folder, then run the same command again\n")


@pytest.mark.parametrize("command", [["run", "--resume"], ["evaluate"], ["report"]])
def test_what_is_not_a_run_is_reported_with_the_nearest(
    made: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    text = failure(capsys, main([*command, str(made.parent)]), 2)
    assert f"{made.parent}: not a run directory" in text
    assert str(made) in text.splitlines()[-1]


# Looking at a run again


def test_evaluating_again_gives_the_same_scores(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(finished)]) == 0
    (evaluation,) = (finished / "evaluations").iterdir()
    assert str(evaluation / "scores.json") in capsys.readouterr().out
    assert read_json(evaluation / "scores.json") == read_json(finished / "scores.json")
    assert (evaluation / "predictions.csv").read_text() == (finished / "predictions.csv").read_text()
    assert {path.name for path in evaluation.iterdir()} == {
        *("recipe.toml", "facts.json", "environment.json", "scores.json", "predictions.csv", "report.html", "figures")
    }


def test_an_evaluation_that_fails_leaves_no_empty_folder(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise DataError("no item can be read", next_step="repair the data")

    monkeypatch.setattr("toolkit.runs.session.score_splits", fail)
    assert main(["evaluate", str(finished)]) == 3
    assert not (finished / "evaluations").exists()


def test_facts_of_an_evaluation_are_those_of_its_run_and_say_what_was_evaluated(finished: Path) -> None:
    assert main(["evaluate", str(finished)]) == 0
    (evaluation,) = (finished / "evaluations").iterdir()
    again, before = read_json(evaluation / "facts.json"), read_json(finished / "facts.json")
    assert again.pop("started") >= before.pop("started")
    assert again.pop("notes") == [f"scores of {finished / 'best.pt'}, re-evaluated", *before.pop("notes")]
    # An evaluation has no epochs to judge, and whether a run waits for data depends on the machine.
    of_training = ("overfitting", "improving", "waiting")
    before["verdicts"] = [one for one in before["verdicts"] if one["kind"] not in of_training]
    assert before.pop("maps")["method"] == "Grad-CAM"  # nor does it draw pictures
    assert again == before


NUMBERS = """
    import torch
    from toolkit import hookimpl
    from toolkit.api.contracts import Data, DataSpec
    from toolkit.data.images import ArrayItems

    CLASSES = tuple(str(number) for number in range(11))

    def split(name, count):
        ids = tuple(f"{name}/{number}" for number in range(count * len(CLASSES)))
        draw = torch.Generator().manual_seed(count)
        pixels = torch.randint(256, (len(ids), 3, 32, 32), generator=draw, dtype=torch.uint8)
        return ArrayItems(ids, tuple(range(len(CLASSES))) * count, ids, pixels)

    def numbers(root):
        spec = DataSpec(CLASSES, size=32, sample=root is None)
        return Data(spec, split("train", 2), split("valid", 1), split("test", 1))

    @hookimpl
    def toolkit_datasets():
        return {"numbers": numbers}
"""


def test_the_report_of_an_evaluation_names_classes_and_sample_as_that_of_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    install(tmp_path / "site", "numbers", {"numbers_of_test_run": NUMBERS}, {"main": "numbers_of_test_run"})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr("toolkit.runs.session.draw_pictures", lambda *arguments: {})
    recipe = tiny.write_recipe(tmp_path, text=tiny.RECIPE.replace('"cifar10"\nvalid_share = 0.2', '"numbers"'))
    assert tiny.run(recipe, tmp_path / "runs", "train.epochs=1") == 0
    run = tiny.only_run(tmp_path / "runs")
    assert main(["evaluate", str(run)]) == 0
    (evaluation,) = (run / "evaluations").iterdir()
    assert table(evaluation, "classes") == table(run, "classes")
    assert table(evaluation, "confusion") == table(run, "confusion")
    page = read_page(evaluation / "report.html").text
    assert "SAMPLE DATA" in page
    assert "scores of best.pt, re-evaluated" in page
    assert "11 classes" in page
    assert "tiny · run report" in page


def table(run: Path, section: str) -> list[str]:
    """The rows of a section's table in the report of `run`."""
    page = (run / "report.html").read_text(encoding="utf-8")
    (body,) = re.findall(rf'<section id="{section}".*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    rows: list[str] = re.findall(r"<tr>.*?</tr>", body, re.DOTALL)
    assert rows
    return rows


def test_the_report_of_an_evaluation_of_old_leads_to_a_new_one(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One without facts, as evaluations were once written."""
    assert main(["evaluate", str(finished)]) == 0
    (evaluation,) = (finished / "evaluations").iterdir()
    (evaluation / "facts.json").unlink()
    text = failure(capsys, main(["report", str(evaluation)]), 3)
    assert f"{evaluation / 'facts.json'}: is missing, and with it the names of the classes" in text
    assert f"python -m toolkit evaluate {finished}" in text


def test_evaluating_on_other_data(finished: Path, tmp_path: Path) -> None:
    root = tiny.write_images(tmp_path / "others", seed=5)
    assert main(["evaluate", str(finished), "--set", f"data.root={root}"]) == 0
    (evaluation,) = (finished / "evaluations").iterdir()
    again, before = read_json(evaluation / "scores.json"), read_json(finished / "scores.json")
    assert again["test"]["loss"] != before["test"]["loss"]
    assert again["best_epoch"] == before["best_epoch"]


def test_evaluating_on_other_classes_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny.write_images(tmp_path / "others", ("ant", "bee", "cat"))
    text = failure(capsys, main(["evaluate", str(finished), "--set", f"data.root={root}"]), 2)
    assert "knows the classes blue, green, red; the data has ant, bee, cat" in text
    assert not (finished / "evaluations").exists()


def test_evaluating_on_a_missing_root_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failure(capsys, main(["evaluate", str(finished), "--set", f"data.root={tmp_path / 'nowhere'}"]), 3)


def test_evaluating_another_model_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = failure(capsys, main(["evaluate", str(finished), "--set", "model.widths=[4]"]), 2)
    assert f"{finished / 'best.pt'}: does not fit" in text


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_a_run_of_which_no_epoch_has_ended_is_to_be_resumed_first(
    finished: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (finished / "best.pt").unlink()
    (finished / "records.jsonl").write_text("")
    text = failure(capsys, main([command, str(finished)]), 2)
    assert text.splitlines() == [
        f"error: {finished / 'best.pt'}: not there yet: no epoch of this run has ended",
        f"next:  python -m toolkit run --resume {finished}",
    ]


@pytest.mark.parametrize("command", [["run", "--resume"], ["evaluate"], ["report"]])
def test_a_file_of_a_run_leads_to_the_run(
    finished: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    text = failure(capsys, main([*command, str(finished / "last.pt")]), 2)
    assert f"{finished / 'last.pt'}: not a run directory" in text
    assert text.endswith(f" {finished}\n")


def test_evaluating_without_a_checkpoint_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished / "best.pt").unlink()
    assert "checkpoint not found" in failure(capsys, main(["evaluate", str(finished)]), 2)


def test_reporting_again_gives_the_same_page(finished: Path) -> None:
    before = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    assert main(["report", str(finished)]) == 0
    assert (finished / "report.html").read_bytes() == before


def test_reporting_loads_no_torch(recipe: Path, tmp_path: Path) -> None:
    """Nor do figures, of which a run that has only its recipe has none: see test_report.py."""
    recipe.rename(tmp_path / "recipe.toml")
    assert loaded_by("-m", "toolkit", "report", str(tmp_path)).isdisjoint({"torch", "sklearn", "torchvision"})
    assert (tmp_path / "report.html").is_file()
