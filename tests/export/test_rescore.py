"""A bundle evaluated: its scores are those of the trained model, on the data that was seen."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests import tiny, toy_bundle
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, EXIT_USAGE
from toolkit.cli.main import main
from toolkit.runs import slices
from toolkit.runs.files import read_run
from toolkit.serving.bundle import Conformal, Rejection, Trust


@pytest.mark.slow
def test_a_bundle_is_evaluated_as_a_run_is(
    bundle: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(bundle), "--precision", "fp32", "--device", "cpu"]) == EXIT_DONE
    (made,) = (tmp_path / "runs" / "tiny-bundle").iterdir()
    scores, trained = (json.loads((folder / "scores.json").read_text()) for folder in (made, run))
    assert scores["test"].keys() == trained["test"].keys()
    assert scores["test"]["accuracy"] == pytest.approx(trained["test"]["accuracy"], abs=0.02)
    assert scores["protocol"] == trained["protocol"]
    assert "SAMPLE" in capsys.readouterr().out
    assert "SAMPLE" in (made / "report.html").read_text()


def test_options_for_bundles_are_refused_for_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path), "--device", "cpu"]) == EXIT_USAGE
    assert "not a bundle; --device, --precision and --runtime are for bundles" in capsys.readouterr().err


@pytest.mark.slow
def test_data_with_other_classes_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(bundle), "--set", 'data={name="har"}']) == EXIT_DATA
    messages = capsys.readouterr().err
    assert "knows the classes arrow, ball" in messages
    assert "next:  evaluate on data with the same classes" in messages


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Class folders of images, where the command finds a toy bundle that knows their classes."""
    monkeypatch.chdir(tmp_path)
    root = tiny.write_images(tmp_path / "images")
    recipe = tiny.write_recipe(tmp_path, root).read_text(encoding="utf-8")
    toy_bundle.write(tmp_path / "toy", classes=tiny.CLASSES, recipe=recipe)
    return root


def evaluated(*overrides: str) -> int:
    return main(["evaluate", "toy", "--device", "cpu", *tiny.overridden(overrides)])


def spoil(root: Path, *items: str) -> None:
    for item in items:
        (root / item).write_bytes(b"\x89PNG\r\n\x1a\n cut short")


