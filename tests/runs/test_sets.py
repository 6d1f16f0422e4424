"""A run whose targets are sets of classes: what it writes, what its report says, and its scores once more."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from tests import several, tiny
from tests.runs.test_report import Reader, read_page, write_json
from toolkit.api.answers import confidence, label, names_in
from toolkit.api.contracts import DataSpec
from toolkit.cli.main import main
from toolkit.runs import sheets
from toolkit.runs.files import read_run
from toolkit.runs.predictions import Prediction
from toolkit.runs.report import statistics, write_report

CLASSES = several.CLASSES
MISREAD = 5
SETS = st.sets(st.sampled_from(range(3))).map(sorted)


@pytest.fixture(scope="module", autouse=True)
def _plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    site = tmp_path_factory.mktemp("site")
    several.install_several(site)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, _plugin: None) -> Path:
    """A finished run, for looking only. Some of its test items show a class that their label lacks."""
    folder = tmp_path_factory.mktemp("made")
    recipe = several.write_recipe(folder)
    return several.run(recipe, folder / "runs", f"data.misread={MISREAD}", "augment=['mixup']")


@pytest.fixture(scope="module")
def page(made: Path) -> Reader:
    return read_page(made / "report.html")


@pytest.fixture
def finished(made: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, for spoiling."""
    return shutil.copytree(made, tmp_path / "copied" / "several" / made.name)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# Files


def test_predictions_name_the_classes_that_reach_their_thresholds(made: Path) -> None:
    rows, scores = rows_of(made), read_json(made / "scores.json")
    assert list(scores["thresholds"]) == list(CLASSES)
    items = several.Shapes("test", 24, MISREAD)
    for row, item, target in zip(rows, items.ids, items.targets, strict=True):
        answer = {row[f"class_{rank}"]: float(row[f"probability_{rank}"]) for rank in (1, 2, 3)}
        assert list(answer.values()) == sorted(answer.values(), reverse=True)
        named = [name for name in CLASSES if answer[name] >= scores["thresholds"][name]]
        assert (row["id"], row["target"]) == (item, "|".join(CLASSES[number] for number in target))
        assert row["prediction"] == "|".join(named)
        sure = math.prod(answer[name] if name in named else 1 - answer[name] for name in CLASSES)
        assert float(row["confidence"]) == pytest.approx(sure, abs=1e-5)
    assert "" in {row["target"] for row in rows}
    right = sum(row["target"] == row["prediction"] for row in rows) / len(rows)
    assert scores["test"]["accuracy"] == pytest.approx(right)
    assert 0.5 < right < 1


def test_predictions_are_read_as_they_were_written(made: Path) -> None:
    read = read_run(made)
    assert [[row.target, row.prediction] for row in read.predictions] == [
        [row["target"], row["prediction"]] for row in rows_of(made)
    ]
    assert read.targets == "set"


def test_facts_and_protocol_say_the_form_of_targets(made: Path) -> None:
    assert read_json(made / "facts.json")["targets"] == "set"
    assert read_json(made / "scores.json")["protocol"]["targets"] == "sets of classes"


# The report


def test_the_headline_is_the_share_of_whole_sets_without_a_chance(made: Path, page: Reader) -> None:
    rows = rows_of(made)
    right = sum(row["target"] == row["prediction"] for row in rows)
    low, high = json.loads((made / "scores.json").read_text())["intervals"]["test"]["accuracy"]
    assert f"test accuracy (whole sets) {100 * right / 24:.1f} %" in page.text
    assert f"{100 * low:.1f} % to {100 * high:.1f} % (24 items)" in page.text
    # 4 of 24: a misread item shows what another one does
    assert "most frequent set 16.7 %" in page.text
    assert not re.search(r"chance \d", page.text)


def test_each_class_has_its_threshold_and_its_own_scores(made: Path, page: Reader) -> None:
    assert "class threshold precision recall F1 average precision items" in page.text
    scores = read_json(made / "scores.json")
    for number, name in enumerate(CLASSES):
        columns = (scores["test"][f"{key}_per_class"][number] for key in ("precision", "recall", "f1"))
        ranked = scores["test"]["average_precision_per_class"][number]
        support = sum(name in row["target"] for row in rows_of(made))
        shares = " ".join(f"{100 * share:.1f} %" for share in (*columns, ranked))
        assert f"{name} {scores['thresholds'][name]:.3f} {shares} {support}" in page.text


