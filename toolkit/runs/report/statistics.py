"""Numbers a report derives from scores and predictions. Plain Python: no torch, no numpy."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from toolkit.api.answers import names_in
from toolkit.runs.predictions import Prediction, most_certain_errors

Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True)
class ClassScores:
    """One row of the per-class table; undefined scores are NaN."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    average_precision: float | None = None
    """None where the run's metrics do not give it."""
    threshold: float | None = None
    """From which probability the class counts as present; None where the likeliest class is the answer."""


@dataclass(frozen=True)
class Confusion:
    """Items of class `target` that were predicted as `prediction`."""

    target: str
    prediction: str
    count: int
    share: float
    """Share, 0..1, of the items of `target`."""


@dataclass(frozen=True)
class Slip:
    """A class that is missing in answers with sets, or that is in them without being in the target."""

    name: str
    count: int
    """Items."""
    share: float
    """Share, 0..1, of the items that show a missed class, or of the answers that name an added one."""
    instead: str | None
    """The class most often added to the same items where this one is missed, or missed where it is added; None where
    nothing is."""
    together: int
    """Items with both."""


@dataclass(frozen=True)
class Calibration:
    """Equal-width bins of confidence, lowest first; an empty bin has NaN confidence and accuracy."""

    confidence: Sequence[float]
    accuracy: Sequence[float]
    share: Sequence[float]

    @property
    def expected_error(self) -> float:
        """Expected calibration error (Guo et al., 2017): the gap of each bin weighted by its share of the items."""
        bins = zip(self.confidence, self.accuracy, self.share, strict=True)
        return sum(share * abs(confidence - accuracy) for confidence, accuracy, share in bins if share > 0)


def accuracy(predictions: Sequence[Prediction]) -> float:
    """Share of right predictions; NaN of none."""
    return sum(not row.wrong for row in predictions) / len(predictions) if predictions else math.nan


def most_frequent_share(predictions: Sequence[Prediction]) -> float:
    """Accuracy of always answering the most frequent class; NaN of no predictions."""
    counts = Counter(row.target for row in predictions)
    return max(counts.values()) / len(predictions) if counts else math.nan


def overlap(target: Collection[str], answer: Collection[str]) -> float:
    """How far two sets agree, 0..1: twice what they share by what both hold (F1); 1 where both are empty."""
    held = len(target) + len(answer)
    return 2 * len({*target} & {*answer}) / held if held else 1.0


def best_constant_set(targets: Sequence[Collection[str]]) -> tuple[str, ...]:
    """The set that overlaps most with `targets` on average, of those that hold the most frequent classes."""
    sizes: dict[str, list[int]] = defaultdict(list)
    for target in targets:
        for name in target:
            sizes[name].append(len(target))
    ranked = sorted(sizes, key=lambda name: -len(sizes[name]))
    best, chosen = float(sum(not target for target in targets)), 0
    shared = Counter[int]()  # by the size of a target: how often these hold a class of the answer
    for count, name in enumerate(ranked, 1):
        shared.update(sizes[name])
        reached = sum(2 * times / (size + count) for size, times in shared.items())
        if reached > best:
            best, chosen = reached, count
    return tuple(ranked[:chosen])


def confusion_matrix(classes: Sequence[str], predictions: Sequence[Prediction]) -> Matrix:
    """Counts `[C, C]`; rows are targets, columns predictions."""
    counts = Counter((row.target, row.prediction) for row in predictions)
    return [[counts[target, prediction] for prediction in classes] for target in classes]


def normalised(matrix: Matrix) -> Matrix:
    """Each row as shares of its sum; a row without items is all zero."""
    return [[cell / items for cell in row] for row, items in ((row, max(sum(row), 1)) for row in matrix)]


def per_class(classes: Sequence[str], matrix: Matrix, scores: Mapping[str, Any]) -> list[ClassScores]:
    """The scores of each class: as scored where the metrics did, else from the matrix."""
    predicted = [sum(column) for column in zip(*matrix, strict=True)]
    return [
        _class_scores(classes, index, matrix[index][index], sum(matrix[index]), predicted[index], scores)
        for index in range(len(classes))
    ]


