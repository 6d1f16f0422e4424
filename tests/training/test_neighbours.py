"""Answers of neighbours, and the spread that shows a collapse, against plain references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from toolkit.api.contracts import TargetForm
from toolkit.training import neighbours
from toolkit.training.answers import answers_of
from toolkit.training.neighbours import neighbours_logits, spread_of

ITEMS = 40
FEATURES = torch.randn(ITEMS, 6, generator=torch.Generator().manual_seed(3))
NUMBER = torch.randint(0, 3, (ITEMS,), generator=torch.Generator().manual_seed(4))


def plain_votes(shares: np.ndarray, prior: bool) -> np.ndarray:
    """Item by item, with NumPy alone."""
    directions = FEATURES.numpy() / np.linalg.norm(FEATURES.numpy(), axis=1, keepdims=True)
    found = []
    for item in range(ITEMS):
        others = [other for other in range(ITEMS) if other != item]
        similar = {other: float(directions[item] @ directions[other]) for other in others}
        nearest = sorted(others, key=lambda other: -similar[other])[: neighbours.NEIGHBOURS]
        weights = np.exp([similar[other] / neighbours.TEMPERATURE for other in nearest])
        votes = (weights[:, None] * shares[nearest]).sum(0) / weights.sum()
        found.append((20 * votes + shares.mean(0)) / 21 if prior else votes)
    return np.array(found)


@pytest.mark.parametrize("form", ["index", "set", "number"])
def test_an_item_is_answered_by_the_others_that_are_most_similar(
    form: TargetForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "ROWS", 7)
    one_hot = torch.eye(3)[NUMBER]
    targets = {"index": NUMBER, "set": (one_hot + one_hot.roll(1, 0)).clamp(max=1), "number": one_hot * 7 - 2}[form]
    logits = neighbours_logits(FEATURES, targets, form, 3)
    shares = (one_hot if form == "index" else targets).numpy()
    expected = plain_votes(shares, prior=form != "number")
    torch.testing.assert_close(answers_of(logits, form), torch.from_numpy(expected).float(), atol=1e-4, rtol=1e-4)
    assert logits.isfinite().all()


def test_one_item_has_no_neighbour() -> None:
    assert neighbours_logits(FEATURES[:1], NUMBER[:1], "index", 3).tolist() == [[0.0, 0.0, 0.0]]


class Projecting(nn.Module):
    targets: TargetForm = "index"
    classes = 3

    def __init__(self, direction: Tensor | None = None) -> None:
        super().__init__()
        self.direction = direction

    def projected(self, features: Tensor) -> Tensor:
        return features if self.direction is None else features[:, :1].abs() * self.direction


def test_the_spread_is_1_of_even_directions_and_0_of_one() -> None:
    even = torch.randn(5000, 32, generator=torch.Generator().manual_seed(5))
    assert spread_of(Projecting(), even, torch.device("cpu")) == pytest.approx(1, abs=0.01)
    collapsed = Projecting(torch.randn(32, generator=torch.Generator().manual_seed(6)))
    assert spread_of(collapsed, even, torch.device("cpu")) == pytest.approx(0, abs=1e-3)
    assert math.isnan(spread_of(Projecting(), even[:1], torch.device("cpu")))
