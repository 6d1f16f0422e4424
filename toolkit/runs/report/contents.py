"""What the page says, as plain values: everything the template shows is decided here."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Any

from toolkit.api.answers import NONE
from toolkit.api.contracts import TargetForm
from toolkit.runs.files import RunFiles
from toolkit.runs.predictions import Prediction
from toolkit.runs.report import statistics
from toolkit.runs.report.answers import Answers, answers
from toolkit.runs.report.embedding import Map, map_of
from toolkit.runs.report.numbers import Numbers, numbers
from toolkit.runs.report.trust import Calibrated, Rescored, Unknown, calibrated, rescored, unknown
from toolkit.runs.report.verdicts import Verdict, judged, verdicts
from toolkit.runs.scores import Certainty, Row, score_rows
from toolkit.runs.slices import Slice

LISTED_ERRORS = 24
LISTED_FILES = 20
LISTED_SLICES = 10
MOST_SLICES = 200


@dataclass(frozen=True)
class Headline:
    """The score on top, with what it must be read against. All shares are 0..1."""

    split: str
    accuracy: float
    low: float
    high: float
    """Ends of the 95 % interval."""
    count: int
    chance: float | None
    """Accuracy of answering any class; None where answers are sets, which are not equally likely."""
    majority: float
    """Accuracy of always answering the most frequent class or set; NaN where targets are unknown."""


@dataclass(frozen=True)
class Page:
    """All that the template of a run's page shows, besides pictures."""

    files: RunFiles
    started: str
    model: str
    dataset: str
    changed: Sequence[tuple[str, str]]
    """Keys that differ from the recipe's file, with their values."""
    banners: Sequence[tuple[str, str]]
    """Kind (`sample` or `unfinished`) and text."""
    verdicts: Sequence[Verdict]
    notes: Sequence[str]
    headline: Headline | None
    tiles: Sequence[tuple[str, str, str]]
    """Name, value and remark of each fact at the top."""
    scores: Sequence[Row]
    """Scalar scores on valid and on test."""
    certainty: Certainty
    """Of the scores on the split that the run is judged on."""
    slices: Sequence[Slice]
    """Those that are worse than the rest first."""
    metric: str | None
    """The score on valid that has a chart of its own, if any."""
    no_metric: str
    """Why no score has a chart."""
    best_epoch: int | None
    learned: str
    """What the model answers with, in a few words."""
    answers: Answers
    """Empty where answers are numbers."""
    numbers: Numbers | None
    """Where answers are numbers."""
    calibration_error: float | None
    calibrated: Calibrated | None
    """The same after a temperature; None where the run has none."""
    rescored: Rescored | None
    """Of a bundle that declines, or has sets or a temperature."""
    unknown: Unknown | None
    """None where no class was held out."""
    errors: Sequence[Prediction]
    items: Map | None
    """The map of the items; None where the run has none."""
    maps: str
    """What maps of where answers come from show, or why the page has no maps."""
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
    metric, no_metric = _metric(files)
    return Page(
        files=files,
        started=_moment(str(files.facts.get("started", ""))),
        model=str(files.tables.get("model", {}).get("name", "")),
        dataset=str(files.tables.get("data", {}).get("name", "")),
        changed=[(key, _without_folder(value)) for key, value in files.facts.get("changed", {}).items()],
        banners=list(_banners(files)),
        verdicts=verdicts(judged(files)),
        notes=list(_notes(files)),
        headline=_headline(files),
        tiles=list(_tiles(files)),
        scores=score_rows([files.scores.get(split, {}) for split in ("valid", "test")]),
        certainty=Certainty.of(files.scores, files.split),
        slices=files.slices,
        metric=metric,
        no_metric=no_metric,
        best_epoch=_best_epoch(files),
        learned=learned(files.classes, files.targets),
        answers=answers(files),
        numbers=numbers(files, LISTED_ERRORS),
        calibration_error=_calibration_error(files),
        calibrated=calibrated(files),
        rescored=rescored(files.scores),
        unknown=unknown(files),
        errors=statistics.worst_errors(files.predictions, LISTED_ERRORS),
        items=map_of(files),
        maps=_maps(files),
        recipe=[_recipe_line(line) for line in files.recipe.strip().splitlines()],
        protocol={name: _in_words(value) for name, value in files.scores.get("protocol", {}).items()},
        environment=list(_flat("", files.environment)),
    )


def learned(names: Sequence[str], form: TargetForm) -> str:
    """What a model answers with, in a few words."""
    return ", ".join(names) if form == "number" else f"{len(names)} classes"


def percent(share: float, digits: int = 1) -> str:
    """`0.1234` as `12.3 %`, which never breaks into two lines; NaN as a dash."""
    return "—" if math.isnan(share) else f"{100 * share:.{digits}f}\u00a0%"


def named(label: str) -> str:
    """The classes of a target or a prediction, also of an empty set."""
    return label or NONE


def score(value: Any) -> str:
    """A score with four decimals; a dash where it is undefined or was not computed."""
    return "—" if value is None or math.isnan(value) else f"{value:.4f}"


def _maps(files: RunFiles) -> str:
    if "maps" not in files.facts:
        return "No maps of where answers come from: report RUN --explain draws them."
    made = files.facts["maps"]
    if not made:
        return "No maps of where answers come from: no gradient of this model's answers reaches the pixels."
    layer = f" of {made['layer']}" if made["layer"] else ""
    number = f"the number {files.classes[0]}" if files.targets == "number" else "the answer"
    place, bars = (
        ("Below", " The longer the bar below a frame, the more it counts.") if made["clips"] else ("Next to", "")
    )
    return f"{place} each picture, bright places are where {number} comes from: {made['method']}{layer}.{bars}"


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


def _notes(files: RunFiles) -> Iterator[str]:
    if files.cut_short:
        yield f"The last line of {files.directory.records.name} was cut short and is skipped."
    yield from map(str, files.facts.get("notes", ()))


def _metric(files: RunFiles) -> tuple[str | None, str]:
    """The score of `train.metric` on valid, or the one most like it; or why no score can be drawn."""
    if not files.records:
        return None, "No epoch has finished."
    names = list(dict.fromkeys(name for record in files.records for name in record.valid if name != "loss"))
    wanted = (files.tables.get("train", {}).get("metric"), "accuracy", *names)
    found = next((name for name in wanted if name in names), None)
    without = "No score but the loss is computed on the validation split."
    return found, without if any(record.valid for record in files.records) else "The dataset has no validation split."


def _without_folder(value: str) -> str:
    """A value of a recipe; of a path of this machine its last part only."""
    path = PurePath(value.strip("'\""))
    return f"…/{path.name}" if path.is_absolute() else value


def _headline(files: RunFiles) -> Headline | None:
    split, predictions = files.split, files.predictions
    accuracy = files.split_scores.get("accuracy", statistics.accuracy(predictions))
    count = len(predictions) or int(files.facts.get("items", {}).get(split, 0))
    if not count or not math.isfinite(accuracy):
        return None
    certainty = Certainty.of(files.scores, split)
    low, high = certainty.interval("accuracy", accuracy, count)
    chance = certainty.baseline("chance", "accuracy", 1 / len(files.classes)) if files.targets == "index" else None
    constant = certainty.baseline("majority", "accuracy", statistics.most_frequent_share(predictions))
    return Headline(split, accuracy, low, high, count, chance, constant)


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
