"""What a page says of a run's answers: here alone the form of the targets decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.runs.files import RunFiles
from toolkit.runs.report import statistics
from toolkit.runs.report.statistics import ClassScores, Confusion, Matrix, Slip

MATRIX_CLASSES = 40
"""A confusion matrix of more classes than this is limited to those with most mistakes."""
LISTED_MISTAKES = 12


@dataclass(frozen=True)
class ShownMatrix:
    """The part of a confusion matrix that is drawn."""

    classes: Sequence[str]
    counts: Matrix
    shares: Matrix
    """Cells as shares of all items of the target, those in columns that are not shown included."""
    of: int
    """Classes in all."""


@dataclass(frozen=True)
class Answers:
    """What depends on the form of the targets. Empty where there are no predictions."""

    one_class: bool
    """Whether an answer is one class; else it is a set of classes."""
    classes: Sequence[ClassScores] = ()
    matrix: ShownMatrix | None = None
    """Of answers with one class, as `confusions`."""
    confusions: Sequence[Confusion] = ()
    missed: Sequence[Slip] = ()
    """Of answers with sets, as `added`."""
    added: Sequence[Slip] = ()

    @property
    def unit(self) -> str:
        return "class" if self.one_class else "set"

    @property
    def accuracy(self) -> str:
        """What the share of right answers is called."""
        return "accuracy" if self.one_class else "accuracy (whole sets)"

    @property
    def mistakes(self) -> tuple[str, str]:
        """What the section on mistakes is called, in the bar and in its heading."""
        return ("Confusion", "Confusion matrix") if self.one_class else ("Mistakes", "Missed and added classes")


def answers(files: RunFiles) -> Answers:
    """Raises DataError where the scored confusion matrix is of another number of classes."""
    if files.targets == "set":
        return _of_sets(files)
    matrix = _matrix(files)
    if not matrix:
        return Answers(one_class=True)
    return Answers(
        one_class=True,
        classes=statistics.per_class(files.classes, matrix, files.split_scores),
        matrix=_shown(files.classes, matrix),
        confusions=statistics.most_confused(files.classes, matrix, LISTED_MISTAKES),
    )


def _of_sets(files: RunFiles) -> Answers:
    rows = files.predictions
    if not rows:
        return Answers(one_class=False)
    thresholds = files.scores.get("thresholds", {})
    return Answers(
        one_class=False,
        classes=statistics.per_class_of_sets(files.classes, rows, files.split_scores, thresholds),
        missed=statistics.most_missed(rows, LISTED_MISTAKES),
        added=statistics.most_added(rows, LISTED_MISTAKES),
    )


def _matrix(files: RunFiles) -> Matrix | None:
    scored: Matrix | None = files.split_scores.get("confusion_matrix")
    if scored is None:
        return statistics.confusion_matrix(files.classes, files.predictions) if files.predictions else None
    if len(scored) != len(files.classes):
        raise files.directory.damaged(
            files.directory.scores,
            f"the confusion matrix has {len(scored)} rows, but the run has {len(files.classes)} classes",
        )
    return scored


def _shown(classes: Sequence[str], matrix: Matrix) -> ShownMatrix:
    chosen = statistics.hardest_classes(matrix, MATRIX_CLASSES)
    counts, shares = (
        [[cells[row][column] for column in chosen] for row in chosen]
        for cells in (matrix, statistics.normalised(matrix))
    )
    return ShownMatrix([classes[index] for index in chosen], counts, shares, of=len(classes))
