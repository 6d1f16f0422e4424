"""What a comparison finds, as plain values: scores with intervals, differences with tests, items that flipped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

from toolkit.api.contracts import Direction
from toolkit.api.errors import UsageError, nearest
from toolkit.runs.compare.contender import Contender
from toolkit.runs.compare.protocols import ABSENT, differences
from toolkit.runs.rows import MEASURE, measured
from toolkit.runs.scores import Certainty, is_share, possible, score_text
from toolkit.runs.significance import (
    SIGNIFICANT,
    UNKNOWN,
    Interval,
    Jackknife,
    bootstrap,
    holm,
    jackknife,
    mcnemar,
    mean_interval,
    over_runs,
    sign_flip,
    welch,
)

BOTH = "runs and items"
"""What a difference must be more than chance of, where both sides have several runs."""


@dataclass(frozen=True)
class Estimated:
    """A score with its interval."""

    value: float
    interval: Interval
    over: str
    """What the interval is of: `items`, `runs`, or empty for a single run."""


@dataclass(frozen=True)
class Flips:
    """Items that one of two contenders answers better than the other."""

    better: tuple[str, ...]
    """Ids of those that the second answers better."""
    worse: tuple[str, ...]
    by_class: Mapping[str, tuple[int, int]]
    """Better and worse, by target; most flips first. Empty where targets are numbers."""
    by_source: Mapping[str, tuple[int, int]]
    """The same by source, where items have sources."""


@dataclass(frozen=True)
class Pair:
    """The second contender against the first, by the measure of single items."""

    first: Contender
    second: Contender
    difference: float
    """Second less first, the mean over the items that both answered."""
    interval: Interval
    """Of the difference, by the bootstrap over items."""
    over_runs: Interval
    """Of the difference of the means over runs; unknown where one side has a single run."""
    test: str
    """What the p-value is of."""
    p_value: float
    corrected: float
    """The p-value after Holm's correction for all pairs of the comparison."""
    items: int
    flips: Flips

    @property
    def significant(self) -> bool:
        return self.corrected < SIGNIFICANT

    @property
    def gain(self) -> float:
        """The difference, positive where the second is better."""
        return self.difference if self.first.form != "number" else -self.difference

    @property
    def sentence(self) -> str:
        """What the pair says, for the screen."""
        first, second = self.first.name, self.second.name
        numbers = f"p = {self.corrected:.2g}, {self.test}"
        if not self.significant:
            return f"{second} and {first}: no difference beyond chance ({numbers})"
        return f"{second} is {'better' if self.gain > 0 else 'worse'} than {first} ({numbers})"


