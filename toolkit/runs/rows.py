"""The rows of predictions.csv, by the form of targets: here alone the form decides what a row is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from toolkit.api.contracts import DataSpec, TargetForm
from toolkit.runs.directory import RunDirectory
from toolkit.runs.estimates import Estimate, estimates_of, largest_errors, read_estimates, write_estimates
from toolkit.runs.predictions import (
    Prediction,
    most_certain_errors,
    predictions_of,
    read_predictions,
    write_predictions,
)

if TYPE_CHECKING:
    from toolkit.training.evaluate import Evaluation

Row: TypeAlias = Prediction | Estimate


class RowForm(Protocol):
    """The rows of one form."""

    def of(self, evaluation: Evaluation, ids: Sequence[str], spec: DataSpec) -> Sequence[Row]:
        """One row per item, in the order of `evaluation`. `ids` are those of all items of the split."""

    def write(self, directory: RunDirectory, rows: Sequence[Row], spec: DataSpec) -> None: ...

    def read(self, directory: RunDirectory) -> Sequence[Row]:
        """None where there is no such file. Raises DataError where it is damaged."""

    def worst(self, rows: Sequence[Row], limit: int) -> list[int]:
        """Places of the worst errors, worst first."""

    def right(self, rows: Sequence[Row]) -> list[int]:
        """Places of the right answers; no number is just right."""


class _OfClasses:
    def of(self, evaluation: Evaluation, ids: Sequence[str], spec: DataSpec) -> Sequence[Row]:
        return predictions_of(evaluation, ids, spec)

    def write(self, directory: RunDirectory, rows: Sequence[Row], spec: DataSpec) -> None:
        write_predictions(directory, cast(Sequence[Prediction], rows), spec)

    def read(self, directory: RunDirectory) -> Sequence[Row]:
        return read_predictions(directory)

    def worst(self, rows: Sequence[Row], limit: int) -> list[int]:
        return most_certain_errors(cast(Sequence[Prediction], rows), limit)

    def right(self, rows: Sequence[Row]) -> list[int]:
        return [place for place, row in enumerate(cast(Sequence[Prediction], rows)) if not row.wrong]


class _OfNumbers:
    def of(self, evaluation: Evaluation, ids: Sequence[str], spec: DataSpec) -> Sequence[Row]:
        return estimates_of(evaluation, ids, spec)

    def write(self, directory: RunDirectory, rows: Sequence[Row], spec: DataSpec) -> None:
        write_estimates(directory, cast(Sequence[Estimate], rows), spec)

    def read(self, directory: RunDirectory) -> Sequence[Row]:
        return read_estimates(directory)

    def worst(self, rows: Sequence[Row], limit: int) -> list[int]:
        return largest_errors(cast(Sequence[Estimate], rows), limit)

    def right(self, rows: Sequence[Row]) -> list[int]:  # noqa: ARG002
        return []


ROWS: Mapping[TargetForm, RowForm] = {"index": _OfClasses(), "set": _OfClasses(), "number": _OfNumbers()}
MEASURE: Mapping[TargetForm, str] = {"index": "accuracy", "set": "accuracy", "number": "mae"}
"""What single items are judged by: whether the answer is right, or its mean absolute error."""


def measured(row: Row) -> float:
    """1 for a right answer, 0 for a wrong one; of numbers the mean distance to the targets, in their unit."""
    if isinstance(row, Prediction):
        return 0.0 if row.wrong else 1.0
    return math.fsum(abs(row.error(name)) for name in row.target) / len(row.target)
