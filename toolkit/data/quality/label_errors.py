"""Labels that are likely wrong, by confident learning: Northcutt, Jiang and Chuang, "Confident Learning: Estimating
Uncertainty in Dataset Labels", JAIR 70 (2021). This is our own code; arrays and names follow the paper.

The paper's package cleanlab is not used: of it a page of arithmetic would be needed here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FOLDS = 5
"""Parts of the data, each of which gets the probabilities of a model that has not seen it."""
MARGIN = 0.5
"""How much more probable than its label another class must be before a label is flagged. The paper has no such limit;
without it a weak model flags a third of all labels."""
_STRENGTH = 1.0
"""Of the logistic regression, for one dimension: with D of them it is D times as strict."""


@dataclass(frozen=True)
class Likely:
    """How likely the labels of N items are wrong."""

    scores: NDArray[np.float64]
    """float64 `[N]`, 0 to 1: 1 less the probability of the label."""
    flagged: NDArray[np.bool_]
    """bool `[N]`: whether the label is likely wrong."""
    suggested: NDArray[np.int64]
    """int64 `[N]`: the likeliest class."""
    joint: NDArray[np.float64]
    """float64 `[C, C]`: estimated share of the items with the label of the row whose true class is that of the column;
    the whole has the sum 1."""


def out_of_fold(
    features: NDArray[np.float32], labels: NDArray[np.int64], groups: NDArray[np.int64], classes: int, *, seed: int = 0
) -> NDArray[np.float64]:
    """float64 `[N, classes]`: class probabilities of each item, by a logistic regression on the items of other folds.

    features: float32 `[N, D]`
    labels: int64 `[N]`, class indices
    groups: int64 `[N]`: items of one group are in one fold, since copies of an item know its label

    Features are standardised. A class that no other fold has gets the probability 0.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    probabilities = np.zeros((len(labels), classes))
    folds = _folds(labels, groups, seed)
    for fold in range(FOLDS):
        held, others = folds == fold, folds != fold
        known = np.unique(labels[others])
        if not held.any():
            continue
        if len(known) == 1:
            probabilities[np.ix_(held, known)] = 1
            continue
        scaler = StandardScaler().fit(features[others])
        model = LogisticRegression(C=_STRENGTH / features.shape[1], max_iter=200, tol=1e-3)
        model.fit(scaler.transform(features[others]), labels[others])
        probabilities[np.ix_(held, known)] = model.predict_proba(scaler.transform(features[held]))
    return probabilities


def _folds(labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """int64 `[N]`: groups dealt to folds in a random order, class by class, so that folds have alike classes."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    dealt = order[np.argsort(labels[first][order], kind="stable")]
    fold = np.empty(len(first), np.int64)
    fold[dealt] = np.arange(len(first)) % FOLDS
    return fold[group]


def likely_errors(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> Likely:
    """Judge the labels, int64 `[N]`, of N items by class probabilities float64 `[N, C]` that do not come from them.

    An item counts for the class that reaches that class's threshold, its mean probability among its own items, and of
    several such classes for the likeliest. Where that is not the label, the label is suspect (the paper's confident
    joint). Of each pair of label and class those are flagged that the calibrated joint leads to expect, the most likely
    ones first (the paper's pruning by noise rate), if the class is more probable than the label by `MARGIN`.
    """
    count, classes = probabilities.shape
    rows = np.arange(count)
    own = probabilities[rows, labels]
    others = probabilities.copy()
    others[rows, labels] = -1
    suggested = others.argmax(axis=1)
    margins = others[rows, suggested] - own
    totals = np.bincount(labels, minlength=classes)
    thresholds = np.bincount(labels, own, minlength=classes) / np.maximum(totals, 1)
    thresholds[totals == 0] = np.inf
    reached = np.where(probabilities >= thresholds, probabilities, -1)
    confident = np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), labels)
    counted = np.zeros((classes, classes))
    np.add.at(counted, (labels, confident), 1)
    joint = counted / np.maximum(counted.sum(axis=1, keepdims=True), 1) * totals[:, None] / max(count, 1)
    suspect = (confident != labels) & (margins > MARGIN)
    flagged = np.zeros(count, bool)
    for label, other in zip(*np.nonzero(joint), strict=True):
        if label != other:
            of_pair = np.flatnonzero(suspect & (labels == label) & (confident == other))
            expected = round(float(joint[label, other]) * count)
            flagged[of_pair[np.argsort(own[of_pair], kind="stable")][:expected]] = True
    return Likely(1 - own, flagged, np.where(confident != labels, confident, suggested), joint)
