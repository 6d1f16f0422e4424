"""Runs of one recipe that differ in the seed alone: their scores, with mean and standard deviation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from toolkit.runs.files import RunFiles
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

    table = Table(title=cell(title), title_justify="left")
    table.add_column("score")
    for heading in columns:
        table.add_column(cell(heading), justify="right")
    for name in dict.fromkeys(name for scores in columns.values() for name in scores):
        table.add_row(cell(name), *(mean_text(scores.get(name, ())) for scores in columns.values()))
    return table
