"""What the page says, as plain values: everything the template shows is decided here."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from toolkit.runs.files import RunFiles
from toolkit.runs.predictions import Prediction
from toolkit.runs.report import statistics
from toolkit.runs.report.statistics import ClassScores, Confusion, Matrix

MATRIX_CLASSES = 40
"""A confusion matrix of more classes than this is limited to those with most mistakes."""
LISTED_ERRORS = 24
LISTED_CONFUSIONS = 12


@dataclass(frozen=True)
class Headline:
    """The score on top, with what it must be read against. All shares are 0..1."""

    split: str
    accuracy: float
    low: float
    high: float
    """Ends of the 95 % interval."""
    count: int
    chance: float
    most_frequent: float
    """Accuracy of always answering the most frequent class; NaN where targets are unknown."""


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
class Page:
    """All that the template of a run's page shows, besides pictures."""

    files: RunFiles
    started: str
    banners: Sequence[tuple[str, str]]
    """Kind (`sample`, `unfinished` or `note`) and text."""
    headline: Headline | None
    tiles: Sequence[tuple[str, str, str]]
    """Name, value and remark of each fact at the top."""
    scores: Sequence[tuple[str, float | None, float | None]]
    """Name, valid and test of each scalar score; None where it was not computed."""
    best_epoch: int | None
    matrix: ShownMatrix | None
    classes: Sequence[ClassScores]
    confusions: Sequence[Confusion]
    calibration_error: float | None
    errors: Sequence[Prediction]
    recipe: Sequence[tuple[str, str, str]]
    """Kind (`table`, `pair`, `comment` or `plain`) and the two parts of each line."""
    protocol: Mapping[str, Any]
    environment: Sequence[tuple[str, str]]


def gather(files: RunFiles) -> Page:
    """Decide what a report of `files` says. Raises `DataError` when the files contradict each other, or name no classes
    of what was predicted."""
    if not files.classes and (files.scores or files.predictions):
        path = files.directory.facts
        cause = "names no classes" if path.is_file() else "is missing, and with it the names of the classes"
        raise files.directory.damaged(path, cause)
    matrix = _matrix(files)
    return Page(
        files=files,
        started=_moment(str(files.facts.get("started", ""))),
        banners=list(_banners(files)),
        headline=_headline(files),
        tiles=list(_tiles(files)),
        scores=_scalar_scores(files),
        best_epoch=_best_epoch(files),
        matrix=_shown(files.classes, matrix) if matrix else None,
        classes=statistics.per_class(files.classes, matrix, files.split_scores) if matrix else [],
        confusions=statistics.most_confused(files.classes, matrix, LISTED_CONFUSIONS) if matrix else [],
        calibration_error=_calibration_error(files),
        errors=statistics.worst_errors(files.predictions, LISTED_ERRORS),
        recipe=[_recipe_line(line) for line in files.recipe.strip().splitlines()],
        protocol={name: _in_words(value) for name, value in files.scores.get("protocol", {}).items()},
        environment=list(_flat("", files.environment)),
    )


def percent(share: float, digits: int = 1) -> str:
    """`0.1234` as `12.3 %`; NaN as a dash."""
    return "—" if math.isnan(share) else f"{100 * share:.{digits}f} %"


def score(value: Any) -> str:
    """A score with four decimals; a dash where it is undefined or was not computed."""
    return "—" if value is None or math.isnan(value) else f"{value:.4f}"


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


def _best_epoch(files: RunFiles) -> int | None:
    best: int | None = files.scores.get("best_epoch")
    return best or max((record.epoch for record in files.records if record.best), default=None)


def _calibration_error(files: RunFiles) -> float | None:
    scored: float | None = files.split_scores.get("ece")
    if scored is None and files.predictions:
        return statistics.calibration(files.predictions).expected_error
    return scored


def _moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{moment.day} {moment:%B %Y, %H:%M}"


def _banners(files: RunFiles) -> Iterator[tuple[str, str]]:
    if files.facts.get("sample"):
        yield "sample", "SAMPLE DATA: generated by code. These scores say nothing about real data."
    if not files.finished:
        yield "unfinished", f"Unfinished: {len(files.records)} of {files.facts.get('epochs', '?')} epochs."
    if files.cut_short:
        yield "note", f"The last line of {files.directory.records.name} was cut short and is left out."
    for note in files.facts.get("notes", ()):
        yield "note", str(note)


def _headline(files: RunFiles) -> Headline | None:
    split, predictions = files.split, files.predictions
    accuracy = files.split_scores.get("accuracy", statistics.accuracy(predictions))
    count = len(predictions) or int(files.facts.get("items", {}).get(split, 0))
    if not count or not math.isfinite(accuracy):
        return None
    low, high = statistics.wilson_interval(accuracy, count)
    chance = 1 / len(files.classes)
    return Headline(split, accuracy, low, high, count, chance, statistics.most_frequent_share(predictions))


def _tiles(files: RunFiles) -> Iterator[tuple[str, str, str]]:
    yield from _training_tiles(files)
    facts = files.facts
    if items := facts.get("items"):
        counts = " · ".join(f"{_thousands(items.get(split, 0))} {split}" for split in ("valid", "test"))
        yield "Training items", _thousands(items.get("train", 0)), counts
    if parameters := facts.get("parameters"):
        work = facts.get("multiply_adds")
        yield "Parameters", _scaled(parameters), f"{_scaled(work)} multiply-adds" if work else ""
    if device := facts.get("device"):
        yield "Device", str(device), str(facts.get("precision", ""))


def _training_tiles(files: RunFiles) -> Iterator[tuple[str, str, str]]:
    records = files.records
    if not records:
        return
    seconds = sum(record.seconds for record in records)
    waited = sum(record.seconds * record.waiting for record in records) / seconds if seconds else 0.0
    best = _best_epoch(files)
    yield "Epochs", str(len(records)), f"best: {best}" if best else ""
    yield "Training time", _duration(seconds), f"{percent(waited)} waiting for data"
    trained = files.facts.get("epoch_items") or files.facts.get("items", {}).get("train")
    if trained and seconds:
        yield "Speed", f"{_scaled(trained * len(records) / seconds)}/s", "training items"


def _scalar_scores(files: RunFiles) -> list[tuple[str, float | None, float | None]]:
    valid, test = (files.scores.get(split, {}) for split in ("valid", "test"))
    names = {name: None for name, value in (*valid.items(), *test.items()) if isinstance(value, int | float)}
    return [(name, valid.get(name), test.get(name)) for name in names]


def _recipe_line(line: str) -> tuple[str, str, str]:
    text = line.strip()
    if text.startswith("#"):
        return "comment", line, ""
    if text.startswith("[") and text.endswith("]"):
        return "table", line, ""
    key, equals, value = line.partition("=")
    is_pair = bool(equals) and not set(key) & set("\"'{[")
    return ("pair", key, value) if is_pair else ("plain", line, "")


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else key, inner)
    elif isinstance(value, list):
        yield name, shlex.join(str(part) for part in value)
    elif value is not None:
        yield name, str(value)


def _thousands(count: int) -> str:
    return f"{count:,}".replace(",", " ")  # thin space: commas are decimal signs to half the world


def _scaled(count: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return f"{count:.3g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def _in_words(value: Any) -> Any:
    """A nested value of the protocol as one line of text."""
    return ", ".join(f"{name} {item}" for name, item in value.items()) if isinstance(value, Mapping) else value
