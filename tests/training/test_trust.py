"""Temperatures, thresholds and scores: each does what it promises on answers whose truth is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from toolkit.training.answers import averaged
from toolkit.training.evaluate import Answered
from toolkit.training.trust import (
    ROUNDING,
    TEMPERATURES,
    fewest_values,
    fit_temperature,
    log_loss,
    rank_of,
    separation,
    tempered,
    threshold_of,
    trust_scores,
)


def drawn(views: Tensor, temperature: float, average: str = "probabilities") -> Answered:
    """Answers of views `[N, V, C]`, with targets that are drawn as the views say once divided by the temperature."""
    honest = averaged((views / temperature).flatten(0, 1), "index", len(views), average)  # type: ignore[arg-type]
    targets = torch.multinomial(honest.softmax(1), 1, generator=torch.Generator().manual_seed(1)).flatten()
    logits = averaged(views.flatten(0, 1), "index", len(views), average)  # type: ignore[arg-type]
    return Answered(torch.arange(len(views)), logits, targets, views=views)


def views(count: int, each: int = 1) -> Tensor:
    return 3 * torch.randn(count, each, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
@pytest.mark.parametrize(("each", "average"), [(1, "probabilities"), (3, "probabilities"), (3, "logits")])
def test_the_temperature_that_answers_were_made_with_is_found(temperature: float, each: int, average: str) -> None:
    answered = drawn(views(4000, each), temperature, average)
    found = fit_temperature(answered, average)  # type: ignore[arg-type]
    assert found == pytest.approx(temperature, rel=0.08)
    assert log_loss(tempered(answered, found, average)) <= log_loss(answered) + 1e-6  # type: ignore[arg-type]


def test_answers_without_views_are_their_own_view() -> None:
    answered = drawn(views(2000), 2.0)
    alone = Answered(answered.index, answered.logits, answered.targets)
    assert fit_temperature(alone, "probabilities") == fit_temperature(answered, "probabilities")


def test_a_temperature_stays_within_its_range() -> None:
    """Of answers that are all right, the lower the better."""
    sure = views(50)
    answered = Answered(torch.arange(50), sure[:, 0], sure[:, 0].argmax(1))
    assert fit_temperature(answered, "probabilities") == pytest.approx(TEMPERATURES[0], rel=1e-3)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.37])
@pytest.mark.parametrize("count", [19, 40, 200])
def test_the_share_of_further_values_is_below_the_threshold(share: float, count: int) -> None:
    """Neither more, nor fewer by 1 / (count + 1)."""
    draw = torch.Generator().manual_seed(count)
    below = []
    for _ in range(4000):
        threshold = threshold_of(torch.rand(count, generator=draw), share)
        assert threshold is not None
        below.append(threshold)  # the share of uniform values that are below it
    noise = 4 * (share * (1 - share) / (count + 2) / len(below)) ** 0.5
    assert share - 1 / (count + 1) - ROUNDING - noise <= sum(below) / len(below) <= share + noise
    assert sum(below) / len(below) == pytest.approx(rank_of(count, share) / (count + 1) - ROUNDING / 2, abs=noise)


def test_a_share_is_counted_as_it_is_written() -> None:
    assert 0.29 * 100 < 29
    assert rank_of(99, 0.29) == 29
    assert fewest_values(0.05) == 19


def test_the_threshold_keeps_the_value_it_was_chosen_by_even_rounded() -> None:
    values = torch.tensor([0.9, 0.1, 0.5, 0.7])
    threshold = threshold_of(values, 0.4)
    assert threshold == pytest.approx(0.5 - ROUNDING, abs=1e-7)
    assert int((values < threshold).sum()) == 1
    assert threshold_of(values, 0.2) == pytest.approx(0.1 - ROUNDING, abs=1e-7)
    close = torch.tensor([0.5, 0.5 + ROUNDING, 0.7])
    assert threshold_of(close, 0.5) == pytest.approx(0.5 + ROUNDING / 2, abs=1e-7)


def test_values_that_repeat_are_kept_together() -> None:
    values = torch.tensor([0.1, 0.5, 0.5, 0.5])
    threshold = threshold_of(values, 0.6)
    assert threshold == 0.5
    assert int((values < threshold).sum()) == 1


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_too_few_values_have_no_threshold(share: float) -> None:
    fewest = fewest_values(share)
    assert threshold_of(torch.rand(fewest), share) is not None
    assert threshold_of(torch.rand(fewest - 1), share) is None


def test_scores_of_one_answer_are_those_of_its_definition() -> None:
    two = torch.tensor([[[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]]])
    mean = averaged(two[0], "index", 1, "probabilities")
    answered = Answered(torch.arange(1), mean, torch.zeros(1, dtype=torch.int64), views=two)
    energies = [math.log(sum(map(math.exp, view))) for view in two[0].tolist()]
    assert trust_scores(answered, "energy").tolist() == pytest.approx([sum(energies) / 2])
    assert trust_scores(answered, "confidence").tolist() == pytest.approx([float(two[0].softmax(1).mean(0).max())])


def test_separation_counts_pairs_and_unknown_items_below_the_known() -> None:
    known = torch.arange(100.0)
    found = separation(known, torch.tensor([-1.0, 3.0, 50.0, 200.0]))
    assert found["auroc"] == pytest.approx((100 + 96.5 + 49.5) / 400)
    assert found["declined"] == 0.5
    assert separation(known, known)["auroc"] == 0.5
