"""What a run says of how far its answers can be trusted: in scores.json, on screen and in the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from tests import tiny
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import EXIT_DONE, EXIT_USAGE
from toolkit.runs.trust import calibration, unknown_lines
from toolkit.system.choices import TrustScore
from toolkit.training.answers import answers_of
from toolkit.training.evaluate import Evaluation


def evaluation(seed: int, sureness: float) -> Evaluation:
    """Answers to 2,000 items, too sure by this factor."""
    draw = torch.Generator().manual_seed(seed)
    honest = torch.randn(2000, 4, generator=draw)
    targets = torch.multinomial(honest.softmax(1), 1, generator=draw).flatten()
    logits = honest * sureness
    return Evaluation(torch.arange(2000), logits, targets, answers_of(logits, "index"), None, {})


def test_a_model_that_is_too_sure_is_calibrated() -> None:
    answers = {"valid": evaluation(0, 3.0), "test": evaluation(1, 3.0)}
    found: dict[str, Any] = calibration(answers, DataSpec(tuple("abcd"), 8), "probabilities")["calibration"]
    assert found["temperature"] == pytest.approx(3, rel=0.1)
    assert found["before"]["ece"] > 0.2
    assert found["after"]["ece"] < 0.05
    assert found["after"]["log_loss"] < found["before"]["log_loss"]
    assert sum(found["curve"]["share"]) == pytest.approx(1)


def test_without_both_splits_or_one_class_an_item_nothing_is_calibrated() -> None:
    alone = {"test": evaluation(1, 3.0)}
    assert calibration(alone, DataSpec(tuple("abcd"), 8), "probabilities") == {}
    both = {"valid": evaluation(0, 3.0), **alone}
    assert calibration(both, DataSpec(tuple("abcd"), 8, targets="set"), "probabilities") == {}


def test_answers_that_are_not_finite_are_not_calibrated() -> None:
    answers = {"valid": evaluation(0, 3.0), "test": evaluation(1, 3.0)}
    answers["test"].logits[7, 2] = torch.nan
    assert calibration(answers, DataSpec(tuple("abcd"), 8), "probabilities") == {}


def test_the_screen_has_a_line_for_each_score() -> None:
    scores = {name: {"auroc": 0.75, "declined": 0.25} for name in get_args(TrustScore)}
    shown = list(unknown_lines({"unknown": {"classes": ["cat"], "items": 1, **scores}}))
    assert shown[0] == ("unknown: 1 item of cat: by confidence AUROC 0.750, 25.0 % declined at 95 % kept known items")
    assert len(shown) == 3
    assert list(unknown_lines({})) == []


def test_classes_that_are_held_out_are_scored_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))
    assert tiny.run(recipe, tmp_path / "runs", "train.epochs=1", 'data.unknown=["red"]') == EXIT_DONE
    printed = capsys.readouterr().out
    assert "2 classes, train 16, valid 4, test 8, unknown 4 items" in printed
    for name in get_args(TrustScore):
        assert f"unknown: 4 items of red: by {name} AUROC " in printed
    run = tiny.only_run(tmp_path / "runs")
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    assert (scores["unknown"]["classes"], scores["unknown"]["items"]) == (["red"], 4)
    assert scores["unknown"]["similarity"]["auroc"] != scores["unknown"]["confidence"]["auroc"]
    assert scores["protocol"]["unknown"] == "red"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Unknown classes" in page
    assert "After temperature scaling" in page


def test_a_model_without_features_is_scored_by_its_logits_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tiny.write_images(tmp_path / "images")
    recipe = tiny.write_recipe(tmp_path, images, text=tiny.WITHOUT_WEIGHTS)
    assert tiny.run(recipe, tmp_path / "runs", "train.epochs=1", 'data.unknown=["red"]') == EXIT_DONE
    assert "by similarity" not in capsys.readouterr().out
    scores = json.loads((tiny.only_run(tmp_path / "runs") / "scores.json").read_text(encoding="utf-8"))
    assert scores["unknown"].keys() == {"classes", "items", "confidence", "energy"}


def test_a_class_that_cannot_be_held_out_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))
    assert tiny.run(recipe, tmp_path / "runs", 'data.unknown=["gren"]') == EXIT_USAGE
    error = capsys.readouterr().err
    assert 'data.unknown=["gren"]\': the data has no class "gren"; did you mean "green"?' in error
    assert not (tmp_path / "runs").exists()
