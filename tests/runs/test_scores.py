"""Scores as text: percent for shares, one row for what is equal."""

from __future__ import annotations

import math

import pytest

from toolkit.runs.scores import possible, score_rows, score_text
from toolkit.runs.significance import UNKNOWN, Interval


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("accuracy", 0.1364, "13.6 %"),
        ("top_5_accuracy", 1.0, "100.0 %"),
        ("mean_average_precision", 0.5, "50.0 %"),
        ("ece", 0.031, "3.1 %"),
        ("log_loss", 0.1364, "0.1364"),
        ("of_mine", 0.5, "0.5000"),
        ("accuracy", math.nan, "undefined"),
    ],
)
def test_shares_are_percent_and_other_scores_are_numbers(name: str, value: float, text: str) -> None:
    assert score_text(name, value) == text


def test_the_interval_of_a_share_stays_within_0_to_1() -> None:
    wide = Interval(-0.17, 1.36)
    assert possible("accuracy", wide) == (0.0, 1.0)
    assert possible("accuracy", UNKNOWN) is UNKNOWN
    assert possible("loss", wide) is wide


def test_scores_equal_in_every_split_share_a_row() -> None:
    valid = {"loss": 0.7, "log_loss": 0.7, "accuracy": 0.5, "recall_macro": 0.5, "f1_macro": 0.5}
    test = {"loss": 0.6, "log_loss": 0.6 + 1e-9, "accuracy": 0.4, "recall_macro": 0.4, "f1_macro": 0.3}
    assert [(row.heading, row.texts) for row in score_rows([valid, test])] == [
        ("loss = log_loss", ("0.7000", "0.6000")),
        ("accuracy = recall_macro", ("50.0 %", "40.0 %")),
        ("f1_macro", ("50.0 %", "30.0 %")),
    ]


def test_a_share_and_another_score_of_the_same_value_stay_apart() -> None:
    assert [row.heading for row in score_rows([{"loss": 0.5, "accuracy": 0.5}])] == ["loss", "accuracy"]


def test_undefined_scores_and_those_of_one_split_keep_their_rows() -> None:
    rows = score_rows([{"a": math.nan, "b": math.nan, "c": 0.5}, {"d": 0.5}])
    assert [row.heading for row in rows] == ["a", "b", "c", "d"]
    assert rows[2].texts == ("0.5000", "")