def test_mistakes_are_missed_and_added_classes_not_a_matrix(made: Path, page: Reader) -> None:
    assert "Confusion" not in page.text
    assert not list((made / "figures").rglob("confusion*"))
    curves = {"loss", "score", "scores", "learning_rate"}
    drawn = {path.stem for path in (made / "figures").glob("*.png")}
    assert drawn == curves | {"calibration", "augmented", "feature_maps", "worst_errors"}
    added = [(row["prediction"], row["target"]) for row in rows_of(made) if "blue" in row["prediction"]]
    wrong = sum("blue" not in target for _, target in added)
    assert wrong > 0
    assert f"blue {wrong} {100 * wrong / len(added):.1f} %" in page.text


def test_worst_errors_are_named_in_words(page: Reader, made: Path) -> None:
    wrong = [row for row in rows_of(made) if row["target"] != row["prediction"]]
    first = max(wrong, key=lambda row: float(row["confidence"]))
    shown = f"{first['id']} {first['target'] or '(none)'} {first['prediction'] or '(none)'}"
    assert f"{shown} {100 * float(first['confidence']):.1f} %" in page.text
    assert any(row["target"] == "" for row in wrong)
    assert "(none) blue" in page.text
    assert "probability of target" not in page.text


def test_calibration_says_what_confidence_in_a_set_is(page: Reader) -> None:
    assert "The confidence of an answer with a set is the product" in page.text


def test_a_report_made_again_is_the_same(finished: Path) -> None:
    before = (finished / "report.html").read_bytes()
    assert main(["report", str(finished)]) == 0
    assert (finished / "report.html").read_bytes() == before


def test_without_scores_the_report_says_what_the_predictions_give(finished: Path) -> None:
    (finished / "scores.json").unlink()
    page = read_page(write_report(finished))
    assert "test accuracy (whole sets)" in page.text
    assert "class precision recall F1 items" in page.text


def test_a_run_without_items_to_score_has_no_mistakes(finished: Path) -> None:
    (finished / "predictions.csv").write_text("id,target,prediction,confidence\n", encoding="utf-8")
    write_json(finished / "scores.json", {"valid": {}, "test": {}, "protocol": {}, "best_epoch": 3})
    assert read_page(write_report(finished)).text.count("No predictions on a validation or a test split.") == 2


def test_where_all_is_right_nothing_is_missed_or_added(finished: Path) -> None:
    rows = "".join(f"{number},a,a,0.9\n" for number in range(3))
    (finished / "predictions.csv").write_text(f"id,target,prediction,confidence\n{rows}", encoding="utf-8")
    page = read_page(write_report(finished))
    assert "No class was missed." in page.text
    assert "No class was added." in page.text


def test_a_separator_in_the_name_of_a_class_is_a_name_where_answers_are_classes(finished: Path) -> None:
    facts = read_json(finished / "facts.json")
    del facts["targets"]
    write_json(finished / "facts.json", {**facts, "classes": ["a|b", "c"]})
    (finished / "predictions.csv").write_text("id,target,prediction,confidence\n1,a|b,c,0.9\n", encoding="utf-8")
    (finished / "scores.json").unlink()
    page = read_page(write_report(finished))
    assert "a|b c 1 100.0 %" in page.text
    assert "chance 50.0 %" in page.text


# Scores once more


def test_a_run_is_evaluated_with_its_own_thresholds(finished: Path) -> None:
    assert main(["evaluate", str(finished), "--set", "data.misread=0"]) == 0
    (evaluation,) = (finished / "evaluations").iterdir()
    assert read_json(evaluation / "scores.json")["thresholds"] == read_json(finished / "scores.json")["thresholds"]
    assert [row["prediction"] for row in rows_of(evaluation)] == [row["prediction"] for row in rows_of(finished)]
    assert "test accuracy (whole sets)" in read_page(evaluation / "report.html").text


@pytest.mark.slow
def test_a_bundle_answers_as_its_run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(finished)]) == 0
    assert main(["evaluate", "exports/several", "--device", "cpu"]) == 0
    evaluation = tiny.only_run(tmp_path / "runs", "several-bundle")
    scores, trained = read_json(evaluation / "scores.json"), read_json(finished / "scores.json")
    assert scores["thresholds"] == pytest.approx(trained["thresholds"])
    assert scores["protocol"]["targets"] == "sets of classes"
    assert [row["prediction"] for row in rows_of(evaluation)] == [row["prediction"] for row in rows_of(finished)]
    assert scores["test"]["f1_macro"] == pytest.approx(trained["test"]["f1_macro"])
    assert "class threshold precision recall F1 average precision items" in read_page(evaluation / "report.html").text


