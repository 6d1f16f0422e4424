"""Components of numbers that break a rule, and which rule finds them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tests.broken_components import data, drawn
from toolkit.api.contracts import Augmentation, Batch, Data, DataSpec, Draws, Scores
from toolkit.kit.testing import Case, examine
from toolkit_metrics.numbers import OfNumbers, mae
from toolkit_tasks.regression import Regression, regression

NUMBERS = DataSpec(("age", "height"), size=8, targets="number")
BROKEN: list[tuple[str, str, Callable[..., Any]]] = []


def breaks(kind: str, rule: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def marked(factory: Callable[..., Any]) -> Callable[..., Any]:
        BROKEN.append((kind, rule, factory))
        return factory

    return marked


class Scaled(Regression):
    """Forgets that answers have the unit of the targets."""

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        return super().score(logits, (targets - self.mean) / self.spread)


@breaks("task", "right")
def task_whose_score_is_in_another_unit(spec: DataSpec, *, targets: Any = ()) -> Regression:
    """Standardised."""
    known = regression(spec, targets=targets)
    return Scaled(known.mean, known.spread, "mse", 1.0)


class Moving(Regression):
    def settle(self, logits: Tensor, targets: Tensor) -> None:
        self.mean.copy_(targets.mean(0))


@breaks("task", "settle")
def task_whose_unit_moves_when_it_validates(spec: DataSpec, *, targets: Any = ()) -> Regression:
    """Standardised."""
    known = regression(spec, targets=targets)
    return Moving(known.mean, known.spread, "mse", 1.0)


class Thresholded(Regression):
    thresholds: Any = torch.tensor([0.5, 0.5])


@breaks("task", "thresholds")
def task_of_numbers_with_thresholds(spec: DataSpec) -> Regression:
    """Not standardised."""
    return Thresholded(torch.zeros(2), torch.ones(2), "l1", 1.0)


class Doubled(OfNumbers):
    def compute(self) -> Scores:
        return {"mae": 2 * cast(float, super().compute()["mae"])}


@breaks("metric", "reference")
def metric_of_another_name(spec: DataSpec) -> OfNumbers:
    """`mae`: twice."""
    known = mae(spec)
    return Doubled("mae", spec, known._score)


@breaks("augmentation", "targets")
def augmentation_that_divides_by_the_target(spec: DataSpec) -> Augmentation:
    """Nothing is left of 0."""

    def changed(batch: Batch, draws: Draws) -> Batch:
        smallest = batch.targets.abs().amin()
        return replace(batch, targets=batch.targets / (batch.targets.abs() - smallest))

    return changed


def numbered(split: Any, values: Callable[[int], Any]) -> Any:
    return replace(split, targets=tuple(values(place) for place in range(len(split))))


def numbers(train: Callable[[int], Any], others: Callable[[int], Any]) -> Data:
    made = [numbered(drawn(name, first), values) for name, first, values in (
        ("train", 0, train), ("valid", 64, others), ("test", 128, others)
    )]  # fmt: skip
    return data(*made, spec=replace(NUMBERS, sample=True))


@breaks("dataset", "items")
def dataset_with_a_number_missing(root: Path | None) -> Data:
    """Noise."""
    return numbers(lambda place: (float(place), math.nan if place == 3 else 1.0), lambda place: (float(place), 1.0))


@breaks("dataset", "balance")
def dataset_whose_test_is_of_large_numbers(root: Path | None) -> Data:
    """Noise."""
    return numbers(lambda place: (float(place), 1.0), lambda place: (float(place + 32), 1.0))


@pytest.mark.parametrize(("kind", "rule", "factory"), BROKEN, ids=lambda one: getattr(one, "__name__", str(one)))
def test_the_rule_finds_it(kind: Any, rule: str, factory: Callable[..., Any], tmp_path: Path) -> None:
    spec = None if kind == "dataset" else NUMBERS
    (finding,) = examine(Case(kind, factory, spec=spec), only=[rule])
    assert finding.what, finding.skipped


@pytest.mark.parametrize(("kind", "name"), [("task", "regression"), ("metric", "mae")])
def test_a_case_need_not_say_that_targets_are_numbers(kind: Any, name: str) -> None:
    (finding,) = examine(Case(kind, name), only=["right" if kind == "task" else "reference"])
    assert (finding.what, finding.skipped) == (None, None)
