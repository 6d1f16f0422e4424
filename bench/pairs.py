"""Two pieces of code timed side by side, and how far the ratio can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeAlias

from bench.instructions import Instructions
from bench.load import Usage, others_share, usage

Timer: TypeAlias = Callable[[], float]
"""Does its work once and gives the seconds it took."""
Watch: TypeAlias = Callable[[], Usage | None]
"""Reads what the cores have done so far."""
Verdict: TypeAlias = Literal["met", "missed", "noisy"]
"""Noisy: the timings do not decide."""

RESAMPLES = 10_000
LEVEL = 0.95
FEWEST = 5
"""Pairs that decide: the least and the greatest of five ratios hold the true median in 94 % of all cases."""
BUSY = 0.1
"""The share of the cores that other processes may take. On two cores, a fifth of one."""


@dataclass(frozen=True)
class Interval:
    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    @property
    def widened(self) -> Interval:
        """The least interval that holds this one and, with each value, its inverse."""
        factor = max(self.high, 1 / self.low)
        return Interval(1 / factor, factor)

    def __str__(self) -> str:
        return f"[{self.low:.3g},{self.high:.3g}]"


@dataclass(frozen=True)
class Effort:
    """How much is measured for one figure."""

    pairs: int
    """Of the first round, at least 2."""
    seconds: float
    """A round begins only if it is likely to end within these; the first one always begins."""


@dataclass(frozen=True)
class Paired:
    """N pairs of timings, in seconds, of our code and of what it is compared with."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    repeats: tuple[float, ...]
    """Ratios of one code's time to its own in the run right after: N - 1 of each round."""
    load: float | None = None
    """The share of the cores that other processes took meanwhile; None where that is unknown or has no influence."""

    @classmethod
    def together(cls, rounds: Sequence[Paired]) -> Paired:
        """The rounds in which little else ran; all of them if something else always did."""
        taken = [one for one in rounds if not one.disturbed] or rounds
        loads = [one.load for one in taken if one.load is not None]
        return cls(
            ours=tuple(seconds for one in taken for seconds in one.ours),
            theirs=tuple(seconds for one in taken for seconds in one.theirs),
            repeats=tuple(ratio for one in taken for ratio in one.repeats),
            load=max(loads, default=None),
        )

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

    @property
    def disturbed(self) -> bool:
        return self.load is not None and self.load > BUSY

    def doubts(self, target: float) -> tuple[str, ...]:
        """Why it is open whether the ratio reaches a target; empty where it is not."""
        return tuple(self._doubts(target))

    def _doubts(self, target: float) -> Iterator[str]:
        if self.load is not None and self.disturbed:
            yield f"other processes took {self.load:.0%} of the cores"
        if len(self.ours) < FEWEST:
            yield f"fewer than {FEWEST} pairs"
        if self.interval.holds(target):
            yield "the interval holds the target"
        elif self.floor.widened.holds(self.ratio / target):
            yield "the same code against itself differs by as much"


@dataclass(frozen=True)
class Figure:
    """One line of a bench."""

    name: str
    paired: Paired
    target: float | None = None
    """Least median ratio; None where the ratio is only shown."""
    facts: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    """Targets missed that time has no influence on."""
    late: tuple[str, ...] = ()
    """Targets of time missed, other than the ratio's: on a busy machine they say nothing."""
    instructions: Instructions | None = None
    """What the target is for, if it depends on the processor."""

    @property
    def verdict(self) -> Verdict:
        if self.faults:
            return "missed"
        if self._doubts:
            return "noisy"
        return "missed" if self.late or (self.target is not None and self.paired.ratio < self.target) else "met"

    @property
    def _doubts(self) -> tuple[str, ...]:
        if self.target is not None:
            return self.paired.doubts(self.target)
        return ("the machine is busy",) if self.late and self.paired.disturbed else ()

    def __str__(self) -> str:
        paired = self.paired
        measured = (
            f"{self.name} ratio={paired.ratio:.3g} ci={paired.interval} n={len(paired.ours)} aa={paired.floor}",
            *([f"load={paired.load:.0%}"] if paired.load is not None else []),
            *([f"target>={self.target:g}"] if self.target is not None else []),
            *([f"for {self.instructions}"] if self.instructions is not None else []),
            *self.facts,
        )
        return " ".join(measured) + self._ending()

    def _ending(self) -> str:
        if self.verdict == "missed":
            return "; " + ", ".join(["MISSED", *self.faults, *self.late])
        if self.verdict == "noisy":
            return "; noisy: " + ", ".join([*self._doubts, *self.late])
        return "" if self.target is None else "; met"


@dataclass(frozen=True)
class Skipped:
    """A line in place of a figure that cannot be measured here."""

    name: str
    reason: str
    verdict: Verdict = "met"

    def __str__(self) -> str:
        return f"{self.name} skipped: {self.reason}"


def compare(
    ours: Timer,
    theirs: Timer,
    effort: Effort,
    target: float | None = None,
    *,
    watch: Watch = usage,
    clock: Callable[[], float] = time.monotonic,
) -> Paired:
    """Rounds of pairs until it is decided whether the ratio reaches the target, or the time is over.

    Each round has as many pairs as all before it together, or as many as fit. So few looks are taken: each one is a
    chance to stop at a wrong answer. Without a target there is one round. Timings of CPU seconds are not `watch`ed.
    """
    begun, rounds = clock(), [interleave(ours, theirs, effort.pairs, watch=watch)]
    while target is not None and Paired.together(rounds).doubts(target):
        pairs, taken = sum(len(one.ours) for one in rounds), clock() - begun
        fitting = pairs if taken <= 0 else int((effort.seconds - taken) * pairs / taken)
        if fitting < 2:
            break
        rounds.append(interleave(ours, theirs, min(pairs, fitting), watch=watch))
    return Paired.together(rounds)


def unwatched() -> None:
    """A watch for timings on which other processes have no influence."""


def in_turns(ours: Timer, others: Mapping[str, Timer], pairs: int, *, watch: Watch = usage) -> dict[str, Paired]:
    """As `interleave`, with several others that share the timings of ours, and the noise floor."""
    before = watch()
    sides = [ours, *others.values()]
    runs = [(side, side()) for number in range(pairs) for side in (sides if number % 2 == 0 else sides[::-1])]
    load = others_share(before, watch())
    seconds, width = [taken for _, taken in runs], len(sides)
    repeats = tuple(
        first / second for first, second in zip(seconds[width - 1 : -1 : width], seconds[width::width], strict=True)
    )
    own = tuple(taken for side, taken in runs if side is ours)
    return {
        name: Paired(own, tuple(taken for side, taken in runs if side is other), repeats, load)
        for name, other in others.items()
    }


def interleave(ours: Timer, theirs: Timer, pairs: int, *, watch: Watch = usage) -> Paired:
    """Time both sides in the order A B, B A, A B, ... `pairs` times (at least 2).

    Each side goes first as often as the other, so that a drift of the machine favours neither; and where two pairs
    meet, one side runs twice in succession, which gives the noise floor under the same conditions at no cost.
    """
    return in_turns(ours, {"theirs": theirs}, pairs, watch=watch)["theirs"]


def bootstrap(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of the median (B. Efron, Annals of Statistics 7, 1979) at the level `LEVEL`."""
    import numpy as np

    drawn = np.random.default_rng(seed).choice(np.asarray(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