@pytest.mark.slow
def test_a_study_of_sets_is_reported(tmp_path: Path) -> None:
    tune = '\n[tune]\ntrials = 2\n[tune.space."train.optimizer.lr"]\nlow = 1e-3\nhigh = 1e-1\nlog = true\n'
    recipe = several.write_recipe(tmp_path, text=several.RECIPE.replace("epochs = 4", "epochs = 1") + tune)
    assert main(["tune", str(recipe), "--runs", str(tmp_path / "runs")]) == 0
    (study,) = (tmp_path / "runs").rglob("study.html")
    assert "mean_average_precision" in read_page(study).text


def test_a_separator_in_the_name_of_a_class_is_refused_where_targets_are_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(several, "CLASSES", ("a|b", "green", "red"))
    assert tiny.run(several.write_recipe(tmp_path), tmp_path / "runs") != 0
    assert 'invalid class name "a|b": "|" separates the classes of a set' in " ".join(capsys.readouterr().err.split())


# Parts


def test_targets_after_augmentation_are_named_with_their_shares() -> None:
    spec = DataSpec(CLASSES, 16, targets="set")
    shares = {
        (1.0, 0.0, 1.0): "blue|red",
        (0.0, 0.0, 0.0): "(none)",
        (1.0, 0.4, 0.001): "blue|green 40 %",
    }
    for target, text in shares.items():
        assert sheets.label(torch.tensor(target), spec) == text


@given(SETS)
def test_names_are_those_of_the_label(numbers: list[int]) -> None:
    assert names_in(label(CLASSES, numbers)) == [CLASSES[number] for number in numbers]


def test_confidence_is_the_product_of_what_is_answered_of_each_class() -> None:
    assert confidence([0.9, 0.4, 0.25], [0.5, 0.3, 0.5]) == pytest.approx(0.9 * 0.4 * 0.75)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_confidence_is_a_probability_over_all_sets(answer: list[float]) -> None:
    """Thresholds of 0 and 2 name any set that one likes."""
    sure = [confidence(answer, thresholds) for thresholds in itertools.product((0, 2), repeat=len(answer))]
    assert sum(sure) == pytest.approx(1)


def predicted(target: list[int], prediction: list[int]) -> Prediction:
    return Prediction("id", label(CLASSES, target), label(CLASSES, prediction), 0.5, {})


@given(st.lists(st.tuples(SETS, SETS), min_size=1, max_size=30))
def test_scores_of_classes_agree_with_scikit_learn(rows: list[tuple[list[int], list[int]]]) -> None:
    targets, answers = (
        [[number in one for number in range(3)] for one in column] for column in zip(*rows, strict=True)
    )
    found = statistics.per_class_of_sets(CLASSES, [predicted(*row) for row in rows], {}, {"red": 0.25})
    expected = precision_recall_fscore_support(targets, answers, average=None, zero_division=math.nan)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [getattr(row, name) for row in found] == pytest.approx(list(values), nan_ok=True)
    assert [(row.threshold, row.average_precision) for row in found] == [(None, None), (None, None), (0.25, None)]


def test_missed_and_added_classes_with_what_came_in_their_place() -> None:
    rows = [predicted([0], [1]), predicted([0, 2], [2]), predicted([0], [1]), predicted([0], [0]), predicted([], [2])]
    (missed,) = statistics.most_missed(rows, 5)
    assert (missed.name, missed.count, missed.share) == ("blue", 3, 0.75)
    assert (missed.instead, missed.together) == ("green", 2)
    added = statistics.most_added(rows, 5)
    assert [(one.name, one.count, one.share) for one in added] == [("green", 2, 1.0), ("red", 1, 0.5)]
    assert [(one.instead, one.together) for one in added] == [("blue", 2), (None, 0)]
    assert len(statistics.most_added(rows, 1)) == 1


@given(st.lists(st.sets(st.sampled_from("abcd")).map(sorted), min_size=1, max_size=12))
def test_the_best_constant_set_overlaps_as_much_as_any_of_the_most_frequent_classes(targets: list[list[str]]) -> None:
    ranked = [name for name, _ in Counter(name for target in targets for name in target).most_common()]
    best, *others = (
        sum(statistics.overlap(target, answer) for target in targets)
        for answer in (statistics.best_constant_set(targets), *(ranked[:size] for size in range(len(ranked) + 1)))
    )
    assert best == pytest.approx(max(others))
