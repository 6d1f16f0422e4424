"""The files of a run read back and checked, and its records, which are written here too."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from toolkit.api.contracts import EpochRecord, FileProblem, TargetForm
from toolkit.runs.directory import RunDirectory, existing, nan_for_null, null_for_nan
from toolkit.runs.embedding import Point, read_embedding
from toolkit.runs.estimates import Estimate
from toolkit.runs.file_problems import read_file_problems
from toolkit.runs.predictions import Prediction
from toolkit.runs.rows import ROWS, Row
from toolkit.runs.slices import Slice, read_slices
from toolkit.runs.sources import read_sources

LATENCY = "latency_ms"
"""What facts.json of a bundle's evaluation calls the milliseconds for one input."""


@dataclass(frozen=True)
class RunFiles:
    """What was found in a run directory; files that are absent are empty here."""

    directory: RunDirectory
    recipe: str
    """Text of recipe.toml."""
    facts: Mapping[str, Any]
    records: Sequence[EpochRecord]
    scores: Mapping[str, Any]
    """Contents of scores.json with NaN for null; empty when the run has not finished."""
    rows: Sequence[Row]
    """Of predictions.csv."""
    file_problems: Sequence[FileProblem]
    sources: Mapping[str, str]
    """What items come from, by id; items that stand alone are not in it."""
    slices: Sequence[Slice]
    """Of slices.csv, those that are worse than the rest first."""
    embedding: Mapping[str, Point]
    """Where items lie on the map of embedding.csv, by id."""
    environment: Mapping[str, Any]
    cut_short: bool
    """Whether the last line of records.jsonl was half-written, as a killed process leaves it."""

    @property
    def name(self) -> str:
        return str(self.facts.get("recipe") or self.directory.path.resolve().parent.name)

    @property
    def tables(self) -> Mapping[str, Any]:
        """The recipe's tables. Raises DataError where recipe.toml is not TOML."""
        try:
            return tomllib.loads(self.recipe)
        except tomllib.TOMLDecodeError as error:
            raise self.directory.damaged(self.directory.recipe, f"not valid TOML ({error})") from error

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of their indices."""
        return list(self.facts.get("classes") or ())

    @property
    def targets(self) -> TargetForm:
        """The form of the targets; one class an item where the facts do not say."""
        return form_of(self.facts)

    @property
    def predictions(self) -> Sequence[Prediction]:
        """The rows where answers are classes; none where they are numbers."""
        return [row for row in self.rows if isinstance(row, Prediction)]

    @property
    def estimates(self) -> Sequence[Estimate]:
        """The rows where answers are numbers; none where they are classes."""
        return [row for row in self.rows if isinstance(row, Estimate)]

    @property
    def split(self) -> str:
        """The split that the run is judged on and predictions.csv is of: test, or valid where there is no test
        split."""
        splits = self.scores or self.facts.get("items", {})
        return "test" if splits.get("test") else "valid"

    @property
    def split_scores(self) -> Mapping[str, Any]:
        """Scores on `split`."""
        scores: Mapping[str, Any] = self.scores.get(self.split, {})
        return scores

    @property
    def finished(self) -> bool:
        return bool(self.scores)


def read_run(run: Path) -> RunFiles:
    """Read the files of `run`.

    Raises `UsageError` when `run` is not a run directory and `DataError`, naming file and line, when a file is damaged.
    """
    directory = existing(run)
    records, cut_short = _read_records(directory)
    facts = directory.read_json(directory.facts)
    return RunFiles(
        directory=directory,
        recipe=directory.read_text(directory.recipe),
        facts=facts,
        records=records,
        scores=nan_for_null(directory.read_json(directory.scores)),
        rows=ROWS[form_of(facts)].read(directory),
        file_problems=read_file_problems(directory),
        sources=read_sources(directory),
        slices=read_slices(directory),
        embedding=read_embedding(directory),
        environment=directory.read_json(directory.environment),
        cut_short=cut_short,
    )


def form_of(facts: Mapping[str, Any]) -> TargetForm:
    """The form of the targets; one class an item where the facts do not say."""
    said: Any = facts.get("targets")
    form: TargetForm = said if said in get_args(TargetForm) else "index"
    return form


def write_records(directory: RunDirectory, records: Iterable[EpochRecord]) -> None:
    lines = (json.dumps(null_for_nan(asdict(record)), ensure_ascii=False) + "\n" for record in records)
    directory.write_text(directory.records, "".join(lines))


def _read_records(directory: RunDirectory) -> tuple[list[EpochRecord], bool]:
    """The records, and whether the last line was skipped because it is half-written."""
    path = directory.records
    if not path.is_file():
        return [], False
    text = directory.read_text(path)
    lines = text.splitlines()
    cut_short = bool(lines) and not text.endswith("\n") and not _is_json(lines[-1])
    records = []
    for number, line in enumerate(lines[:-1] if cut_short else lines, 1):
        if not line.strip():
            continue
        try:
            row = nan_for_null(json.loads(line))
            records.append(EpochRecord(**{one.name: row[one.name] for one in fields(EpochRecord) if one.name in row}))
        except (ValueError, TypeError) as error:
            raise directory.damaged(path, f"line {number}: not an epoch record ({error})") from error
    return records, cut_short


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
