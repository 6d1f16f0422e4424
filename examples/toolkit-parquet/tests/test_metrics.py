"""The metrics by the toolkit's rules, and against scikit-learn where those do not ask it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn import metrics
from toolkit.api.contracts import DataSpec
from toolkit.kit.testing import Case, conformance
from torch import Tensor

from toolkit_parquet.metrics import Gathered, auroc, cohen_kappa, matthews_corrcoef

SPEC = DataSpec(("a", "b", "c", "d"), size=32)

test_components = conformance(
    Case("metric", "toolkit-parquet:cohen_kappa"),
    Case("metric", "toolkit-parquet:matthews_corrcoef"),
    Case("metric", "toolkit-parquet:auroc"),
)


def answers() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 4, (200,), generator=rng)
    return torch.randn(200, 4, generator=rng) + torch.eye(4)[targets], targets


@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
def test_kappa_of_classes_in_order_is_that_of_scikit_learn(weights: str | None) -> None:
    logits, targets = answers()
    metric = cohen_kappa(SPEC, weights=weights)  # type: ignore[arg-type]
    metric.update(logits, targets)
    expected = metrics.cohen_kappa_score(targets, logits.argmax(dim=1), weights=weights)
    assert metric.compute()["cohen_kappa"] == pytest.approx(expected, abs=1e-6)


def test_auroc_is_that_of_scikit_learn() -> None:
    logits, targets = answers()
    metric = auroc(SPEC)
    metric.update(logits, targets)
    probabilities = logits.softmax(dim=1)
    expected = [metrics.roc_auc_score(targets == target, probabilities[:, target]) for target in range(4)]
    found = metric.compute()
    assert found["auroc_per_class"] == pytest.approx(expected, abs=1e-6)
    assert found["auroc_macro"] == pytest.approx(sum(expected) / 4, abs=1e-6)


def test_a_class_that_is_absent_does_not_count() -> None:
    logits, targets = answers()
    metric = auroc(SPEC)
    metric.update(logits[targets != 3], targets[targets != 3])
    found: Any = metric.compute()
    per_class = found["auroc_per_class"]
    assert [math.isnan(score) for score in per_class] == [False, False, False, True]
    assert found["auroc_macro"] == pytest.approx(sum(per_class[:3]) / 3)


@pytest.mark.parametrize("factory", [auroc, cohen_kappa, matthews_corrcoef])
def test_a_single_class_is_refused(factory: Callable[[DataSpec], Gathered]) -> None:
    with pytest.raises(ValueError, match=r": needs at least 2 classes, the data has 1$"):
        factory(DataSpec(("only",), size=32))
