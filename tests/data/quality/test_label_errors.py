"""Labels that are likely wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from toolkit.data.quality.label_errors import FOLDS, _folds, likely_errors, out_of_fold

CLASSES, EACH = 4, 150


def clusters(spread: float = 1.0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), EACH)
    centres = 4 * np.eye(CLASSES, 8)
    return (centres[labels] + draw.normal(0, spread, (len(labels), 8))).astype(np.float32), labels


def flipped(labels: NDArray[np.int64], share: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    draw = np.random.default_rng(1)
    wrong = draw.random(len(labels)) < share
    moved = (labels + draw.integers(1, CLASSES, len(labels))) % CLASSES
    return np.where(wrong, moved, labels), wrong


def test_flipped_labels_are_ranked_flagged_and_corrected() -> None:
    features, labels = clusters()
    given, wrong = flipped(labels, 0.05)
    likely = likely_errors(out_of_fold(features, given, np.arange(len(given)), CLASSES), given)
    assert roc_auc_score(wrong, likely.scores) > 0.98
    assert wrong[likely.flagged].mean() > 0.8
    assert likely.flagged[wrong].mean() > 0.5
    right = likely.flagged & wrong
    assert (likely.suggested[right] == labels[right]).mean() > 0.95


def test_the_joint_estimates_how_many_labels_are_wrong() -> None:
    features, labels = clusters(0.7)
    given, wrong = flipped(labels, 0.1)
    likely = likely_errors(out_of_fold(features, given, np.arange(len(given)), CLASSES), given)
    assert likely.joint.sum() == np.float64(1).round()
    assert abs((1 - np.trace(likely.joint)) - wrong.mean()) < 0.03


def test_right_labels_are_not_flagged() -> None:
    features, labels = clusters(0.5)
    likely = likely_errors(out_of_fold(features, labels, np.arange(len(labels)), CLASSES), labels)
    assert not likely.flagged.any()


def test_a_score_is_what_the_label_lacks_of_certainty() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3]])
    likely = likely_errors(probabilities, np.array([0, 1, 1]))
    assert np.allclose(likely.scores, [0.3, 0.7, 0.5])
    assert likely.suggested.tolist() == [1, 2, 2]


def test_a_class_without_items_suggests_nothing() -> None:
    probabilities = np.array([[0.9, 0.05, 0.05], [0.1, 0.85, 0.05], [0.2, 0.1, 0.7]])
    likely = likely_errors(probabilities, np.array([0, 1, 0]))
    assert not likely.joint[:, 2].any()
    assert not likely.flagged.any()


def test_copies_are_in_one_fold_and_classes_in_all() -> None:
    labels = np.repeat(np.arange(CLASSES), EACH)
    groups = np.arange(len(labels)) // 3
    folds = _folds(labels, groups, seed=0)
    assert all(len(set(folds[groups == group])) == 1 for group in range(groups.max() + 1))
    assert all(set(folds[labels == label]) == set(range(FOLDS)) for label in range(CLASSES))
    assert np.bincount(folds).max() - np.bincount(folds).min() <= 3


def test_copies_do_not_confirm_a_wrong_label() -> None:
    """Ten copies with one wrong label: if folds divided them, nine would teach the wrong label of the tenth."""
    features, labels = clusters(0.5)
    features = np.concatenate([features, np.repeat(features[:1] + 0.3, 10, axis=0)])
    given = np.append(labels, np.full(10, 3))
    together = np.append(np.arange(len(labels)), np.full(10, len(labels)))
    apart = np.arange(len(given))
    scores = [
        likely_errors(out_of_fold(features, given, groups, CLASSES), given).scores[-10:].min()
        for groups in (together, apart)
    ]
    assert scores[0] > max(scores[1], 0.5)


def test_one_class_in_a_fold_is_no_regression() -> None:
    labels = np.array([0] * 30 + [1])
    features = np.random.default_rng(0).normal(size=(31, 2)).astype(np.float32)
    probabilities = out_of_fold(features, labels, np.arange(31), 2)
    assert np.allclose(probabilities.sum(axis=1), 1)


def test_a_weak_model_flags_little() -> None:
    """Classes that overlap: most items are more like another class, but by little."""
    features, labels = clusters(6.0)
    likely = likely_errors(out_of_fold(features, labels, np.arange(len(labels)), CLASSES), labels)
    assert likely.flagged.mean() < 0.05