def per_class_of_sets(
    classes: Sequence[str],
    predictions: Sequence[Prediction],
    scores: Mapping[str, Any],
    thresholds: Mapping[str, float],
) -> list[ClassScores]:
    """As `per_class`, of answers with sets; `thresholds` by class, empty where they are not known."""
    targets = Counter(name for row in predictions for name in names_in(row.target))
    predicted = Counter(name for row in predictions for name in names_in(row.prediction))
    hits = Counter(name for row in predictions for name in {*names_in(row.target)} & {*names_in(row.prediction)})
    return [
        replace(
            _class_scores(classes, index, hits[name], targets[name], predicted[name], scores),
            threshold=thresholds.get(name),
        )
        for index, name in enumerate(classes)
    ]


def _class_scores(
    classes: Sequence[str], index: int, hits: float, support: float, predicted: float, scores: Mapping[str, Any]
) -> ClassScores:
    derived = {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + predicted),
        "average_precision": None,
    }
    scored = {key: column[index] for key in derived if (column := scores.get(f"{key}_per_class"))}
    return ClassScores(classes[index], **{**derived, **scored}, support=int(support))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def most_confused(classes: Sequence[str], matrix: Matrix, limit: int) -> list[Confusion]:
    """The `limit` most frequent mistakes, most frequent first."""
    mistakes = [
        Confusion(classes[target], classes[prediction], int(count), count / support)
        for target, row, support in ((target, row, sum(row)) for target, row in enumerate(matrix))
        for prediction, count in enumerate(row)
        if count and target != prediction
    ]
    return sorted(mistakes, key=lambda mistake: (-mistake.count, -mistake.share))[:limit]


def most_missed(predictions: Sequence[Prediction], limit: int) -> list[Slip]:
    """The `limit` classes that most answers with sets lack, most often missed first."""
    return _slips([(names_in(row.target), names_in(row.prediction)) for row in predictions], limit)


def most_added(predictions: Sequence[Prediction], limit: int) -> list[Slip]:
    """The `limit` classes that most answers with sets name wrongly, most often added first."""
    return _slips([(names_in(row.prediction), names_in(row.target)) for row in predictions], limit)


def _slips(pairs: Sequence[tuple[Sequence[str], Sequence[str]]], limit: int) -> list[Slip]:
    """The classes of the first sets that are not in the second, with those of the second that are not in the first."""
    there = Counter(name for first, _ in pairs for name in first)
    gone: Counter[str] = Counter()
    instead: dict[str, Counter[str]] = defaultdict(Counter)
    for first, second in pairs:
        for name in set(first).difference(second):
            gone[name] += 1
            instead[name].update(other for other in second if other not in first)
    slips = []
    for name, count in gone.items():
        other, together = min(instead[name].items(), key=lambda one: (-one[1], one[0]), default=(None, 0))
        slips.append(Slip(name, count, count / there[name], other, together))
    return sorted(slips, key=lambda slip: (-slip.count, -slip.share, slip.name))[:limit]


def hardest_classes(matrix: Matrix, limit: int) -> list[int]:
    """Indices, in class order, of the `limit` classes with most mistakes (as target or as prediction)."""
    columns = [sum(column) for column in zip(*matrix, strict=True)]
    mistakes = [sum(row) + columns[index] - 2 * row[index] for index, row in enumerate(matrix)]
    return sorted(sorted(range(len(matrix)), key=lambda index: -mistakes[index])[:limit])


def calibration(predictions: Sequence[Prediction], bins: int = 15) -> Calibration:
    """Confidence and accuracy of `bins` equal-width bins of confidence."""
    return binned([(row.confidence, not row.wrong) for row in predictions], bins)


def binned(answers: Sequence[tuple[float, bool]], bins: int = 15) -> Calibration:
    """As `calibration`, of the confidence of each answer, 0..1, and whether it is right; of answers that are not
    finite none has a bin."""
    members: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for confidence, right in answers:
        if math.isnan(confidence):
            continue
        members[min(bins - 1, max(0, math.ceil(confidence * bins) - 1))].append((confidence, right))
    return Calibration(
        [_ratio(sum(confidence for confidence, _ in rows), len(rows)) for rows in members],
        [_ratio(sum(right for _, right in rows), len(rows)) for rows in members],
        [_ratio(len(rows), len(answers)) for rows in members],
    )


def worst_errors(predictions: Sequence[Prediction], limit: int) -> list[Prediction]:
    """The wrong predictions of highest confidence, highest first."""
    return [predictions[place] for place in most_certain_errors(predictions, limit)]