@dataclass(frozen=True)
class Comparison:
    """All that is found of some contenders; the first is the one that others are held against."""

    contenders: tuple[Contender, ...]
    pairs: tuple[Pair, ...]
    """Every two of them, in their order."""
    unlike: tuple[str, ...]
    """Differences between protocols, where they are compared nevertheless."""

    @property
    def measure(self) -> str:
        return MEASURE[self.contenders[0].form]

    @property
    def shares(self) -> bool:
        """Whether the measure is a share of the items."""
        return is_share(self.measure)

    @property
    def split(self) -> str:
        return self.contenders[0].first.split

    def against_first(self, contender: Contender) -> Pair | None:
        """The contender against the first one; None for the first."""
        return next((one for one in self.pairs if one.first is self.contenders[0] and one.second is contender), None)

    @cached_property
    def best(self) -> Contender | None:
        """The contender that is better than every other beyond chance, if there is one."""
        for one in self.contenders if self.pairs else ():
            signs = [
                pair.significant and (pair.gain > 0) == (pair.second is one)
                for pair in self.pairs
                if one in (pair.first, pair.second)
            ]
            if all(signs):
                return one
        return None

    @cached_property
    def recipes(self) -> dict[str, tuple[Any, ...]]:
        """The keys in which the recipes differ, with the value of each contender."""
        tables = [one.tables for one in self.contenders]
        keys = dict.fromkeys(key for table in tables for key in table)
        found = {key: tuple(table.get(key, ABSENT) for table in tables) for key in keys}
        return {key: values for key, values in found.items() if any(value != values[0] for value in values)}

    @cached_property
    def measured(self) -> dict[str, Estimated]:
        """The measure of each contender, by name."""
        return {one.name: _measured(one) for one in self.contenders}

    def measure_of(self, one: Contender) -> Estimated:
        """As `measured`, with the interval over runs where the contender has several."""
        estimated = self.measured[one.name]
        if not _repeated(one):
            return estimated
        interval = possible(self.measure, over_runs(_by_run(one, list(one.items))))
        return replace(estimated, interval=interval, over="runs")

    @cached_property
    def scores(self) -> dict[str, tuple[Estimated | None, ...]]:
        """Every scalar score, one a contender; None where it has no such score."""
        names = dict.fromkeys(name for one in self.contenders for name in one.scores)
        return {name: tuple(_scored(one, name) for one in self.contenders) for name in names}

    def worse(self, metric: str) -> list[str]:
        """Sentences on those contenders that are worse than the first by this score, beyond chance. Raises UsageError
        where the score cannot be tested."""
        first, *others = self.contenders
        changes = [self._changed(first, other, metric) for other in others]
        corrected = holm([change.p_value for change in changes])
        return [
            f"{other.name}: {metric} {score_text(metric, change.after)} where {first.name} has "
            f"{score_text(metric, change.before)} (p = {p_value:.2g})"
            for other, change, p_value in zip(others, changes, corrected, strict=True)
            if change.worse and p_value < SIGNIFICANT
        ]

    def _changed(self, first: Contender, other: Contender, metric: str) -> _Change:
        pair = self.against_first(other)
        if pair and metric == self.measure:
            before, after = self.measured[first.name].value, self.measured[other.name].value
            return _Change(before, after, pair.gain < 0, pair.p_value)
        _require_testable(metric, first, other)
        sides = first.scores[metric], other.scores[metric]
        before, after = (math.fsum(values) / len(values) for values in sides)
        worse = after < before if direction_of(metric, first) == "maximize" else after > before
        paired = _paired(metric, first, other)
        p_value = welch(*sides).p_value if paired is None else paired.p_value
        return _Change(before, after, worse, p_value)


class _Change(NamedTuple):
    """A score of the first contender and of another."""

    before: float
    after: float
    worse: bool
    p_value: float


def compare(contenders: Sequence[Contender]) -> Comparison:
    """Hold contenders against each other, every two of them."""
    pairs = [_pair(first, second) for first, second in combinations(contenders, 2)]
    corrected = holm([pair.p_value for pair in pairs])
    held = tuple(replace(pair, corrected=p) for pair, p in zip(pairs, corrected, strict=True))
    return Comparison(tuple(contenders), held, tuple(differences(contenders)))


def direction_of(metric: str, contender: Contender) -> Direction | None:
    """Which way a score is better; None where the files of a run do not say."""
    train = contender.first.tables["train"]
    if train.get("metric") == metric:
        direction: Direction = train.get("direction", "maximize")
        return direction
    if is_share(metric) and metric != "ece":
        return "maximize"
    return "minimize" if metric in ("loss", "log_loss", "ece") else None


def _require_testable(metric: str, *contenders: Contender) -> None:
    known = sorted({*contenders[0].scores} & {*contenders[1].scores})
    if metric not in known:
        near = nearest(metric, known)
        hint = f'did you mean "{near}"?' if near else f"choose from {', '.join(known)}"
        raise UsageError(f"--fail-if-worse {metric}: no such score; {hint}", next_step=_with(near or "accuracy"))
    if direction_of(metric, contenders[0]) is None:
        reason = "the runs do not say which way it is better"
        raise UsageError(f"--fail-if-worse {metric}: {reason}", next_step=_with("accuracy"))
    single = next((one.name for one in contenders if len(one.runs) < 2), None)
    if single is not None and _paired(metric, *contenders) is None:
        reason = f"{single} is one run; a score of the whole split needs two single runs, or several seeds of each side"
        raise UsageError(f"--fail-if-worse {metric}: {reason}", next_step=_with("accuracy"))


