"""What a difference between answers means where they are numbers: the unit of the targets changes no verdict."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import binomtest

from toolkit.api.contracts import DataSpec
from toolkit.export.judging import JUDGING, Asked, Paired, spread
from toolkit.training.evaluate import Answered
from toolkit_metrics.numbers import mae, r2
from toolkit_tasks.regression import regression


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (1, 0), (5, 0), (6, 0), (10, 6), (3, 12), (7, 7), (900, 700)])
def test_the_p_value_is_that_of_the_exact_binomial_test(worse: int, better: int) -> None:
    wanted = binomtest(worse, worse + better).pvalue if worse + better else 1.0
    assert Paired(worse, better).p_value == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    ("worse", "better", "significant"), [(5, 0, False), (6, 0, True), (0, 6, False), (9, 1, True), (0, 0, True)]
)
def test_more_must_be_worse_than_chance_makes(worse: int, better: int, significant: bool) -> None:
    """Where no item is worse or better, there is no chance: a limit alone decides."""
    assert Paired(worse, better).significant is significant


NUMBERS = JUDGING["number"]
SPEC = DataSpec(("age",), 8, targets="number")


def assembly(unit: float, metric: str = "mae") -> Any:
    targets = [(unit * value,) for value in (0.0, 1.0, 2.0, 3.0)]
    return SimpleNamespace(
        spec=SPEC,
        data=SimpleNamespace(train=SimpleNamespace(targets=targets)),
        recipe=SimpleNamespace(train=SimpleNamespace(metric=metric)),
        objective=regression(SPEC, targets=targets),
        metrics=lambda: [mae(SPEC), r2(SPEC)],
    )


def answered(unit: float, error: float) -> Answered:
    targets = unit * torch.tensor([[0.0], [2.0], [4.0]])
    return Answered(torch.arange(3), targets + unit * error, targets)


def hundredths(unit: float, error: float, metric: str) -> float:
    made, given = assembly(unit, metric), answered(unit, error)
    scores = given.scored(made.objective, made.metrics()).scalars()
    return NUMBERS.hundredths(given, scores, made)


@pytest.mark.parametrize("metric", ["mae", "r2", "loss"])
def test_the_unit_changes_no_verdict(metric: str) -> None:
    found = [hundredths(unit, 0.25, metric) for unit in (1.0, 1e-3, 1e5)]
    assert found[1:] == pytest.approx([found[0]] * 2, rel=1e-4)


def test_an_error_counts_in_hundredths_of_the_spread() -> None:
    assert spread(assembly(10.0)).tolist() == pytest.approx([10 * 1.25**0.5])
    assert hundredths(10.0, 0.5, "mae") == pytest.approx(100 * 0.5 / 1.25**0.5)
    assert hundredths(10.0, 0.0, "r2") == pytest.approx(100.0)


def test_a_difference_counts_in_spreads() -> None:
    made = assembly(10.0)
    found = NUMBERS.difference(torch.tensor([[1.0], [5.0]]), torch.tensor([[2.0], [5.0]]), made)
    assert found == pytest.approx(0.1 / 1.25**0.5)
    assert NUMBERS.difference(torch.tensor([[1.0]]), torch.tensor([[float("nan")]]), made) != found


def test_an_output_that_never_changes_has_a_spread_of_one() -> None:
    made = assembly(0.0)
    assert spread(made).tolist() == [1.0]


def test_numbers_are_paired_by_their_errors() -> None:
    given = answered(10.0, 0.5)
    evaluation = given.scored(assembly(10.0).objective, [])
    answers = given.targets + torch.tensor([[6.0], [-4.0], [5.0]])
    asked = Asked(evaluation, answers, None, assembly(10.0), ["a", "b", "c"], 0.0)
    assert NUMBERS.paired(asked, []) == Paired(worse=1, better=1)


@pytest.mark.parametrize(
    ("form", "targets"),
    [("index", torch.tensor([0, 1, 1])), ("set", torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))],
)
def test_the_loss_is_paired_by_probabilities(form: Any, targets: torch.Tensor) -> None:
    before, after = ([[0.9, 0.1], [0.3, 0.7], [0.4, 0.6]], [[0.8, 0.2], [0.3, 0.7], [0.2, 0.8]])
    evaluation = SimpleNamespace(answers=torch.tensor(before), targets=targets)
    asked = Asked(evaluation, torch.tensor(after), None, assembly(1.0, "loss"), ["a", "b", "c"], 0.0)  # type: ignore[arg-type]
    assert JUDGING[form].paired(asked, []) == Paired(worse=1, better=1)
