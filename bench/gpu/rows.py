"""One line of the table of a GPU: a figure with its spread, or why it was not measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeAlias

from bench.pairs import Interval, Paired, Verdict

Ends: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """`value` is in `unit`, the mean or the median of `n` timings; None where `skipped` says why it is missing."""

    what: str
    value: float | None = None
    unit: str = ""
    n: int = 0
    interval: Ends | None = None
    """At the level of `bench.pairs.LEVEL`."""
    floor: Ends | None = None
    """Of the ratio of the same code to itself."""
    at_least: float | None = None
    at_most: float | None = None
    peak_gib: float | None = None
    """Memory of the device, at most, in GiB."""
    facts: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    """Why it is open whether the goal is reached."""
    skipped: str = ""

    @classmethod
    def of_ratio(
        cls,
        what: str,
        paired: Paired,
        *,
        at_least: float | None = None,
        peak_gib: float | None = None,
        facts: tuple[str, ...] = (),
    ) -> Self:
        """How many times as fast as the other side ours is."""
        ends, floor = paired.interval, paired.floor
        return cls(
            what,
            value=paired.ratio,
            unit="times",
            n=len(paired.ours),
            interval=(ends.low, ends.high),
            floor=(floor.low, floor.high),
            at_least=at_least,
            peak_gib=peak_gib,
            facts=facts,
            doubts=() if at_least is None else paired.doubts(at_least),
        )

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self:
        """The row that `as_json` wrote."""
        fields: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in found.items()}
        return cls(**fields)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def missed(self) -> bool:
        """Whether it was measured and does not reach its goal, beyond doubt."""
        return self._verdict == "missed"

    @property
    def verdict(self) -> str:
        """`goal >= 0.95: met`, `missed`, or `noisy` with the reasons; empty without a goal."""
        if self._verdict is None:
            return ""
        goal = f"goal >= {self.at_least:g}" if self.at_least is not None else f"goal <= {self.at_most:g}"
        return f"{goal}: {self._verdict}" + (f" ({', '.join(self.doubts)})" if self.doubts else "")

    @property
    def _verdict(self) -> Verdict | None:
        goal = self.at_least if self.at_least is not None else self.at_most
        if goal is None or self.value is None:
            return None
        if self.doubts or (self.interval is not None and Interval(*self.interval).holds(goal)):
            return "noisy"
        low = self.at_least is not None and self.value < goal
        return "missed" if low or (self.at_most is not None and self.value > goal) else "met"

    def cells(self) -> list[str]:
        """What, value, interval, noise floor, n, memory, remarks."""
        return [
            self.what,
            "" if self.value is None else f"{self.value:.4g} {self.unit}".strip(),
            _between(self.interval),
            _between(self.floor),
            str(self.n or ""),
            "" if self.peak_gib is None else f"{self.peak_gib:.2f} GiB",
            "; ".join(filter(None, (self.skipped, self.verdict, *self.facts))),
        ]

    def __str__(self) -> str:
        what, value, interval, floor, n, memory, remarks = self.cells()
        named = {"ci": interval, "aa": floor, "n": n, "memory": memory}
        shown = (what, value, *(f"{name}={text}" for name, text in named.items() if text), remarks)
        return " ".join(filter(None, shown))


def _between(ends: Ends | None) -> str:
    return "" if ends is None else f"{ends[0]:.3g} to {ends[1]:.3g}"
