"""Runs of one recipe that differ in the seed alone: their scores, with mean and standard deviation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from toolkit.api.answers import percent
from toolkit.runs.files import RunFiles
from toolkit.runs.scores import is_share, score_rows, score_text
from toolkit.system.notices import cell

if TYPE_CHECKING:
    from rich.table import Table


def scores_of(runs: Sequence[RunFiles]) -> dict[str, tuple[float, ...]]:
    """Each scalar score by name, one number a finished run; NaN where it is undefined."""
    found = [run.split_scores for run in runs]
    names = [name for name, score in found[0].items() if isinstance(score, float)] if found else []
    return {name: tuple(one.get(name, math.nan) for one in found) for name in names}


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation. The deviation of a single value is NaN, and both are where a value is."""
    if not all(math.isfinite(value) for value in values):
        return math.nan, math.nan
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def mean_text(name: str, values: Sequence[float]) -> str:
    """The score of this name: `85.0 ± 7.1 %` for a share, else `0.8500 ± 0.0707`; the mean alone of a single value."""
    if not values:
        return "—"
    mean, deviation = mean_and_deviation(values)
    if math.isnan(mean) or math.isnan(deviation):
        return score_text(name, mean)
    return f"{100 * mean:.1f} ± {percent(deviation)}" if is_share(name) else f"{mean:.4f} ± {deviation:.4f}"


class RepeatedRow(NamedTuple):
    """Scores that are equal in every run."""

    heading: str
    texts: tuple[str, ...]
    """Mean and standard deviation, one a column."""


def repeated_rows(columns: Sequence[Mapping[str, Sequence[float]]]) -> list[RepeatedRow]:
    """The scores of some columns of runs, each number once: see `score_rows`."""
    runs = [
        {name: values[place] for name, values in scores.items() if place < len(values)}
        for scores in columns
        for place in range(max(map(len, scores.values()), default=0))
    ]
    return [
        RepeatedRow(row.heading, tuple(mean_text(row.names[0], scores.get(row.names[0], ())) for scores in columns))
        for row in score_rows(runs)
    ]


def scores_table(columns: Mapping[str, Mapping[str, Sequence[float]]]) -> Table:
    """A row for each score, a column for each heading: mean and standard deviation."""
    from rich.table import Table

    table = Table()
    table.add_column("score", overflow="fold")
    for heading in columns:
        table.add_column(cell(heading), justify="right")
    for row in repeated_rows(list(columns.values())):
        table.add_row(cell(row.heading), *row.texts)
    return table
