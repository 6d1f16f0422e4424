"""What features say of labels: likely errors, classes that overlap, and items unlike all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.data.quality.label_errors import Likely, likely_errors, out_of_fold
from toolkit.data.quality.outliers import outliers
from toolkit.data.quality.spaces import distances, reduced
from toolkit.runs.data_check.features import Features
from toolkit.runs.data_check.findings import Finding, about
from toolkit.runs.data_check.items import Items

LISTED_OVERLAPS = 20
LEAST_OVERLAP = 0.01
"""Share of the items of two classes below which they do not count as overlapping."""


class Overlap(NamedTuple):
    """Two classes whose items a model takes for one another."""

    one: str
    other: str
    share: float
    """Of the items of both, those whose true class is estimated to be the other of the two."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What a model says of the labels of N items."""

    known: NDArray[np.intp]
    """The M items that have features, ascending."""
    likely: Likely
    """Of these M items."""
    accuracy: float
    """Share of the labels that are the likeliest class by probabilities that were not learned from them."""
    overlaps: tuple[Overlap, ...]

    def scores(self, count: int) -> NDArray[np.float64]:
        """float64 `[count]`: the score of each item's label; NaN without features."""
        scores = np.full(count, np.nan)
        scores[self.known] = self.likely.scores
        return scores


def judge(items: Items, features: Features, groups: NDArray[np.int64]) -> tuple[Judged | None, list[Finding]]:
    """Judge labels that are one class an item; of other targets only what is unlike all others is found.

    groups: int64 `[N]`: copies have the same number
    """
    known = np.flatnonzero(features.known)
    space = reduced(features.values[known])
    one_class = items.spec.targets == "index"
    labels = np.array([items.targets[item] for item in known.tolist()] if one_class else [0] * len(known), np.int64)
    classes = len(items.spec.classes) if one_class else 1
    if len(known) < 2:
        return None, []
    found = list(_unlike(items, known, distances(space, labels, classes)))
    if not one_class or len(np.unique(labels)) < 2:
        return None, found
    probabilities = out_of_fold(space, labels, groups[known], classes)
    likely = likely_errors(probabilities, labels)
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    judged = Judged(known, likely, accuracy, tuple(_overlaps(items.spec.classes, likely, labels)))
    return judged, [*_errors(items, judged), *found]


def _errors(items: Items, judged: Judged) -> Iterator[Finding]:
    for item, suggested, score in _flagged(items, judged):
        yield about(items, "likely label error", item, score=score, detail=f"rather {suggested}")


def suggestions(items: Items, judged: Judged) -> Iterator[tuple[str, str, str, str, float]]:
    """Rows of labels.csv, the most likely error first: item, an empty label to fill in, the label, the class that is
    likelier, and the score."""
    for item, suggested, score in _flagged(items, judged):
        yield items.ids[item], "", items.labels[item], suggested, score


def _flagged(items: Items, judged: Judged) -> Iterator[tuple[int, str, float]]:
    """The items whose labels are likely wrong, the most likely first, each with a likelier class and the score."""
    likely = judged.likely
    order = np.argsort(-likely.scores, kind="stable")
    for place in order[likely.flagged[order]]:
        suggested = items.spec.classes[likely.suggested[place]]
        yield int(judged.known[place]), suggested, round(float(likely.scores[place]), 4)


def _unlike(items: Items, known: NDArray[np.intp], far: NDArray[np.float64]) -> Iterator[Finding]:
    scores = outliers(np.log(np.maximum(far, 1e-9)))
    for place in np.flatnonzero(scores > 0):
        detail = f"distance {far[place]:.1f} from the nearest class, median {np.median(far):.1f}"
        score = round(float(min(scores[place], 1e6)), 2)
        yield about(items, "feature outlier", int(known[place]), score=score, detail=detail)


def _overlaps(classes: Sequence[str], likely: Likely, labels: NDArray[np.int64]) -> list[Overlap]:
    totals = np.bincount(labels, minlength=len(classes)) / len(labels)
    both = likely.joint + likely.joint.T
    found = [
        Overlap(classes[one], classes[other], float(both[one, other] / (totals[one] + totals[other])))
        for one, other in combinations(range(len(classes)), 2)
        if both[one, other] > LEAST_OVERLAP * (totals[one] + totals[other])
    ]
    return sorted(found, key=lambda overlap: -overlap.share)[:LISTED_OVERLAPS]
