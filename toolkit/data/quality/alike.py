"""Near duplicates in the space of a model's features: crops, other colours, another moment of the same scene, which
thumbnails do not show to be copies.

How close copies are depends on the model and on the data, so no distance is a limit. The distance of a pair is divided
by that to a further neighbour, as in the ratio test of Lowe ("Distinctive Image Features from Scale-Invariant
Keypoints", IJCV 2004). Pairs are copies where that ratio is far below what is usual in this dataset.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.data.quality.nearest import Neighbours, nearest
from toolkit.data.quality.outliers import FAR

FURTHER = 16
"""The neighbour whose distance is the scale of an item: one with as many copies has none by this measure."""
CLOSEST = 4
"""Neighbours of an item that may be its copies."""
FEWEST = 50
"""Items below which it is not known what ratio is usual."""


class Close(NamedTuple):
    """Two items whose features are nearly the same, the positions in ascending order."""

    first: int
    second: int
    closeness: float
    """1 less the ratio of their distance to the distances that are usual around them, 0 to 1."""


def near_in_features(features: NDArray[np.float32], compared: NDArray[np.bool_]) -> list[Close]:
    """The pairs of near duplicates among N items, the closest first.

    features: float32 `[N, D]`
    compared: bool `[N]`: the items to compare; those have finite features

    Features are standardised and brought to length 1.
    """
    items = np.flatnonzero(compared)
    if len(items) < FEWEST:
        return []
    ratios, neighbours = _ratios(nearest(_directions(features[items]), FURTHER))
    row, rank = np.nonzero(ratios < _least_usual(ratios))
    pairs = np.sort(np.stack([items[row], items[neighbours[row, rank]]], axis=1), axis=1)
    unique, first = np.unique(pairs, axis=0, return_index=True)
    found = [
        Close(int(one), int(other), 1 - float(ratio))
        for (one, other), ratio in zip(unique, ratios[row, rank][first], strict=True)
    ]
    return sorted(found, key=lambda pair: (-pair.closeness, pair))


def _directions(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 `[N, D]`, each of length 1; of a dimension in which all are equal nothing is left."""
    centred: NDArray[np.float32] = features - features.mean(axis=0)
    centred /= np.maximum(centred.std(axis=0), np.float32(1e-6))
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), np.float32(1e-6))
    return centred


def _ratios(found: Neighbours) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """float32 `[N, CLOSEST]`: the distance of each item to its closest neighbours, by the geometric mean of both
    scales; and these neighbours, int64 `[N, CLOSEST]`. Where many items are equal there is no scale: the ratio is 1."""
    neighbours, distances = found.items[:, :CLOSEST], found.distances[:, :CLOSEST]
    scales = found.distances[:, -1]
    both = np.sqrt(scales[:, None] * scales[neighbours])
    return np.divide(distances, both, out=np.ones_like(both), where=both > 0), neighbours


def _least_usual(ratios: NDArray[np.float32]) -> float:
    """The least ratio, of float32 `[N, CLOSEST]`, that is usual for the closest neighbours of items without copies.

    Copies may be many, and then hide what is usual. So the items that count first are those whose closest neighbour is
    no outlier among the second closest ones: these are copies only where an item has several.
    """
    closest = ratios[:, 0]
    without = closest[closest >= _outlying(ratios[:, 1])]
    return _outlying(without) if len(without) else 0.0


def _outlying(ratios: NDArray[np.float32]) -> float:
    """The ratio whose modified z-score, of logarithms, is -`FAR`. Copies are below the median, so the spread is that of
    the half above."""
    logs = np.log(np.maximum(ratios, np.float32(1e-6)))
    middle = np.median(logs)
    spread = np.median(logs[logs >= middle] - middle)
    return float(np.exp(middle - FAR * spread / 0.6745)) if spread > 0 else 0.0
