"""Items in the space of a model's features: fewer dimensions, distances from classes, and near items."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDTH = 1024
"""Dimensions of features that are kept: the directions of most variation."""
SAMPLE = 20_000
"""Items that directions and covariances are estimated from."""
_ROWS = 8192


def reduced(features: NDArray[np.float32], *, seed: int = 0) -> NDArray[np.float32]:
    """float32 `[N, D']` with D' at most `WIDTH`: features `[N, D]` along their principal components, unscaled."""
    if features.shape[1] <= WIDTH or len(features) <= WIDTH:
        return features
    from sklearn.decomposition import PCA

    chosen = np.random.default_rng(seed).permutation(len(features))[:SAMPLE]
    fitted = PCA(WIDTH, svd_solver="randomized", random_state=seed).fit(features[np.sort(chosen)])
    parts = np.split(features, range(_ROWS, len(features), _ROWS))
    return np.concatenate([fitted.transform(part).astype(np.float32) for part in parts])


def distances(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """float64 `[N]`: the Mahalanobis distance of each item from the nearest class mean, with one covariance for all
    classes (Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples", NeurIPS 2018).

    features: float32 `[N, D]`
    labels: int64 `[N]`; a class without items has no mean
    """
    known = np.unique(labels[(labels >= 0) & (labels < classes)])
    means = np.stack([features[labels == label].mean(axis=0) for label in known]).astype(np.float64)
    whitener = _whitener(features, means[np.searchsorted(known, labels)])
    centres = means @ whitener
    found = np.empty(len(features))
    for rows in np.split(np.arange(len(features)), range(_ROWS, len(features), _ROWS)):
        points = features[rows] @ whitener
        squared = (points**2).sum(axis=1)[:, None] - 2 * points @ centres.T + (centres**2).sum(axis=1)
        found[rows] = np.sqrt(np.maximum(squared.min(axis=1), 0))
    return found


def _whitener(features: NDArray[np.float32], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 `[D, D]`: maps residuals to unit covariance; the covariance is shrunk as Ledoit and Wolf (2004) do."""
    from sklearn.covariance import ledoit_wolf

    step = max(len(features) // SAMPLE, 1)
    covariance, _ = ledoit_wolf(features[::step] - means[::step], assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    whitener: NDArray[np.float64] = vectors / np.sqrt(np.maximum(values, 1e-9 * values.max()))
    return whitener