def test_corrupt_images_are_excluded_from_a_bundles_scores(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(pictures, "test/blue/01.png", "test/red/03.png")
    assert evaluated("input.on_corrupt=skip", "input.corrupt_limit=0.2") == EXIT_DONE
    made = tiny.only_run(pictures.parent / "runs", "toy-bundle")
    assert json.loads((made / "scores.json").read_text())["protocol"]["skipped"] == {"train": 0, "valid": 0, "test": 2}
    with (made / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    left = [f"{name}/{number:02}" for name in tiny.CLASSES for number in range(4)]
    left = [item for item in left if item not in ("blue/01", "red/03")]
    assert [(row["id"], row["target"]) for row in rows] == [(f"test/{item}.png", item.split("/")[0]) for item in left]
    (note,) = (note for note in json.loads((made / "facts.json").read_text())["notes"] if "2 of 12 items" in note)
    assert "cannot be read: " in note
    assert all(str(pictures / item) in note for item in ("test/blue/01.png", "test/red/03.png"))
    assert f"note: {note}" in capsys.readouterr().out
    assert "skipped 2 of 12 items" in (made / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("overrides", "problem", "advice"),
    [
        ([], "test/blue/01.png: cannot be decoded", "--set input.on_corrupt=skip"),
        (
            ["input.on_corrupt=skip"],
            "1 of 12 items cannot be read, more than input.corrupt_limit = 0.01 allows",
            "--set input.corrupt_limit=SHARE",
        ),
    ],
)
def test_a_corrupt_image_that_may_not_be_skipped_ends_a_bundles_evaluation(
    overrides: list[str], problem: str, advice: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(pictures, "test/blue/01.png")
    assert evaluated(*overrides) == EXIT_DATA
    messages = capsys.readouterr().err
    assert problem in messages
    assert advice in messages
    assert not Path("runs").exists()


def test_a_bundle_is_not_scored_on_a_split_that_is_all_corrupt(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(pictures, *(f"test/{name}/{number:02}.png" for name in tiny.CLASSES for number in range(4)))
    assert evaluated("input.on_corrupt=skip", "input.corrupt_limit=1") == EXIT_DATA
    assert "nothing can be scored: every item of a split was skipped" in capsys.readouterr().err


def test_a_bundle_that_declines_is_scored_by_its_probabilities(tmp_path: Path, pictures: Path) -> None:
    recipe = (tmp_path / "tiny.toml").read_text(encoding="utf-8")
    trust = Trust(reject=Rejection("energy", 8.0, 0.05))
    toy_bundle.write(tmp_path / "careful" / "toy", classes=tiny.CLASSES, recipe=recipe, trust=trust)
    both = ["toy", str(tmp_path / "careful" / "toy")]
    for bundle in both:
        assert main(["evaluate", bundle, "--device", "cpu"]) == EXIT_DONE
    plain, careful = sorted((tmp_path / "runs" / "toy-bundle").iterdir())
    first, second = (json.loads((one / "scores.json").read_text())["test"] for one in (plain, careful))
    assert first == second
    assert json.loads((careful / "facts.json").read_text())["latency_ms"] > 0


MEASURED = {"test": {"items": 12, "accuracy": 0.5, "declined": 0.25, "coverage": 0.75, "set_size": 2.5}}


def test_what_a_bundle_declines_and_its_sets_are_measured_again(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the thresholds of the bundle, on screen, in scores.json and on the page, next to the figures of the export."""
    recipe = (tmp_path / "tiny.toml").read_text(encoding="utf-8")
    trust = Trust(2.0, Rejection("confidence", 0.6, 0.05), Conformal(0.4, 0.1), MEASURED)
    toy_bundle.write(tmp_path / "careful" / "toy", classes=tiny.CLASSES, recipe=recipe, trust=trust)
    for number, level in enumerate((10, 85, 86)):  # sure of blue, and twice undecided between blue and green
        Image.new("RGB", (32, 32), (level, level, level)).save(pictures / f"test/blue/0{number}.png")
    assert main(["evaluate", "careful/toy", "--device", "cpu"]) == EXIT_DONE
    made = tiny.only_run(tmp_path / "runs", "toy-bundle")
    with (made / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    right = [row["target"] == row["prediction"] for row in rows]
    kept = [one for one, row in zip(right, rows, strict=True) if float(row["confidence"]) >= 0.6]
    found = json.loads((made / "scores.json").read_text())["trust"]
    assert (len(kept), sum(kept), sum(right)) == (10, 5, 6)
    assert found["test"]["declined"] == pytest.approx(2 / 12)
    assert found["test"]["declined_right"] == pytest.approx(1 / 6)
    assert found["test"]["accuracy_kept"] == pytest.approx(0.5)
    assert found["test"]["set_size"] == pytest.approx(14 / 12)
    assert found["test"]["coverage"] == pytest.approx(7 / 12)
    assert {"ece", "log_loss"} < found["test"].keys()
    assert found["exported"] == MEASURED
    assert not found["same_items"]
    shown = capsys.readouterr().out
    assert "note: these splits hold other items than those at export" in shown
    (line,) = (line for line in shown.splitlines() if "sets that hold the truth" in line)
    assert "58.3 %" in line
    assert "75.0 %" in line
    page = (made / "report.html").read_text(encoding="utf-8")
    assert '<section id="trust">' in page
    assert "where the splits held other items" in page
    assert ">2.50</td>" in page


@pytest.mark.parametrize("score", ["energy", "similarity"])
def test_a_bundle_is_scored_on_classes_that_it_never_learned(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str], score: Any
) -> None:
    recipe = (tmp_path / "tiny.toml").read_text(encoding="utf-8")
    known = tuple(name for name in tiny.CLASSES if name != "red")
    trust = Trust(reject=Rejection(score, 1e9, 0.05, 0.5))
    toy_bundle.write(tmp_path / "careful" / "toy", classes=known, recipe=recipe, trust=trust)
    words = tiny.overridden(['data.unknown=["red"]'])
    assert main(["evaluate", "careful/toy", "--device", "cpu", *words]) == EXIT_DONE
    made = tiny.only_run(tmp_path / "runs", "toy-bundle")
    scores = json.loads((made / "scores.json").read_text())
    assert scores["trust"]["unknown"] == {"items": 4, "declined": 1}
    assert (scores["unknown"]["classes"], scores["unknown"]["items"]) == (["red"], 4)
    assert scores["unknown"].keys() == {"classes", "items", "confidence", score}
    assert scores["protocol"]["skipped"] == {"train": 0, "valid": 0, "test": 0, "unknown": 0}
    assert f"unknown: 4 items of red: by {score} AUROC " in capsys.readouterr().out


def test_a_bundle_that_does_not_give_its_energy_is_scored_by_its_confidence(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = (tmp_path / "tiny.toml").read_text(encoding="utf-8")
    known = tuple(name for name in tiny.CLASSES if name != "red")
    toy_bundle.write(tmp_path / "plain" / "toy", classes=known, recipe=recipe)
    assert main(["evaluate", "plain/toy", "--device", "cpu", *tiny.overridden(['data.unknown=["red"]'])]) == EXIT_DONE
    scores = json.loads((tiny.only_run(tmp_path / "runs", "toy-bundle") / "scores.json").read_text())
    assert set(scores["unknown"]) == {"classes", "items", "confidence"}
    assert "trust" not in scores
    shown = capsys.readouterr().out
    assert "by confidence AUROC" in shown
    assert "by energy" not in shown


def test_the_protocol_of_a_bundles_scores_is_of_the_data_that_was_seen(tmp_path: Path, pictures: Path) -> None:
    protocol = {"dataset": "har", "sample": True, "grouping": "of har", "size": 24, "views": "1 centre crop"}
    recipe = tiny.RECIPE.replace("cifar10", "har")
    toy_bundle.write(tmp_path / "other" / "toy", classes=tiny.CLASSES, recipe=recipe, protocol=protocol)
    words = tiny.overridden(["data.name=cifar10", f'data.root="{pictures}"'])
    assert main(["evaluate", "other/toy", "--device", "cpu", *words]) == EXIT_DONE
    made = tiny.only_run(tmp_path / "runs", "toy-bundle")
    protocol_seen = json.loads((made / "scores.json").read_text())["protocol"]
    assert (protocol_seen["dataset"], protocol_seen["sample"]) == ("cifar10", False)
    assert "grouping" not in protocol_seen
    assert (protocol_seen["size"], protocol_seen["views"]) == (24, "1 centre crop")


def test_a_bundle_has_slices_by_metadata_size_and_brightness(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "FEWEST", 1)
    small = Image.new("RGB", (20, 10), (90, 90, 90))
    small.save(pictures / "test/blue/00.png")
    items = [f"test/{name}/{number:02}.png" for name in tiny.CLASSES for number in range(4)]
    lines = [f"{item},{'dusk' if 'blue' in item else 'day'}" for item in items]
    Path("table.csv").write_text("\n".join(["item,light", *lines]), encoding="utf-8")
    assert evaluated("data.metadata=table.csv") == EXIT_DONE
    made = tiny.only_run(pictures.parent / "runs", "toy-bundle")
    found = {(one.column, one.value): one.items for one in read_run(made).slices}
    assert (found["light", "dusk"], found["light", "day"]) == (4, 8)
    assert (found["size", "10"], found["size", "32"]) == (1, 11)
    assert found["brightness", "90"] == 1
