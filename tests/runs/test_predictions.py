"""predictions.csv: read back as it was written."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from toolkit.api.contracts import DataSpec, FileProblem
from toolkit.runs.directory import RunDirectory
from toolkit.runs.estimates import Estimate, read_estimates, write_estimates
from toolkit.runs.file_problems import read_file_problems, write_file_problems
from toolkit.runs.predictions import Prediction, predictions_of, read_predictions, write_predictions
from toolkit.training.evaluate import Evaluation

SPEC = DataSpec(("cat", 'dog, "small"', "跑步"), size=32)


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    logits = torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 5.0]])
    evaluation = Evaluation(
        index=torch.tensor([2, 0]),
        logits=logits,
        targets=torch.tensor([0, 1]),
        answers=logits.softmax(1),
        thresholds=None,
        scores={},
    )
    rows = predictions_of(evaluation, ["a", "b", "c"], SPEC)
    assert [(row.id, row.target, row.prediction, row.wrong) for row in rows] == [
        ("c", "cat", "cat", False),
        ("a", 'dog, "small"', "跑步", True),
    ]
    write_predictions(RunDirectory(tmp_path), rows, SPEC)
    read = read_predictions(RunDirectory(tmp_path))
    assert [row.top.keys() for row in read] == [row.top.keys() for row in rows]
    assert [round(row.confidence, 6) for row in rows] == [row.confidence for row in read]


ODD = ["a\rb", "a\nb", "a\r\nb", "\r", "\x1b[31m", "\u202e", "\x85\u2028\x0b\x1c", ' "," ', "", "|", "é"]


@pytest.mark.parametrize("odd", ODD)
def test_names_with_any_character_are_read_back(tmp_path: Path, odd: str) -> None:
    rows = [
        Prediction(odd, odd, "b", 0.123456, {odd: 0.5, "b": 1e-06}),
        Prediction("1.5", "b", odd, 1, {"b": 1, odd: 0}),
    ]
    run = RunDirectory(tmp_path)
    write_predictions(run, rows, DataSpec((odd, "b"), size=32))
    whole, half = read_predictions(run)
    assert whole == rows[0]
    assert (half.id, half.prediction) == ("1.5", odd)
    with run.predictions.open(encoding="utf-8", newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["id", odd, "1.5"]


@pytest.mark.parametrize("odd", ODD)
def test_names_of_files_and_outputs_with_any_character_are_read_back(tmp_path: Path, odd: str) -> None:
    run = RunDirectory(tmp_path)
    problems = [FileProblem(odd, "twice", odd), FileProblem("b", "empty", "")]
    write_file_problems(run, problems)
    assert read_file_problems(run) == problems
    estimates = [Estimate(odd, {odd: 1.5}, {odd: -3e-7})]
    write_estimates(run, estimates, DataSpec((odd,), size=32, targets="number"))
    assert read_estimates(run) == estimates


def test_a_run_without_predictions_has_the_columns_alone(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert read_predictions(run) == []
    write_predictions(run, [], SPEC)
    (columns,) = run.predictions.read_text().splitlines()
    assert columns.split(",")[:6] == [
        *('"id"', '"target"', '"prediction"', '"confidence"', '"class_1"', '"probability_1"')
    ]
    assert read_predictions(run) == []
