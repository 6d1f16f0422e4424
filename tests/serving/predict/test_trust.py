"""Declined answers and sets of classes, wherever `predict` shows an answer."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import toy_bundle
from toolkit.api.clips import Clip
from toolkit.api.errors import EXIT_DONE
from toolkit.cli.main import main
from toolkit.serving.bundle import Bundle, Conformal, Rejection, Trust
from toolkit.serving.predict.captions import caption
from toolkit.serving.predict.job import PredictionJob

BOTH = Trust(reject=Rejection("confidence", 0.9, 0.05), conformal=Conformal(0.25, 0.1))
ENERGY = Trust(reject=Rejection("energy", 8.0, 0.05))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A dark, a middling and a bright one: by `BOTH` the second is declined."""
    (tmp_path / "pictures").mkdir()
    for name, value in (("a", 0), ("b", 127), ("c", 255)):
        Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(tmp_path / "pictures" / f"{name}.png")
    return tmp_path / "pictures"


def predict(tmp_path: Path, pictures: Path, trust: Trust, *words: str) -> None:
    bundle = tmp_path / "toy"
    if not bundle.exists():
        toy_bundle.write(bundle, trust=trust)
    assert main(["predict", str(bundle), str(pictures), "--device", "cpu", *words]) == EXIT_DONE


def test_the_screen_says_what_is_unknown(tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict(tmp_path, pictures, BOTH, "--top", "1")
    printed = capsys.readouterr()
    head, *rows = printed.out.splitlines()
    assert head.split() == ["file", "top", "1", "declined", "plausible"]
    assert [row.split()[4:] for row in rows] == [["dark"], ["unknown", "dark|bright"], ["bright"]]
    assert "classes: dark 1, (unknown) 1, bright 1" in printed.err
    assert "declined: 1 of 3 answers count as unknown" in printed.err


def test_files_have_columns_for_it(tmp_path: Path, pictures: Path) -> None:
    for suffix in (".csv", ".jsonl", ".parquet"):
        predict(tmp_path, pictures, BOTH, "--output", str(tmp_path / f"answers{suffix}"), "--top", "1")
    with (tmp_path / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["declined"], row["plausible"]) for row in rows] == [
        ("false", "dark"),
        ("true", "dark|bright"),
        ("false", "bright"),
    ]
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [line["declined"] for line in lines] == [False, True, False]
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(tmp_path / "answers.parquet").to_pylist()
    assert [(row["declined"], row["plausible"]) for row in table] == [
        (line["declined"], line["plausible"]) for line in lines
    ]


def test_a_bundle_has_the_columns_of_what_it_says_alone(tmp_path: Path, pictures: Path) -> None:
    output = tmp_path / "answers.csv"
    predict(tmp_path, pictures, ENERGY, "--output", str(output), "--top", "1")
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["file", "declined", "class_1", "probability_1"]
    assert [row["declined"] for row in rows] == ["true", "true", "false"]


def test_an_empty_set_is_shown(tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict(tmp_path, pictures, Trust(conformal=Conformal(0.99, 0.1)), "--top", "1")
    assert capsys.readouterr().out.splitlines()[2].endswith("(none)")


def test_pictures_are_marked(tmp_path: Path) -> None:
    manifest = Bundle.load(toy_bundle.write(tmp_path / "toy", trust=ENERGY), device="cpu").manifest
    low, high = (np.array([0.9, 0.1, energy], np.float32) for energy in (7.0, 9.0))
    assert [line.text for line in caption(manifest, low, 1)] == ["unknown", "dark  90.0 %"]
    assert [line.text for line in caption(manifest, high, 1)] == ["dark  90.0 %"]


def test_views_are_averaged_before_they_are_declined(tmp_path: Path) -> None:
    """Of two clips, one of a low energy: their mean decides."""
    clip = Clip(frames=2, clips=2, average="logits")
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", trust=ENERGY, clip=clip), device="cpu")
    job = PredictionJob(bundle, (), None, False, None, None, None, 1, 1, None)
    row = job.average(np.array([[0.9, 0.1, 7.0], [0.5, 0.5, 9.5]], np.float32))
    assert row[2] == pytest.approx(8.25)
    assert row[0] == pytest.approx(0.75)
    assert bundle.answers(row[None]).declined == [False]


def test_a_similarity_is_added_to_the_confidence_of_the_mean_answer(tmp_path: Path) -> None:
    reject = Rejection("similarity", 1.55, 0.05, 2.0)
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", trust=Trust(reject=reject)), device="cpu")
    rows = np.array([[0.9, 0.1, 0.3], [0.4, 0.6, 0.5], [0.9, 0.1, 0.35]], np.float32)
    assert bundle.answers(rows).declined == [True, False, False]


def test_an_energy_that_is_no_number_has_no_meaning(tmp_path: Path) -> None:
    from toolkit.api.errors import DataError

    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", trust=ENERGY), device="cpu")
    job = PredictionJob(bundle, (), None, False, None, None, None, 1, 1, None)
    with pytest.raises(DataError, match="expected a finite number"):
        job.average(np.array([[0.9, 0.1, np.nan]], np.float32))
