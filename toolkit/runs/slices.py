"""Scores by slice: by source, size, brightness and each column of the metadata; those that are worse than the rest.

A slice is worse only where a test says so that is corrected for all slices (Holm). Items of one source are drawn
together, except where the slice is a source: then the question is about that source alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from toolkit.api.answers import number
from toolkit.api.contracts import TargetForm
from toolkit.api.files import csv_text
from toolkit.data.columns import SOURCE
from toolkit.runs.directory import RunDirectory
from toolkit.runs.rows import MEASURE, Row, measured
from toolkit.runs.scores import interval_text, is_share, score_text
from toolkit.runs.significance import SIGNIFICANT, Interval, below_rest, holm, mean_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEWEST = 5
"""Items that a slice has, at least, and that are outside of it: fewer say nothing."""
DISTINCT = 20
"""A column of numbers with more values than these is cut into `PARTS`; each value of another is a slice."""
PARTS = 5
"""Slices of about the same number of items, by quantiles."""
COLUMNS = ("column", "value", "items", "measure", "score", "low", "high", "rest", "p_value", "worse")

Columns: TypeAlias = Mapping[str, Mapping[str, str] | Mapping[str, float]]
"""What is known of items, by column and id."""


@dataclass(frozen=True)
class Slice:
    """The items with one value of a column, and their mean measure; see `MEASURE`."""

    column: str
    value: str
    items: int
    measure: str
    score: float
    interval: Interval
    rest: float
    """The mean measure of all other items whose value is known."""
    p_value: float
    """That this slice is not worse than the rest, corrected for all slices."""

    @property
    def worse(self) -> bool:
        return self.p_value < SIGNIFICANT

    @property
    def name(self) -> str:
        return f"{self.column} {self.value}"

    @property
    def gap(self) -> float:
        """How much worse than the rest it is, in the unit of the measure; negative where it is better."""
        return self.rest - self.score if is_share(self.measure) else self.score - self.rest

    @property
    def texts(self) -> tuple[str, str, str]:
        """Score, interval, and the difference to the rest."""
        difference = self.score - self.rest
        apart = f"{100 * difference:+.1f} points" if is_share(self.measure) else f"{difference:+.4f}"
        return score_text(self.measure, self.score), interval_text(self.measure, *self.interval), apart

    @property
    def sentence(self) -> str:
        """`light night: accuracy 41.0 % of 63 items, 20 points below the rest`."""
        share = is_share(self.measure)
        apart = f"{100 * self.gap:.0f} points below" if share else f"{number(self.gap)} above"
        return f"{self.name}: {self.measure} {self.texts[0]} of {self.items} items, {apart} the rest"


def slices_of(rows: Sequence[Row], form: TargetForm, sources: Mapping[str, str], columns: Columns) -> list[Slice]:
    """The slices of N items, those that are worse first, then by how far they are below the rest. `sources` and
    `columns` may name other items too; what they do not name has no slice."""
    import numpy as np

    values = np.array([measured(row) for row in rows], np.float64)
    groups = {name: place for place, name in enumerate(dict.fromkeys(sources.get(row.id, row.id) for row in rows))}
    places = np.array([groups[sources.get(row.id, row.id)] for row in rows], np.int64)
    found = [
        one
        for name, column in {SOURCE: sources, **columns}.items()
        for one in _of_column(name, [column.get(row.id) for row in rows], values, places, MEASURE[form])
    ]
    corrected = holm([one.p_value for one in found])
    judged = [replace(one, p_value=p_value) for one, p_value in zip(found, corrected, strict=True)]
    return sorted(judged, key=lambda one: (not one.worse, -one.gap))


def _of_column(
    name: str,
    column: Sequence[str | float | None],
    values: NDArray[np.float64],
    sources: NDArray[np.int64],
    measure: str,
) -> Iterator[Slice]:
    """The slices of one column, with p-values that are not corrected yet."""
    import numpy as np

    known = [place for place, value in enumerate(column) if value is not None]
    labels = _labels([value for value in column if value is not None])
    numbers = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    codes = np.array([numbers[label] for label in labels], np.int64)
    measures, shares = values[known], is_share(measure)
    drawn = np.arange(len(known)) if name == SOURCE else sources[known]
    upwards = measures if shares else -measures
    counts = np.bincount(codes, minlength=len(numbers)).tolist()
    for label, code in numbers.items():
        count = counts[code]
        if min(count, len(known) - count) < FEWEST:
            continue
        inside = codes == code
        p_value = below_rest(upwards, inside, drawn, shares=shares)
        interval = mean_interval(measures[inside], drawn[inside], shares=shares)
        score, rest = float(measures[inside].mean()), float(measures[~inside].mean())
        yield Slice(name, label, count, measure, score, interval, rest, 1.0 if math.isnan(p_value) else p_value)


def _labels(column: Sequence[str | float]) -> list[str]:
    """The slice of each value: the value itself, or the part of the numbers that it lies in."""
    import numpy as np

    numbers = _numbers(column)
    if len({*numbers}) <= DISTINCT:
        return [number(value) if isinstance(value, float) else value for value in column]
    array = np.asarray(numbers, np.float64)
    edges = np.unique(np.quantile(array, np.arange(1, PARTS) / PARTS))
    parts = np.searchsorted(edges, array)
    ranges = {part: array[parts == part] for part in {*parts.tolist()}}
    named = {part: f"{number(float(held.min()))} to {number(float(held.max()))}" for part, held in ranges.items()}
    return [named[part] for part in parts.tolist()]


def _numbers(column: Sequence[str | float]) -> list[float]:
    """The values of a column that has numbers alone; none of another."""
    try:
        numbers = [float(value) for value in column]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def worse_than_rest(slices: Sequence[Slice]) -> list[Slice]:
    """Those that are worse, the worst first."""
    return [one for one in slices if one.worse]


def write_slices(directory: RunDirectory, slices: Sequence[Slice]) -> None:
    """Write slices.csv; a run without any has none."""
    if not slices:
        directory.remove(directory.slices)
        return
    lines: list[Sequence[object]] = [COLUMNS]
    for one in slices:
        numbers = (one.score, *one.interval, one.rest, one.p_value)
        shown = ("" if math.isnan(value) else f"{value:.6g}" for value in numbers)
        lines.append((one.column, one.value, one.items, one.measure, *shown, "yes" if one.worse else "no"))
    directory.write_text(directory.slices, csv_text(lines))


def read_slices(directory: RunDirectory) -> list[Slice]:
    """The rows of slices.csv; none where there is no such file. Raises DataError where it is damaged."""
    return directory.read_rows(directory.slices, _read)


def _read(row: Mapping[str, str]) -> Slice:
    score, low, high, rest, p_value = (
        float(row[name] or "nan") for name in ("score", "low", "high", "rest", "p_value")
    )
    interval = Interval(low, high)
    return Slice(row["column"], row["value"], int(row["items"]), row["measure"], score, interval, rest, p_value)
