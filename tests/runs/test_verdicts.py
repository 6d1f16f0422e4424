"""Verdicts, of made-up records and predictions: when each is given, when not, and which keys it names."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest

from toolkit.api.contracts import EpochRecord
from toolkit.runs.estimates import Estimate
from toolkit.runs.predictions import Prediction
from toolkit.runs.report.verdicts import FALLEN, RISEN, WAITING, WIDE, Judged, Kind, Verdict, verdicts

RECIPE: dict[str, Any] = {
    "data": {"name": "image_folder", "valid_share": 0.15, "test_share": 0.15},
    "model": {"name": "resnet18", "weights": "none"},
    "task": {"name": "classification", "class_weights": "none"},
    "train": {"epochs": 10, "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.0}},
}


def record(epoch: int, train: float, valid: float | None, *, best: bool = False, waiting: float = 0.0) -> EpochRecord:
    scores = {} if valid is None else {"loss": valid}
    return EpochRecord(epoch, 10 * epoch, train, scores, {"all": 0.1}, 10.0, 1.0, waiting, best)


def curve(train: Sequence[float], valid: Sequence[float | None], best: int) -> list[EpochRecord]:
    pairs = enumerate(zip(train, valid, strict=True), 1)
    return [record(epoch, one, other, best=epoch == best) for epoch, (one, other) in pairs]


def rows(*counts: tuple[str, str, int]) -> list[Prediction]:
    """So many items of each target and prediction."""
    return [Prediction(f"{t}{p}{n}", t, p, 0.9, {}) for t, p, count in counts for n in range(count)]


def judged(**changes: Any) -> Judged:
    right = rows(("cat", "cat", 200), ("dog", "dog", 200))
    known: dict[str, Any] = {"recipe": RECIPE, "split": "test", "predictions": right, "classes": ["cat", "dog"]}
    return Judged(**(known | changes))


def found(kind: str, **changes: Any) -> Verdict | None:
    return next((one for one in verdicts(judged(**changes)) if one.kind == kind), None)


def given(kind: str, **changes: Any) -> Verdict:
    verdict = found(kind, **changes)
    assert verdict is not None
    return verdict


def test_a_good_run_has_no_verdict() -> None:
    assert verdicts(judged()) == []


def test_a_score_whose_interval_holds_that_of_guessing_is_chance() -> None:
    balanced = rows(("cat", "cat", 52), ("cat", "dog", 48), ("dog", "dog", 50), ("dog", "cat", 50))
    verdict = given("chance", predictions=balanced)
    assert verdict.text == (
        "No better than chance: test accuracy 51.0 % (95 % interval 44.1 % to 57.8 %). Guessing reaches 50.0 %."
    )
    assert verdict.keys == ("train.optimizer.lr", "train.epochs", "model.weights")
    assert verdict.sentence.endswith(" Try: train.optimizer.lr, train.epochs, model.weights.")


def test_answers_that_are_not_finite_are_counted() -> None:
    recipe = {**RECIPE, "train": {**RECIPE["train"], "clip_norm": None}}
    answered = [*rows(("cat", "cat", 300)), Prediction("x", "dog", "cat", math.nan, {})]
    verdict = given("not_finite", predictions=answered, recipe=recipe)
    assert verdict.text == (
        "Training diverged: the answers to 1 of 301 items in the test split are not finite (NaN or infinite)."
    )
    assert verdict.keys == ("train.optimizer.lr", "train.clip_norm")
    number = Estimate("x", {"size": 1.0}, {"size": math.inf})
    assert "1 of 1 item " in given("not_finite", predictions=[], estimates=[number]).text


def test_a_model_that_always_answers_the_most_frequent_class_is_no_better_than_chance() -> None:
    assert "reaches 90.0 %" in given("chance", predictions=rows(("cat", "cat", 180), ("dog", "cat", 20))).text


def test_guessing_is_the_rival_where_every_class_is_rarer_than_its_share() -> None:
    classes = ["cat", "dog", "owl"]
    few = rows(("cat", "dog", 2), ("dog", "cat", 1), ("owl", "owl", 1))
    assert "Guessing reaches" not in given("chance", classes=classes, predictions=few).text
    assert (
        "Guessing reaches 50.0 %"
        in given("chance", predictions=rows(("cat", "cat", 1), ("owl", "dog", 1), ("dog", "cat", 1))).text
    )


def test_an_interval_above_chance_gives_no_verdict_and_pretrained_weights_are_not_advised_twice() -> None:
    assert found("chance", predictions=rows(("cat", "cat", 70), ("cat", "dog", 30), ("dog", "dog", 100))) is None
    pretrained = {**RECIPE, "model": {"name": "resnet18", "weights": "imagenet"}}
    half = rows(("cat", "cat", 50), ("cat", "dog", 50))
    assert "model.weights" not in given("chance", recipe=pretrained, predictions=half).keys


def test_sets_are_compared_with_the_best_constant_set_by_what_they_share() -> None:
    sets = rows(("cat|dog", "cat|dog", 10), ("cat", "dog", 90))
    verdict = given("chance", one_class=False, predictions=sets)
    assert verdict.text == (
        "No better than a constant: test answers overlap with their targets by 10.0 %. "
        "Answering cat every time reaches 96.7 %."
    )
    right = rows(("cat|dog", "cat|dog", 100), ("cat", "cat", 100))
    assert found("chance", one_class=False, predictions=right) is None


def test_a_set_that_is_right_in_part_is_better_than_a_constant() -> None:
    """No whole set is right."""
    partly = rows(("cat|dog", "cat|dog|sea", 100), ("sea", "sea|cat", 60), ("", "", 40))
    assert found("chance", one_class=False, predictions=partly) is None
    nothing = rows(("", "cat", 60), ("cat", "", 40))
    assert "Answering no class every time reaches 60.0 %." in given("chance", one_class=False, predictions=nothing).text
    assert found("chance", one_class=False, predictions=nothing[:1]) is None


def estimates(*pairs: tuple[float, float]) -> list[Estimate]:
    return [Estimate(str(n), {"age": target}, {"age": answer}) for n, (target, answer) in enumerate(pairs)]


def of_numbers(*pairs: tuple[float, float]) -> dict[str, Any]:
    return {"predictions": (), "classes": ["age"], "one_class": False, "estimates": estimates(*pairs)}


def test_answers_that_are_no_nearer_than_the_median_are_no_better_than_a_constant() -> None:
    verdict = given("chance", **of_numbers(*((float(n), 20.0 - n) for n in range(21))))
    assert verdict.text == (
        "No better than a constant: test mean absolute error of age 10.48. Answering the median 10 every time "
        "has 5.238."
    )
    assert verdict.keys == ("train.optimizer.lr", "train.epochs", "model.weights")
    assert found("chance", **of_numbers(*((float(n), n + 0.5) for n in range(21)))) is None


def test_a_gain_within_its_error_is_no_better_than_a_constant() -> None:
    """Exact for three items and further than the median for the others: nearer in the mean, but not for certain."""
    mixed = [(float(n), float(n) if n < 3 else n + abs(n - 10.0) + 1) for n in range(21)]
    assert found("chance", **of_numbers(*mixed)) is not None


@pytest.mark.parametrize("pairs", [[(3.0, 4.0)], [(3.0, 4.0), (3.0, 5.0)]], ids=["one item", "equal targets"])
def test_nothing_is_said_of_numbers_that_cannot_be_compared(pairs: list[tuple[float, float]]) -> None:
    assert found("chance", **of_numbers(*pairs)) is None


@pytest.mark.parametrize(("items", "few"), [(20, True), (80, True), (100, False)])
def test_too_few_items_have_a_wide_interval(items: int, few: bool) -> None:
    half = rows(("cat", "cat", items // 2), ("cat", "dog", items // 2))
    verdict = found("few_items", predictions=half)
    assert (verdict is not None) == few
    if verdict:
        assert verdict.text.startswith(f"Too few items to judge: {items} items in the test split")
        assert verdict.keys == ("data.test_share",)


def test_a_dataset_without_shares_has_no_key_for_more_items() -> None:
    assert given("few_items", recipe={"data": {"name": "x"}}, predictions=rows(("cat", "dog", 5))).keys == ()


FALLING = [2.0, 1.5, 1.0, 0.6, 0.4, 0.2]


def test_overfitting_is_a_training_loss_that_falls_while_the_validation_loss_rises() -> None:
    records = curve(FALLING, [1.8, 1.4, 1.2, 1.3, 1.5, 1.7], best=3)
    verdict = given("overfitting", records=records)
    assert verdict.text == (
        "Overfitting from epoch 4: the training loss falls from 1.000 to 0.200, the validation loss rises from 1.200 "
        "to 1.700."
    )
    assert verdict.keys == ("augment", "train.optimizer.weight_decay", "train.patience")
    assert found("improving", records=records) is None


@pytest.mark.parametrize(
    ("train", "valid"),
    [
        (FALLING, [1.8, 1.4, 1.2, 1.21, 1.2, 1.22]),  # flat
        (FALLING, [1.8, 1.4, 1.2, 1.1, 1.0, 1.5]),  # one bad epoch
        ([2.0, 1.5, 1.0, 1.1, 1.2, 1.3], [1.8, 1.4, 1.2, 1.3, 1.5, 1.7]),  # both rise: it diverges
        (FALLING[:3], [1.0, 1.4, 1.8]),  # too short
        (FALLING, [None] * 6),
        (FALLING, [1.8, 1.4, 1.2, math.nan, math.nan, math.nan]),
    ],
    ids=["flat", "one epoch", "diverged", "short", "no validation", "NaN"],
)
def test_other_curves_are_not_overfitting(train: list[float], valid: list[float | None]) -> None:
    assert found("overfitting", records=curve(train, valid, best=1)) is None


def test_a_run_whose_validation_loss_still_falls_at_the_end_is_improving() -> None:
    records = curve(FALLING, [1.8, 1.6, 1.4, 1.2, 1.1, 1.0], best=6)
    verdict = given("improving", records=records)
    assert verdict.text == (
        "Still improving at the last epoch: the validation loss falls from 1.200 in epoch 4 to 1.000 in epoch 6."
    )
    assert verdict.keys == ("train.epochs",)


@pytest.mark.parametrize(
    ("valid", "best", "finished"),
    [
        ([1.8, 1.4, 1.1, 1.001, 1.001, 1.0], 6, True),  # gains less than two hundredths
        ([1.8, 1.4, 1.1, 0.9, 0.8, 0.81], 5, True),
        ([1.8, 1.6, 1.4, 1.2, 1.1, 1.0], 6, False),
    ],
    ids=["converged", "lowest before", "unfinished"],
)
def test_other_ends_are_not_improving(valid: list[float], best: int, finished: bool) -> None:
    assert found("improving", records=curve(FALLING, valid, best), finished=finished) is None


def test_waiting_counts_the_epochs_after_the_first_which_decodes_everything() -> None:
    first = record(1, 1.0, None, waiting=0.9)
    assert found("waiting", records=[first, *(record(epoch, 1.0, None, waiting=0.1) for epoch in (2, 3))]) is None
    verdict = given("waiting", records=[first, *(record(epoch, 1.0, None, waiting=0.45) for epoch in (2, 3))])
    assert verdict.text == "Starved of data: 45 % of the training time is spent waiting for data."
    assert verdict.keys == ("input.memory_gb", "input.cache_gb", "input.workers")
    assert given("waiting", records=[first]).text.startswith("Starved of data: 90 %")


def test_unbalanced_classes_lead_to_the_weights_of_the_task() -> None:
    verdict = given("unbalanced", class_items={"cat": 90, "dog": 30, "owl": 0})
    assert verdict.text == (
        "Unbalanced classes: 30 training items of dog, 90 of cat; accuracy hides mistakes on rare classes."
    )
    assert verdict.keys == ('task.class_weights = "balanced"',)
    several = {"task": {"name": "multi_label", "positive_weights": "none"}}
    assert given("unbalanced", recipe=several, class_items={"a": 9, "b": 1}).keys == (
        'task.positive_weights = "balanced"',
    )
    assert found("unbalanced", class_items={"cat": 89, "dog": 30}) is None
    weighted = {"task": {"class_weights": "balanced"}}
    assert found("unbalanced", recipe=weighted, class_items={"a": 9, "b": 1}) is None


def test_classes_that_are_never_predicted_are_named() -> None:
    answers = rows(("cat", "cat", 300), ("dog", "cat", 12))
    verdict = given("never_predicted", classes=["cat", "dog", "owl"], predictions=answers)
    assert verdict.text == "1 class is never predicted on the test split: dog (12 items)."
    assert verdict.keys == ('task.class_weights = "balanced"', "train.epochs")


def test_a_class_name_with_the_separator_of_sets_is_one_class() -> None:
    assert (
        found("never_predicted", classes=["a|b", "c"], predictions=rows(("a|b", "a|b", 200), ("c", "c", 200))) is None
    )
    sets = rows(("a|b", "a", 200), ("a", "a", 200))
    assert "b (200 items)" in given("never_predicted", classes=["a", "b"], one_class=False, predictions=sets).text


def test_nothing_scored_is_said_of_finished_runs_only() -> None:
    verdict = given("nothing_scored", split=None, predictions=[])
    assert verdict.text == "Nothing was scored: the dataset has no validation and no test items."
    assert verdict.keys == ("data.test_share", "data.valid_share")
    assert found("nothing_scored", split=None, predictions=[], finished=False) is None


def test_the_documents_name_every_verdict_and_its_keys() -> None:
    text = (Path(__file__).parents[2] / "docs/how-to/read-a-report.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(get_args(Kind))
    shares = (f"{100 * WIDE:.0f} points", f"{100 * (RISEN - 1):.0f} % above", f"{100 * (1 - FALLEN):.0f} % or more")
    assert all(share in text for share in (*shares, f"{100 * WAITING:.0f} % of the training time"))
