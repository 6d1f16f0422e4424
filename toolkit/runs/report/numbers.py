"""What a page says of answers that are numbers. Plain Python: no torch, no numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from toolkit.runs.estimates import Estimate, largest_errors
from toolkit.runs.files import RunFiles


@dataclass(frozen=True)
class OutputScores:
    """The answers of one output compared with their targets, in the unit of the targets; undefined scores are NaN."""

    name: str
    mae: float
    rmse: float
    median: float
    """Of the absolute errors."""
    r2: float
    bias: float
    """Mean of answer less target."""
    mean: float
    """Of the targets."""
    spread: float
    """Standard deviation of the targets."""
    middle: float
    """Median of the targets."""
    baseline: float
    """Mean absolute error of answering the median every time, the best that a constant can do."""


@dataclass(frozen=True)
class Numbers:
    """All that a page shows of numbers."""

    outputs: Sequence[OutputScores]
    rows: Sequence[Estimate]
    errors: Sequence[Estimate]
    """The largest, largest first."""

    @property
    def gain(self) -> float:
        """By what share the answers are nearer than the best constant, the mean over outputs: below 0 where they are
        further, NaN where every target is the same."""
        gains = [1 - one.mae / one.baseline for one in self.outputs if one.baseline]
        return sum(gains) / len(gains) if gains else math.nan


def numbers(files: RunFiles, listed: int) -> Numbers | None:
    """None where targets are classes, or nothing was predicted."""
    rows = files.estimates
    if files.targets != "number" or not rows:
        return None
    errors = [rows[place] for place in largest_errors(rows, listed)]
    return Numbers([output_scores(name, rows) for name in rows[0].target], rows, errors)


def output_scores(name: str, rows: Sequence[Estimate]) -> OutputScores:
    targets = [row.target[name] for row in rows]
    errors = [row.error(name) for row in rows]
    count, middle = len(rows), median(targets)
    mean = math.fsum(targets) / count
    squared = math.fsum(error**2 for error in errors)
    varied = math.fsum((target - mean) ** 2 for target in targets)
    return OutputScores(
        name=name,
        mae=math.fsum(map(abs, errors)) / count,
        rmse=math.sqrt(squared / count),
        median=median(map(abs, errors)),
        r2=1 - squared / varied if varied else math.nan,
        bias=math.fsum(errors) / count,
        mean=mean,
        spread=math.sqrt(varied / count),
        middle=middle,
        baseline=math.fsum(abs(target - middle) for target in targets) / count,
    )
