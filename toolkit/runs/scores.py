"""Scores as a person reads them: shares in percent, and one row for each number, however many metrics give it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from toolkit.api.answers import percent
from toolkit.runs.significance import Interval, wilson_interval

SHARES = frozenset({"accuracy", "precision", "recall", "f1", "ece"})
"""Words in the names of scores that are shares of a whole, 0..1."""


class Row(NamedTuple):
    """Scalar scores that are equal on every split."""

    names: tuple[str, ...]
    values: tuple[float | None, ...]
    """One a split; None where the split has no such score."""

    @property
    def heading(self) -> str:
        return " = ".join(self.names)

    @property
    def texts(self) -> tuple[str, ...]:
        """The values as `score_text`; empty where a split has no such score."""
        return tuple("" if value is None else score_text(self.names[0], value) for value in self.values)


def score_text(name: str, value: float) -> str:
    """`81.3 %` for a share, `0.8134` for another score, `undefined` for NaN."""
    if math.isnan(value):
        return "undefined"
    return percent(value) if is_share(name) else f"{value:.4f}"


def interval_text(name: str, low: float, high: float) -> str:
    """`78.9 to 83.5 %` for a share, `0.7890 to 0.8350` for another score; empty where it is unknown."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"{100 * low:.1f} to {percent(high)}" if is_share(name) else f"{low:.4f} to {high:.4f}"


@dataclass(frozen=True)
class Certainty:
    """What the scores of one split are to be read against."""

    intervals: Mapping[str, Sequence[float]]
    """Both ends of the 95 % interval of each score."""
    baselines: Mapping[str, Mapping[str, float]]
    """The scores of answers that look at no item, by how they are made."""

    @classmethod
    def of(cls, scores: Mapping[str, Any], split: str) -> Certainty:
        """As scores.json has it; empty where it does not."""
        return cls(scores.get("intervals", {}).get(split, {}), scores.get("baselines", {}).get(split, {}))

    @property
    def headings(self) -> list[str]:
        return ["95 % interval", *self.baselines] if self.intervals else []

    def interval(self, name: str, share: float, count: int) -> Interval:
        """The interval of a score that is a share of `count` items; Wilson's where scores.json has none."""
        found = Interval(*self.intervals.get(name, (math.nan, math.nan)))
        return wilson_interval(share, count) if math.isnan(found.low + found.high) else found

    def baseline(self, kind: str, name: str, otherwise: float) -> float:
        """The score of one kind of answers that look at no item; `otherwise` where scores.json has none."""
        return self.baselines.get(kind, {}).get(name, otherwise)

    def texts(self, name: str) -> list[str]:
        """The interval and the baselines of a score, one for each heading."""
        if not self.intervals:
            return []
        low, high = self.intervals.get(name, (math.nan, math.nan))
        values = [one.get(name) for one in self.baselines.values()]
        return [interval_text(name, low, high), *("" if one is None else score_text(name, one) for one in values)]


def is_share(name: str) -> bool:
    """Whether the score of this name is a share of a whole."""
    return not SHARES.isdisjoint(name.split("_"))


def possible(name: str, found: Interval) -> Interval:
    """What of an interval the score of this name can reach: a share stays within 0 to 1."""
    if math.isnan(found.low) or not is_share(name):
        return found
    return Interval(max(0.0, found.low), min(1.0, found.high))


def score_rows(splits: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The scalar scores of some splits. `loss` and `log_loss` often agree, as do macro and weighted averages over
    classes of equal size; what is undefined agrees with nothing."""
    scalars = [{name: value for name, value in split.items() if _scalar(value)} for split in splits]
    rows: dict[object, Row] = {}
    for name in dict.fromkeys(name for split in scalars for name in split):
        values = tuple(split.get(name) for split in scalars)
        # Sums in another order differ in the last digits.
        digits = is_share(name), *(None if value is None else f"{value:.5g}" for value in values)
        defined = all(value is None or math.isfinite(value) for value in values)
        alike: object = digits if defined else name
        names = rows[alike].names if alike in rows else ()
        rows[alike] = Row((*names, name), values)
    return list(rows.values())


def _scalar(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
