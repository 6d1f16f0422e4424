"""Numbers that a model answered to the items of a split, by output, and the file they are kept in. Reading it loads no
torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.api.answers import number
from toolkit.api.contracts import DataSpec
from toolkit.api.files import csv_text
from toolkit.runs.directory import RunDirectory

if TYPE_CHECKING:
    from toolkit.training.evaluate import Evaluation

TARGET, PREDICTION = "target_", "prediction_"
"""What the columns of an output begin with."""


@dataclass(frozen=True)
class Estimate:
    """One row of predictions.csv where targets are numbers; all in the unit of the targets, by output."""

    id: str
    target: Mapping[str, float]
    prediction: Mapping[str, float]

    def error(self, output: str) -> float:
        return self.prediction[output] - self.target[output]

    @property
    def captions(self) -> tuple[str, str]:
        """What the model said, and what it is."""
        return _in_words(self.prediction), f"is {_in_words(self.target)}"


def _in_words(numbers: Mapping[str, float]) -> str:
    if len(numbers) == 1:
        return number(next(iter(numbers.values())))
    return ", ".join(f"{name} {number(value)}" for name, value in numbers.items())


def estimates_of(evaluation: Evaluation, ids: Sequence[str], spec: DataSpec) -> list[Estimate]:
    """One estimate per item, in the order of `evaluation`. `ids` are those of all items of the split."""
    columns = (evaluation.index.tolist(), evaluation.targets.tolist(), evaluation.answers.tolist())
    return [
        Estimate(ids[index], dict(zip(spec.classes, target, strict=True)), dict(zip(spec.classes, answer, strict=True)))
        for index, target, answer in zip(*columns, strict=True)
    ]


def spreads(rows: Sequence[Estimate]) -> dict[str, float]:
    """The standard deviation of each output's targets; 1 where it is 0, so that errors may be divided by it."""
    found = {}
    for name in rows[0].target if rows else ():
        targets = [row.target[name] for row in rows]
        mean = math.fsum(targets) / len(targets)
        found[name] = math.sqrt(math.fsum((target - mean) ** 2 for target in targets) / len(targets)) or 1.0
    return found


def largest_errors(rows: Sequence[Estimate], limit: int) -> list[int]:
    """Places of the rows whose answers are furthest from the target, furthest first. Where there are several outputs,
    the one counts that is furthest in spreads of its targets."""
    scale = spreads(rows)

    def distance(place: int) -> float:
        found = max(abs(rows[place].error(name)) / scale[name] for name in scale)
        return math.inf if math.isnan(found) else found

    return sorted(range(len(rows)), key=distance, reverse=True)[:limit]


def write_estimates(directory: RunDirectory, rows: Sequence[Estimate], spec: DataSpec) -> None:
    """Write predictions.csv, with the digits that float32 holds."""
    lines: list[list[object]] = [["id", *(f"{kind}{name}" for name in spec.classes for kind in (TARGET, PREDICTION))]]
    for row in rows:
        pairs = (value for name in spec.classes for value in (row.target[name], row.prediction[name]))
        lines.append([row.id, *(float(f"{value:.9g}") for value in pairs)])
    directory.write_text(directory.predictions, csv_text(lines))


def read_estimates(directory: RunDirectory) -> list[Estimate]:
    """The rows of predictions.csv; none where there is no such file. Raises DataError where it is damaged."""
    return directory.read_rows(directory.predictions, _read)


def _read(row: Mapping[str, str]) -> Estimate:
    names = [key.removeprefix(TARGET) for key in row if key and key.startswith(TARGET)]
    return Estimate(
        row["id"], *({name: float(row[f"{kind}{name}"]) for name in names} for kind in (TARGET, PREDICTION))
    )
