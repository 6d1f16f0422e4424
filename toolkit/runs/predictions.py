"""A model's answers to the items of a split, by name, and the file they are kept in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from toolkit.api.contracts import DataSpec
from toolkit.runs.directory import RunDirectory
from toolkit.training.evaluate import Evaluation

TOP = 5
"""Classes listed with each prediction."""


@dataclass(frozen=True)
class Prediction:
    """One line of predictions.csv; classes by name, most probable first."""

    id: str
    target: str
    prediction: str
    confidence: float
    top: tuple[tuple[str, float], ...]
    index: int
    """Position in the split."""

    @property
    def wrong(self) -> bool:
        return self.prediction != self.target


def predictions(evaluation: Evaluation, ids: Sequence[str], spec: DataSpec) -> Iterator[Prediction]:
    """One prediction an item, in the split's order."""
    probabilities = evaluation.answers
    values, places = probabilities.topk(min(TOP, len(spec.classes)), dim=1)
    columns = (evaluation.index, evaluation.targets, values, places)
    for index, target, top, classes in zip(*(column.tolist() for column in columns), strict=True):
        ranked = tuple((spec.classes[place], value) for place, value in zip(classes, top, strict=True))
        yield Prediction(ids[index], spec.classes[target], *ranked[0], ranked, index)


def write_predictions(directory: RunDirectory, rows: Sequence[Prediction], spec: DataSpec) -> None:
    count = min(TOP, len(spec.classes))
    ranks = [column for rank in range(1, count + 1) for column in (f"class_{rank}", f"probability_{rank}")]
    directory.write_rows(
        directory.predictions.name,
        ["id", "target", "prediction", "confidence", *ranks],
        ([row.id, row.target, row.prediction, f"{row.confidence:.6f}", *_flat(row.top)] for row in rows),
    )


def _flat(top: Sequence[tuple[str, float]]) -> list[str]:
    return [text for name, probability in top for text in (name, f"{probability:.6f}")]
