"""A model's answers to the items of a split, by name, and the file they are kept in. Reading it loads no torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.api.contracts import DataSpec
from toolkit.runs.directory import RunDirectory

if TYPE_CHECKING:
    from toolkit.training.evaluate import Evaluation

TOP = 5
"""Classes listed with each prediction."""


@dataclass(frozen=True)
class Prediction:
    """One row of predictions.csv; classes by name."""

    id: str
    target: str
    prediction: str
    confidence: float
    """Probability, 0..1, of the predicted class."""
    top: Mapping[str, float]
    """The most likely classes and their probabilities, most likely first."""

    @property
    def wrong(self) -> bool:
        return self.target != self.prediction


def predictions_of(evaluation: Evaluation, ids: Sequence[str], spec: DataSpec) -> list[Prediction]:
    """One prediction per item, in the order of `evaluation`. `ids` are those of all items of the split."""
    values, places = evaluation.answers.topk(min(TOP, len(spec.classes)), dim=1)
    columns = (evaluation.index, evaluation.targets, values, places)
    found = []
    for index, target, probabilities, classes in zip(*(column.tolist() for column in columns), strict=True):
        names = [spec.classes[place] for place in classes]
        top = dict(zip(names, probabilities, strict=True))
        found.append(Prediction(ids[index], spec.classes[target], names[0], probabilities[0], top))
    return found


def write_predictions(directory: RunDirectory, rows: Sequence[Prediction], spec: DataSpec) -> None:
    """Write predictions.csv; `spec` gives the number of columns, also where there are no rows."""
    ranks = range(1, min(TOP, len(spec.classes)) + 1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [column for rank in ranks for column in (f"class_{rank}", f"probability_{rank}")]
    writer.writerow(["id", "target", "prediction", "confidence", *columns])
    for row in rows:
        top = [cell for name, probability in row.top.items() for cell in (name, f"{probability:.6f}")]
        writer.writerow([row.id, row.target, row.prediction, f"{row.confidence:.6f}", *top])
    directory.write_text(directory.predictions, text.getvalue())


def read_predictions(directory: RunDirectory) -> list[Prediction]:
    """The rows of predictions.csv; none where there is no such file. Raises DataError where it is damaged."""
    path = directory.predictions
    if not path.is_file():
        return []
    rows = csv.DictReader(io.StringIO(directory.read_text(path), newline=""))
    found = []
    try:
        for row in rows:
            ranks = [key.removeprefix("class_") for key in row if key and key.startswith("class_")]
            top = {row[f"class_{rank}"]: float(row[f"probability_{rank}"]) for rank in ranks}
            found.append(Prediction(row["id"], row["target"], row["prediction"], float(row["confidence"]), top))
    except KeyError as error:
        raise directory.damaged(path, f"column {error.args[0]} is missing") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise directory.damaged(path, f"line {rows.line_num}: {error}") from error
    return found
