"""predictions.csv: read back as it was written."""

from __future__ import annotations

from pathlib import Path

import torch

from toolkit.api.contracts import DataSpec
from toolkit.runs.directory import RunDirectory
from toolkit.runs.predictions import predictions_of, read_predictions, write_predictions
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


def test_a_run_without_predictions_has_the_columns_alone(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert read_predictions(run) == []
    write_predictions(run, [], SPEC)
    assert run.predictions.read_text().startswith("id,target,prediction,confidence,class_1,probability_1,")
    assert read_predictions(run) == []
