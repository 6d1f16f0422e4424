"""Two pieces of code timed side by side, and how far the ratio can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

Timer: TypeAlias = Callable[[], float]
"""Does its work once and gives the seconds it took."""

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"[{self.low:.3g},{self.high:.3g}]"


@dataclass(frozen=True)
class Paired:
    """N pairs of timings, in seconds, of our code and of what it is compared with."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    repeats: tuple[float, ...]
    """N - 1 ratios of one code's time to its own in the run right after."""

    @property
    def ratios(self) -> tuple[float, ...]:
        """Their time over ours: above 1 where ours is faster."""
        return tuple(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def interval(self) -> Interval:
        return bootstrap(self.ratios)

    @property
    def floor(self) -> Interval:
        """What the same code against itself gives: a ratio inside this interval shows no difference."""
        return bootstrap(self.repeats)


@dataclass(frozen=True)
class Figure:
    """One line of a bench."""

    name: str
    paired: Paired
    target: float | None = None
    """Least median ratio; None where the ratio is only shown."""
    facts: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    """Targets other than the ratio's that were missed."""

    @property
    def met(self) -> bool:
        return not self.faults and (self.target is None or self.paired.ratio >= self.target)

    def __str__(self) -> str:
        paired = self.paired
        measured = (
            f"{self.name} ratio={paired.ratio:.3g} ci={paired.interval} n={len(paired.ours)} aa={paired.floor}",
            *([f"target>={self.target:g}"] if self.target is not None else []),
            *self.facts,
        )
        return " ".join(measured) + "".join(f"; {remark}" for remark in self._remarks())

    def _remarks(self) -> Iterator[str]:
        if not self.met:
            yield ", ".join(["MISSED", *self.faults])
        if self.target is not None and self.paired.interval.holds(self.target):
            yield "the interval holds the target: take more --pairs"


@dataclass(frozen=True)
class Skipped:
    """A line in place of a figure that cannot be measured here."""

    name: str
    reason: str
    met: bool = True

    def __str__(self) -> str:
        return f"{self.name} skipped: {self.reason}"


def interleave(ours: Timer, theirs: Timer, pairs: int) -> Paired:
    """Time both sides in the order A B, B A, A B, ... `pairs` times (at least 2).

    Each side goes first as often as the other, so that a drift of the machine favours neither; and where two pairs
    meet, one side runs twice in succession, which gives the noise floor under the same conditions at no cost.
    """
    runs = [
        (side, side()) for number in range(pairs) for side in ((ours, theirs) if number % 2 == 0 else (theirs, ours))
    ]
    seconds = [taken for _, taken in runs]
    return Paired(
        ours=tuple(taken for side, taken in runs if side is ours),
        theirs=tuple(taken for side, taken in runs if side is theirs),
        repeats=tuple(first / second for first, second in zip(seconds[1:-1:2], seconds[2::2], strict=True)),
    )


def bootstrap(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of the median (B. Efron, Annals of Statistics 7, 1979) at the level `LEVEL`."""
    import numpy as np

    drawn = np.random.default_rng(seed).choice(np.asarray(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
