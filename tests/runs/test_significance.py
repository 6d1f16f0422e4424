"""Tests and intervals: against known values, and against chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from toolkit.runs.significance import (
    SIGNIFICANT,
    UNKNOWN,
    below_rest,
    bootstrap,
    holm,
    mcnemar,
    mean_interval,
    over_runs,
    sign_flip,
    welch,
    wilson_interval,
)


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (1, 0), (3, 9), (9, 3), (5, 5), (40, 70), (6000, 6400)])
def test_mcnemar_is_the_binomial_test(worse: int, better: int) -> None:
    wanted = stats.binomtest(worse, worse + better, 0.5).pvalue if worse + better else 1.0
    assert mcnemar(worse, better) == pytest.approx(wanted, rel=1e-9)


def names(count: int) -> list[str]:
    return [f"item {place}" for place in range(count)]


def test_sign_flip_of_few_items_counts_every_way_to_sign_them() -> None:
    """Of 2 ** 5 ways, the two with all signs alike are as far from 0."""
    assert sign_flip([1.0, 2.0, 3.0, 4.0, 5.0], names(5)) == pytest.approx(2 / 32)
    assert sign_flip([0.0, 0.0], names(2)) == 1.0
    assert sign_flip([], []) == 1.0


def test_items_of_one_source_count_once() -> None:
    """Ten items in favour are no evidence where all come from one video."""
    changes = [1.0] * 10
    assert sign_flip(changes, names(10)) < 0.01
    assert sign_flip(changes, ["one"] * 10) == 1.0
    assert sign_flip(changes, ["one"] * 5 + ["two"] * 5) == pytest.approx(0.5)


def test_the_bootstrap_of_a_share_is_close_to_its_normal_interval() -> None:
    values = [1.0] * 300 + [0.0] * 100
    low, high = bootstrap(values, names(400))
    error = math.sqrt(0.75 * 0.25 / 400)
    assert (low, high) == pytest.approx((0.75 - 1.96 * error, 0.75 + 1.96 * error), abs=0.005)


def test_the_bootstrap_draws_items_of_one_source_together() -> None:
    draw = np.random.default_rng(1)
    videos = np.repeat(draw.integers(0, 2, 40), 10).astype(float)
    alone = bootstrap(videos.tolist(), names(400))
    together = bootstrap(videos.tolist(), [f"video {place // 10}" for place in range(400)])
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_one_item_has_no_interval(values: Sequence[float]) -> None:
    assert all(map(math.isnan, bootstrap(values, names(len(values)))))


def test_the_interval_over_runs_is_students() -> None:
    low, high = over_runs([0.80, 0.82, 0.84])
    assert (low, high) == pytest.approx(
        (0.82 - 4.3027 * 0.02 / math.sqrt(3), 0.82 + 4.3027 * 0.02 / math.sqrt(3)), rel=1e-4
    )
    assert all(map(math.isnan, over_runs([0.8])))
    assert all(map(math.isnan, over_runs([0.8, math.nan])))


def test_welch_compares_runs_of_unlike_spread() -> None:
    first, second = [0.80, 0.81, 0.82], [0.90, 0.95, 0.85]
    found = welch(first, second)
    assert found.p_value == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue)
    assert found.interval.low < 0.09 < found.interval.high


def test_welch_of_runs_without_spread() -> None:
    assert welch([0.8, 0.8], [0.8, 0.8]).p_value == 1
    assert welch([0.8, 0.8], [0.9, 0.9]).p_value == 0


def test_holm_multiplies_the_smallest_by_the_count_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_two_hundred_comparisons_of_equals_call_a_difference_in_at_most_seven_percent() -> None:
    """Answers of one model, resampled: each item is as likely to flip one way as the other."""
    draw = np.random.default_rng(0)
    single = repeated = sourced = 0
    for _ in range(200):
        flips = draw.integers(0, 2, 120)
        single += mcnemar(int(flips.sum()), int((1 - flips).sum())) < SIGNIFICANT
        first, second = draw.normal(0.8, 0.01, (2, 3))
        repeated += welch(first.tolist(), second.tolist()).p_value < SIGNIFICANT
        by_video = np.repeat(draw.choice([-1.0, 1.0], 9), 5)
        sources = [f"video {place // 5}" for place in range(45)]
        sourced += sign_flip(by_video.tolist(), sources) < SIGNIFICANT
    assert max(single, repeated, sourced) <= 14


def test_a_part_of_items_that_stand_alone_has_the_exact_test_of_fisher() -> None:
    right = np.array([1.0] * 3 + [0.0] * 7 + [1.0] * 40 + [0.0] * 10)
    inside = np.arange(60) < 10
    wanted = stats.fisher_exact([[3, 7], [40, 10]], alternative="less").pvalue
    assert below_rest(right, inside, names(60), shares=True) == pytest.approx(wanted)
    assert below_rest(1 - right, inside, names(60), shares=True) > 0.99


def test_few_sources_inside_a_part_prove_little() -> None:
    right = np.array([0.0] * 20 + [1.0] * 180)
    inside = np.arange(200) < 20
    p_values = [
        below_rest(right, inside, [str(place // each) for place in range(200)], shares=True) for each in (1, 2, 10, 20)
    ]
    assert p_values == sorted(p_values)
    assert p_values[1] < 0.01
    assert p_values[3] > SIGNIFICANT


def test_numbers_that_are_all_equal_are_not_below() -> None:
    assert below_rest([2.0] * 20, np.arange(20) < 10, names(20), shares=False) == 1.0


def test_the_interval_of_a_share_is_that_of_wilson_and_wider_by_sources() -> None:
    right = [float(place % 10 < 7) for place in range(200)]
    alone = mean_interval(right, names(200), shares=True)
    assert alone == wilson_interval(0.7, 200)
    sorted_right = sorted(right)
    together = mean_interval(sorted_right, [str(place // 10) for place in range(200)], shares=True)
    assert together.low < alone.low < 0.7 < alone.high < together.high
    assert mean_interval(right, ["one"] * 200, shares=True) is UNKNOWN


@pytest.mark.parametrize("shares", [False, True])
def test_the_interval_of_a_mean_covers_the_truth_in_about_95_percent(shares: bool) -> None:
    draw, covered = np.random.default_rng(0), 0
    for _ in range(400):
        level = np.repeat(draw.normal(0, 0.6, 30), 5)
        values = (draw.normal(size=150) + level < 0.5).astype(float) if shares else level + draw.normal(size=150)
        truth = stats.norm.cdf(0.5 / math.sqrt(1.36)) if shares else 0.0
        low, high = mean_interval(values, [str(place // 5) for place in range(150)], shares=shares)
        covered += low <= truth <= high
    assert 0.92 * 400 <= covered <= 0.98 * 400
