"""Near duplicates by features."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from toolkit.data.quality.alike import FEWEST, FURTHER, near_in_features

COUNT, WIDTH = 600, 48


def seen(count: int = COUNT, seed: int = 0) -> NDArray[np.float32]:
    """Features of six classes; some dimensions vary a hundred times as much as others, one not at all."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(0, 1.5, (6, WIDTH))
    features: NDArray[np.float64] = centres[draw.integers(0, 6, count)] + draw.normal(0, 1, (count, WIDTH))
    features *= np.geomspace(0.1, 10, WIDTH)
    features[:, 0] = 3
    return features.astype(np.float32)


def changed(features: NDArray[np.float32], by: float) -> NDArray[np.float32]:
    """Features of copies that differ in each dimension by this share of what is usual there."""
    noise = np.random.default_rng(1).normal(0, by, features.shape)
    made: NDArray[np.float64] = features + noise * features.std(axis=0)
    return made.astype(np.float32)


@pytest.mark.parametrize("by", [0.0, 0.05, 0.3])
def test_copies_are_found_and_few_others(by: float) -> None:
    features = seen()
    whole = np.concatenate([features, changed(features, by)[:60]])
    pairs = near_in_features(whole, np.ones(len(whole), bool))
    found = {(pair.first, pair.second) for pair in pairs}
    true = {(number, COUNT + number) for number in range(60)}
    assert len(found & true) >= 58
    assert len(found - true) <= 1
    assert [pair.closeness for pair in pairs] == sorted((pair.closeness for pair in pairs), reverse=True)
    assert all(0 < pair.closeness <= 1 for pair in pairs)


def test_without_copies_nothing_is_found() -> None:
    """Not the closest pairs, which every dataset has."""
    assert len(near_in_features(seen(), np.ones(COUNT, bool))) <= 1


def test_many_copies_do_not_hide_each_other() -> None:
    """Two thirds of the items have a copy, and one has three."""
    features = seen()
    copies = np.concatenate([changed(features, 0.1)[:400], changed(features[[0, 0]], 0.05)])
    pairs = near_in_features(np.concatenate([features, copies]), np.ones(COUNT + 402, bool))
    found = {(pair.first, pair.second) for pair in pairs}
    assert sum((number, COUNT + number) in found for number in range(400)) >= 390
    assert {(0, COUNT), (0, COUNT + 400), (0, COUNT + 401)} <= found
    assert len(found) <= 406


def test_what_is_not_to_be_compared_is_not() -> None:
    features = np.concatenate([seen(), seen()[:10], np.full((1, WIDTH), np.nan, np.float32)])
    compared = np.arange(len(features)) < COUNT + 4
    found = {(pair.first, pair.second) for pair in near_in_features(features, compared)}
    assert {(number, COUNT + number) for number in range(4)} <= found
    assert all(second < COUNT + 4 for _, second in found)


def test_of_few_items_it_is_not_known_what_is_usual() -> None:
    few = np.concatenate([seen(FEWEST - 2), seen(1)])
    assert near_in_features(few, np.ones(FEWEST - 1, bool)) == []


def test_features_that_are_all_equal_say_nothing() -> None:
    """As of a network that answers with zeros, whatever it sees."""
    assert near_in_features(np.ones((100, 4), np.float32), np.ones(100, bool)) == []


def test_an_item_with_more_copies_than_its_scale_reaches_has_no_pair() -> None:
    features = seen()
    copies = np.repeat(features[:1], FURTHER + 1, axis=0)
    pairs = near_in_features(np.concatenate([features, copies]), np.ones(COUNT + len(copies), bool))
    assert not [pair for pair in pairs if pair.first == 0]
