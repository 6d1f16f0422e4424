"""A model's answers to the items of a split, by name, and the file they are kept in. Reading it loads no torch.

Where targets are sets, `target` and `prediction` hold the names of their classes with "|" between them, nothing where a
set is empty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from toolkit.api.answers import NONE, confidence, label, named_classes, percent
from toolkit.api.contracts import DataSpec
from toolkit.api.files import csv_text
from toolkit.runs.directory import RunDirectory

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.training.evaluate import Evaluation

TOP = 5
"""Classes listed with each prediction."""


@dataclass(frozen=True)
class Prediction:
    """One row of predictions.csv; classes by name, sets of them as `toolkit.api.answers.label` writes them."""

    id: str
    target: str
    prediction: str
    confidence: float
    """Probability, 0..1, of the predicted class, or of the whole set: see `toolkit.api.answers.confidence`."""
    top: Mapping[str, float]
    """The most likely classes and their probabilities, most likely first."""

    @property
    def wrong(self) -> bool:
        return self.target != self.prediction

    @property
    def captions(self) -> tuple[str, str]:
        """What the model said, and what it is."""
        return f"{percent(self.confidence, 0)} {self.prediction or NONE}", f"is {self.target or NONE}"


def predictions_of(evaluation: Evaluation, ids: Sequence[str], spec: DataSpec) -> list[Prediction]:
    """One prediction per item, in the order of `evaluation`. `ids` are those of all items of the split."""
    likeliest = evaluation.answers.topk(min(TOP, len(spec.classes)), dim=1)
    tops = [
        dict(zip((spec.classes[place] for place in places), probabilities, strict=True))
        for places, probabilities in zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
    ]
    answered = _sets(evaluation, spec) if spec.targets == "set" else _classes(evaluation, spec, tops)
    columns = zip(evaluation.index.tolist(), answered, tops, strict=True)
    return [Prediction(ids[index], *answer, top) for index, answer, top in columns]


def _classes(
    evaluation: Evaluation, spec: DataSpec, tops: Sequence[Mapping[str, float]]
) -> Iterator[tuple[str, str, float]]:
    """Target, prediction and confidence of each item, where an answer is the likeliest class."""
    for target, top in zip(evaluation.targets.tolist(), tops, strict=True):
        yield (spec.classes[target], *next(iter(top.items())))


def _sets(evaluation: Evaluation, spec: DataSpec) -> Iterator[tuple[str, str, float]]:
    """The same, where an answer is the set of classes that reach their thresholds."""
    thresholds = cast("Tensor", evaluation.thresholds).tolist()
    for target, answer in zip(evaluation.targets, evaluation.answers.tolist(), strict=True):
        shown = label(spec.classes, target.nonzero().flatten().tolist())
        yield shown, label(spec.classes, named_classes(answer, thresholds)), confidence(answer, thresholds)


def most_certain_errors(rows: Sequence[Prediction], limit: int) -> list[int]:
    """Places of the wrong predictions of highest confidence, highest first."""
    wrong = (place for place, row in enumerate(rows) if row.wrong)
    return sorted(wrong, key=lambda place: -rows[place].confidence)[:limit]


def write_predictions(directory: RunDirectory, rows: Sequence[Prediction], spec: DataSpec) -> None:
    """Write predictions.csv; `spec` gives the number of columns, also where there are no rows."""
    ranks = range(1, min(TOP, len(spec.classes)) + 1)
    columns = [column for rank in ranks for column in (f"class_{rank}", f"probability_{rank}")]
    lines: list[list[object]] = [["id", "target", "prediction", "confidence", *columns]]
    for row in rows:
        top = [cell for name, probability in row.top.items() for cell in (name, round(probability, 6))]
        lines.append([row.id, row.target, row.prediction, round(row.confidence, 6), *top])
    directory.write_text(directory.predictions, csv_text(lines))


def read_predictions(directory: RunDirectory) -> list[Prediction]:
    """The rows of predictions.csv; none where there is no such file. Raises DataError where it is damaged."""
    return directory.read_rows(directory.predictions, _read)


def _read(row: Mapping[str, str]) -> Prediction:
    ranks = [key.removeprefix("class_") for key in row if key and key.startswith("class_")]  # None: cells without name
    top = {row[f"class_{rank}"]: float(row[f"probability_{rank}"]) for rank in ranks}
    return Prediction(row["id"], row["target"], row["prediction"], float(row["confidence"]), top)
