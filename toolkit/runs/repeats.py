"""Runs of one recipe that differ in the seed alone: their scores, with mean and standard deviation."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.runs.directory import RunDirectory

if TYPE_CHECKING:
    from rich.table import Table


def scored_split(run: RunDirectory) -> str:
    """The split that a finished run is compared by: `test`, or `valid` where the data has no test split."""
    return "test" if _scores(run)["test"] else "valid"


def scores_of(runs: Sequence[RunDirectory]) -> dict[str, tuple[float, ...]]:
    """Each scalar score by name, one number a finished run; NaN where it is undefined."""
    found = [_scores(run)[scored_split(run)] for run in runs]
    names = [name for name, score in found[0].items() if score is None or isinstance(score, float)] if found else []
    return {name: tuple(math.nan if one.get(name) is None else float(one[name]) for one in found) for name in names}


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation. The deviation of a single value is NaN, and both are where a value is."""
    if not all(math.isfinite(value) for value in values):
        return math.nan, math.nan
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def mean_text(values: Sequence[float]) -> str:
    """`0.8500 ± 0.0707`, or the mean alone of a single value."""
    if not values:
        return "—"
    mean, deviation = mean_and_deviation(values)
    if math.isnan(mean):
        return "undefined"
    return f"{mean:.4f}" if math.isnan(deviation) else f"{mean:.4f} ± {deviation:.4f}"


def scores_table(title: str, columns: Mapping[str, Mapping[str, Sequence[float]]]) -> Table:
    """A row for each score, a column for each heading: mean and standard deviation."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("score")
    for heading in columns:
        table.add_column(heading, justify="right")
    for name in dict.fromkeys(name for scores in columns.values() for name in scores):
        table.add_row(name, *(mean_text(scores.get(name, ())) for scores in columns.values()))
    return table


def _scores(run: RunDirectory) -> dict[str, Any]:
    scores: dict[str, Any] = json.loads(run.scores.read_text(encoding="utf-8"))
    return scores
