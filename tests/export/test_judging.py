"""What a difference between answers means where they are numbers: the unit of the targets changes no verdict."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from toolkit.api.contracts import DataSpec
from toolkit.export.judging import JUDGING, spread
from toolkit.training.evaluate import Answered
from toolkit_metrics.numbers import mae, r2
from toolkit_tasks.regression import regression

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
