"""The files of a run directory, read back and checked."""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from toolkit.api.contracts import EpochRecord
from toolkit.api.errors import DataError, UsageError


@dataclass(frozen=True)
class Prediction:
    """One row of predictions.csv."""

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


@dataclass(frozen=True)
class RunFiles:
    """What was found in a run directory; files that are absent are empty here."""

    directory: Path
    recipe: str
    """Text of recipe.toml."""
    facts: Mapping[str, Any]
    records: Sequence[EpochRecord]
    scores: Mapping[str, Any]
    """Contents of scores.json with NaN for null; empty when the run has not finished."""
    predictions: Sequence[Prediction]
    environment: Mapping[str, Any]
    cut_short: bool
    """Whether the last line of records.jsonl was half-written, as a killed process leaves it."""

    @property
    def name(self) -> str:
        return str(self.facts.get("recipe") or self.directory.resolve().parent.name)

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of their indices."""
        return list(self.facts.get("classes") or ())

    @property
    def predicted(self) -> str:
        """The split that predictions.csv is of: test, or valid where there is no test split."""
        splits = self.scores or self.facts.get("items", {})
        return "test" if splits.get("test") else "valid"

    @property
    def predicted_scores(self) -> Mapping[str, Any]:
        scores: Mapping[str, Any] = self.scores.get(self.predicted, {})
        return scores

    @property
    def finished(self) -> bool:
        return bool(self.scores)


def read_run(run: Path) -> RunFiles:
    """Read the files of `run`.

    Raises `UsageError` when `run` is no run directory and `DataError`, naming file and line, when a file is damaged.
    """
    _require_run(run)
    records, cut_short = _read_records(run / "records.jsonl")
    return RunFiles(
        directory=run,
        recipe=_text(run / "recipe.toml"),
        facts=_read_table(run / "facts.json"),
        records=records,
        scores=_nan_for_null(_read_table(run / "scores.json")),
        predictions=_read_predictions(run / "predictions.csv"),
        environment=_read_table(run / "environment.json"),
        cut_short=cut_short,
    )


def _require_run(run: Path) -> None:
    if (run / "recipe.toml").is_file():
        return
    cause = "not a run directory: it has no recipe.toml" if run.exists() else "no such directory"
    raise UsageError(f"{run}: {cause}", next_step=f"python -m toolkit report {_nearest_run(run)}")


def _nearest_run(folder: Path) -> str:
    """The run whose file this is, or the newest one below."""
    if folder.is_file() and (folder.parent / "recipe.toml").is_file():
        return shlex.quote(str(folder.parent))
    found = [path.parent for pattern in ("*", "*/*") for path in folder.glob(f"{pattern}/recipe.toml")]
    return shlex.quote(str(max(found, key=lambda path: path.name))) if found else "runs/RECIPE/TIME"


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise _damaged(path, f"not UTF-8 text ({error.reason} at byte {error.start})") from error


def _read_table(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        table = json.loads(_text(path))
    except ValueError as error:
        raise _damaged(path, f"not valid JSON ({error})") from error
    if not isinstance(table, dict):
        raise _damaged(path, f"holds a {type(table).__name__} where a table is expected")
    return table


def _read_records(path: Path) -> tuple[list[EpochRecord], bool]:
    if not path.is_file():
        return [], False
    text = _text(path)
    lines = text.splitlines()
    cut_short = bool(lines) and not text.endswith("\n") and not _is_json(lines[-1])
    complete = lines[:-1] if cut_short else lines
    return [_record(path, number, line) for number, line in enumerate(complete, 1) if line.strip()], cut_short


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _record(path: Path, number: int, line: str) -> EpochRecord:
    try:
        row = _nan_for_null(json.loads(line))
        return EpochRecord(**{field.name: row[field.name] for field in fields(EpochRecord) if field.name in row})
    except (ValueError, TypeError) as error:
        raise _damaged(path, f"line {number}: not an epoch record ({error})") from error


def _read_predictions(path: Path) -> list[Prediction]:
    if not path.is_file():
        return []
    rows = csv.DictReader(io.StringIO(_text(path), newline=""))
    try:
        return [_prediction(path, rows.line_num, row) for row in rows]
    except csv.Error as error:
        raise _damaged(path, f"line {rows.line_num}: {error}") from error


def _prediction(path: Path, number: int, row: Mapping[str, str]) -> Prediction:
    try:
        return Prediction(row["id"], row["target"], row["prediction"], float(row["confidence"]), _top(row))
    except KeyError as error:
        raise _damaged(path, f"column {error.args[0]} is missing") from error
    except (ValueError, TypeError) as error:
        raise _damaged(path, f"line {number}: {error}") from error


def _top(row: Mapping[str, str]) -> dict[str, float]:
    ranks = [key.removeprefix("class_") for key in row if key and key.startswith("class_")]
    return {row[f"class_{rank}"]: float(row[f"probability_{rank}"]) for rank in ranks}


def _nan_for_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_for_null(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_nan_for_null(inner) for inner in value]
    return math.nan if value is None else value


def _damaged(path: Path, cause: str) -> DataError:
    return DataError(cause, path=path, next_step=how_to_score_again(path.parent))


def how_to_score_again(directory: Path) -> str:
    """What to type for new scores of a run, or of the run or bundle that an evaluation is of. They go to a directory of
    their own: what is damaged stays."""
    parent = directory.resolve().parent
    if parent.name == "evaluations":
        return f"evaluate the run again, with the same overrides: {_evaluate(parent.parent)}"
    if parent.name.endswith("-bundle"):
        return "evaluate the bundle again, with the same overrides: python -m toolkit evaluate BUNDLE"
    scored = shlex.quote(str(directory / "evaluations" / "TIME"))
    return f"score it anew: {_evaluate(directory)}, and report that: python -m toolkit report {scored}"


def _evaluate(run: Path) -> str:
    return f"python -m toolkit evaluate {shlex.quote(str(run))}"