def _paired(metric: str, first: Contender, other: Contender) -> Jackknife | None:
    """The difference of a score of two single runs on the same items; None where it cannot be judged by blocks."""
    one, two = (side.replicates.get(metric, ()) for side in (first, other))
    if len(one) < 2 or len(one) != len(two) or {*first.targets} != {*other.targets}:
        return None
    changes = [after - before for before, after in zip(one, two, strict=True)]
    found = jackknife(other.scores[metric][0] - first.scores[metric][0], changes)
    return None if math.isnan(found.p_value) else found


def _with(metric: str) -> str:
    return f"judge by another score: --fail-if-worse {metric}"


def _measured(one: Contender) -> Estimated:
    values = list(one.items.values())
    mean = math.fsum(values) / len(values) if values else math.nan
    sources = _sources(one, one.items)
    if is_share(MEASURE[one.form]) and mean in (0.0, 1.0):  # every draw of a bootstrap would be the same
        return Estimated(mean, mean_interval(values, sources, shares=True), "items")
    return Estimated(mean, bootstrap(values, sources), "items")


def _scored(one: Contender, name: str) -> Estimated | None:
    values = one.scores.get(name)
    if not values:
        return None
    if len(values) == 1:
        known = Certainty.of(one.first.scores, one.first.split).intervals.get(name)
        return Estimated(values[0], UNKNOWN if known is None else Interval(*known), "" if known is None else "items")
    return Estimated(math.fsum(values) / len(values), possible(name, over_runs(values)), "runs")


def _sources(contender: Contender, ids: Mapping[str, float] | Sequence[str]) -> list[str]:
    """What each item comes from: itself, where nothing is known."""
    known = contender.sources
    return [known.get(name, name) for name in ids]


def _pair(first: Contender, second: Contender) -> Pair:
    ids = [name for name, target in first.targets.items() if second.targets.get(name) == target]
    sources = _sources(first, ids)
    changes = [second.items[name] - first.items[name] for name in ids]
    test, p_value = _tested(changes, sources)
    runs = UNKNOWN
    if _repeated(first) and _repeated(second):
        between = welch(_by_run(first, ids), _by_run(second, ids))
        runs, test = between.interval, BOTH
        p_value = max(p_value, between.p_value)
    return Pair(
        first,
        second,
        difference=math.fsum(changes) / len(changes) if changes else math.nan,
        interval=bootstrap(changes, sources),
        over_runs=runs,
        test=test,
        p_value=p_value,
        corrected=p_value,
        items=len(ids),
        flips=_flips(first, dict(zip(ids, changes, strict=True))),
    )


def _tested(changes: Sequence[float], sources: Sequence[str]) -> tuple[str, float]:
    """The name of the test over items, and its p-value."""
    alone = len({*sources}) == len(sources)
    if alone and {*changes} <= {-1.0, 0.0, 1.0}:
        return "exact McNemar test", mcnemar(changes.count(-1.0), changes.count(1.0))
    what = "items" if alone else "sources"
    return f"permutation test over {what}", sign_flip(changes, sources)


def _repeated(one: Contender) -> bool:
    """Whether its runs repeat one another: those of folds are tested on other items each."""
    return len(one.runs) > 1 and len(one.protocols) == 1


def _by_run(one: Contender, ids: Sequence[str]) -> list[float]:
    """The mean measure of each run over these items."""
    wanted, found = {*ids}, []
    for run in one.runs:
        values = [measured(row) for row in run.rows if row.id in wanted]
        found.append(math.fsum(values) / len(values) if values else math.nan)
    return found


def _flips(first: Contender, changes: Mapping[str, float]) -> Flips:
    """Items whose answer became better or worse; of numbers none: every answer moves a little."""
    if first.form == "number":
        return Flips((), (), {}, {})
    better = tuple(name for name, change in changes.items() if change > 0)
    worse = tuple(name for name, change in changes.items() if change < 0)
    sources = {name: first.sources[name] for name in changes if name in first.sources}
    return Flips(better, worse, _tallied(better, worse, first.targets), _tallied(better, worse, sources))


def _tallied(better: Sequence[str], worse: Sequence[str], kind: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Better and worse items of each kind, the most first."""
    up, down = (Counter(kind[name] for name in ids if name in kind) for ids in (better, worse))
    order = sorted({*up, *down}, key=lambda one: (-up[one] - down[one], one))
    return {one: (up[one], down[one]) for one in order}
