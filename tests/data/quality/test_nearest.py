"""Nearest neighbours by an index."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from toolkit.data.quality import nearest as index
from toolkit.data.quality.nearest import nearest


def points(count: int, width: int = 24) -> NDArray[np.float32]:
    """Clusters, as the classes of a dataset."""
    draw = np.random.default_rng(0)
    centres = draw.normal(0, 2, (9, width))
    made: NDArray[np.float64] = centres[draw.integers(0, 9, count)] + draw.normal(0, 1, (count, width))
    return made.astype(np.float32)


def every_distance(of: NDArray[np.float32]) -> NDArray[np.float64]:
    distances: NDArray[np.float64] = np.linalg.norm(of[:, None].astype(float) - of[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    return distances


def test_few_points_have_their_exact_neighbours() -> None:
    given = points(200)
    found = nearest(given, 5)
    distances = every_distance(given)
    assert (found.items == np.argsort(distances, axis=1)[:, :5]).all()
    assert found.distances == pytest.approx(np.sort(distances, axis=1)[:, :5], rel=1e-3)


def test_an_index_finds_close_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "EXACT", 100)
    given = points(1500)
    found = nearest(np.concatenate([given, given[:150] + np.float32(0.05)]), 3)
    assert (found.items[1500:, 0] == np.arange(150)).mean() > 0.98
    assert found.distances[1500:, 0] == pytest.approx(np.full(150, 0.05 * 24**0.5), rel=0.05)


def test_cells_hold_each_point_once_and_are_compared_with_few_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "EXACT", 100)
    monkeypatch.setattr(index, "PROBED", 4)
    pools = list(index._pools(points(3000), 3, 0))
    assert sorted(np.concatenate([rows for rows, _ in pools]).tolist()) == list(range(3000))
    assert sum(len(rows) * len(pool) for rows, pool in pools) < 3000 * 3000 / 4
    assert all(len(pool) > 3 and set(rows) <= set(pool) for rows, pool in pools if len(rows))


def test_cells_of_few_points_are_compared_with_as_many_others_as_there_are_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(index, "EXACT", 10)
    monkeypatch.setattr(index, "PROBED", 1)
    found = nearest(points(60), 20)
    assert all(len({*row}) == 20 and place not in row for place, row in enumerate(found.items.tolist()))
    assert np.isfinite(found.distances).all()


def test_points_that_are_all_equal_are_at_distance_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "EXACT", 10)
    with pytest.warns(UserWarning, match="distinct clusters"):
        found = nearest(np.ones((50, 4), np.float32), 3)
    assert (found.distances == 0).all()
