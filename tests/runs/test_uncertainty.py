"""Intervals and baselines of scores: against what is known of accuracy, and against chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tests.small import Accuracy
from toolkit.runs.scores import Certainty, interval_text
from toolkit.runs.significance import jackknife
from toolkit.runs.uncertainty import BLOCKS, Uncertainty, uncertain_scores, uncertainty
from toolkit.training.evaluate import Answered, Evaluation
from toolkit_tasks.classification import Classification

OBJECTIVE = Classification(0.0, None)


def evaluated(right: Tensor, targets: Tensor) -> Evaluation:
    """Answers that are right where `right` says so."""
    said = torch.where(right, targets, 1 - targets)
    logits = 4.0 * torch.nn.functional.one_hot(said, 2).float()
    return Answered(torch.arange(len(targets)), logits, targets).scored(OBJECTIVE, [Accuracy()])


def of(right: Tensor, sources: Sequence[str] | None = None, trained: Sequence[int] = (0, 0, 0, 1)) -> Uncertainty:
    targets = torch.arange(len(right)) % 2
    names = sources or [f"item {place}" for place in range(len(right))]
    return uncertainty(evaluated(right, targets), names, trained, OBJECTIVE, lambda: [Accuracy()])


def test_the_interval_of_accuracy_is_about_as_wide_as_the_binomial_says() -> None:
    draw = torch.Generator().manual_seed(0)
    widths = []
    for _ in range(10):
        right = torch.rand(500, generator=draw) < 0.8
        low, high = of(right).interval("accuracy", right.float().mean().item())
        assert low < right.float().mean().item() < high
        widths.append(high - low)
    wanted = 2 * 2.09 * math.sqrt(0.8 * 0.2 / 500)
    assert sum(widths) / len(widths) == pytest.approx(wanted, rel=0.2)


def test_the_interval_covers_the_truth_in_about_95_percent() -> None:
    draw = torch.Generator().manual_seed(1)
    covered = 0
    for _ in range(60):
        right = torch.rand(200, generator=draw) < 0.7
        low, high = of(right).interval("accuracy", right.float().mean().item())
        covered += low <= 0.7 <= high
    assert 52 <= covered <= 60


def test_items_of_one_source_are_removed_together() -> None:
    right = (torch.rand(40, generator=torch.Generator().manual_seed(2)) < 0.5).repeat_interleave(10)
    alone = of(right).interval("accuracy", 0.5)
    together = of(right, [f"video {place // 10}" for place in range(400)]).interval("accuracy", 0.5)
    assert together.high - together.low > 1.8 * (alone.high - alone.low)


def test_blocks_follow_from_the_names_alone() -> None:
    right = torch.rand(60, generator=torch.Generator().manual_seed(3)) < 0.6
    first = of(right).replicates["accuracy"]
    assert len(first) == BLOCKS
    assert of(right).replicates["accuracy"] == first


@pytest.mark.parametrize("sources", [["one"] * 6, ["one"] * 3 + ["two"] * 3])
def test_few_sources_give_few_blocks(sources: list[str]) -> None:
    found = of(torch.ones(6, dtype=torch.bool), sources)
    assert len(found.replicates.get("accuracy", ())) == (len({*sources}) if len({*sources}) > 1 else 0)


def test_a_share_stays_within_0_and_1() -> None:
    right = torch.ones(30, dtype=torch.bool)
    right[0] = False
    assert of(right).interval("accuracy", 29 / 30).high <= 1.0


@pytest.mark.parametrize("answer", [False, True])
def test_a_share_of_all_items_or_of_none_is_not_certain(answer: bool) -> None:
    right = torch.full((30,), answer)
    low, high = of(right).interval("accuracy", float(answer))
    assert high - low == pytest.approx(0.1135, abs=1e-3)  # Wilson's
    assert (high if answer else low) == pytest.approx(float(answer))
    videos = of(right, [f"video {place // 10}" for place in range(30)]).interval("accuracy", float(answer))
    assert videos.high - videos.low > 0.5


def test_baselines_look_at_no_item() -> None:
    found = of(torch.ones(400, dtype=torch.bool)).baselines
    assert found["majority"]["accuracy"] == 0.5
    assert found["majority"]["loss"] == pytest.approx(-0.5 * (math.log(0.75) + math.log(0.25)), rel=1e-4)
    assert found["chance"]["accuracy"] == pytest.approx(0.5, abs=0.06)
    assert found["chance"]["loss"] == pytest.approx(math.log(2), rel=1e-3)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = [float(place % 7) for place in range(20)]
    mean = sum(values) / 20
    found = jackknife(mean, [(sum(values) - value) / 19 for value in values])
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / 19 / 20)
    assert found.interval.high - mean == pytest.approx(2.093 * error, rel=1e-3)
    assert math.isnan(jackknife(0.5, []).p_value)
    assert jackknife(0.0, [0.0, 0.0]).p_value == 1
    assert jackknife(0.1, [0.1, 0.1]).p_value == 0


def test_nothing_scored_has_no_intervals() -> None:
    assert uncertain_scores({}, None, OBJECTIVE, list) == {}  # type: ignore[arg-type]
    assert Certainty.of({}, "test").headings == []


def test_an_interval_as_text() -> None:
    assert interval_text("accuracy", 0.5, 0.625) == "50.0 to 62.5 %"
    assert interval_text("loss", 0.5, 0.625) == "0.5000 to 0.6250"
    assert interval_text("loss", math.nan, math.nan) == ""
