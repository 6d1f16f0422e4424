"""Numbers that are far from the others."""

from __future__ import annotations

import numpy as np

from toolkit.data.quality.outliers import outliers


def test_numbers_far_from_the_median_are_found_with_their_side() -> None:
    values = np.random.default_rng(0).normal(10, 1, 2000)
    values[[3, 5]] = 30, -10
    scores = outliers(values)
    assert np.flatnonzero(scores).tolist() == [3, 5]
    assert scores[3] > 15
    assert scores[5] < -15


def test_the_unit_is_the_standard_deviation() -> None:
    values = np.random.default_rng(0).normal(0, 3, 100_000)
    values[0] = 60
    assert abs(outliers(values)[0] - 20) < 0.3


def test_of_equal_numbers_those_that_are_rare_are_found() -> None:
    values = np.full(1000, 32.0)
    values[7] = 64
    assert outliers(values)[7] == np.inf
    values[:20] = 64
    assert not outliers(values).any()


def test_what_is_close_is_no_outlier_however_close_the_others_are() -> None:
    values = np.random.default_rng(0).normal(0, 0.001, 1000)
    values[0] = 0.5
    assert outliers(values)[0] > 100
    assert not outliers(values, least=1.0).any()


def test_what_is_unknown_is_not_far() -> None:
    assert not outliers(np.array([np.nan, np.nan])).any()
    assert not outliers(np.array([])).any()
    values = np.append(np.random.default_rng(0).normal(0, 1, 100), [np.nan, 99])
    assert np.flatnonzero(outliers(values)).tolist() == [101]
