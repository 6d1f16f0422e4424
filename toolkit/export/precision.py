"""`export.precision = "auto"`: integers where they pay, float where they cost accuracy.

All that can be is in integers first. If that fails the gate's limits on the validation squares, the layers are ranked
by the error that each causes alone, and return to float, the worst first, until the limits hold. They do so in `PARTS`
parts of the graph, so that the cost has a bound whatever the network: `PARTS` times `PROBES` answers for the ranks, and
about 4 log2(`PARTS`) times at most `ITEMS` answers for the limits. What is found must be faster than fp32 on this
machine, measured side by side.

The gate excuses a drop that may be chance. The search first does without this excuse, and takes it only where nothing
else is faster than fp32.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from toolkit.export.gate import Ask, Held, Reference, held_on_squares
from toolkit.export.integers import GATED, QUANTISED, Part, Ranged, ranged
from toolkit.recipe.tables import Limits
from toolkit.serving.bundle import Searched
from toolkit.serving.bundle.providers import usual_batch
from toolkit.serving.bundle.runtimes import FASTER, rates

if TYPE_CHECKING:
    import onnx

PARTS = 24
"""Of a graph, at most, that return to float one by one."""
PROBES = 16
"""Validation items that the ranks are taken from."""
ITEMS = 1000
"""Validation items, at most, that the limits are tried on while searching. The gate asks about all."""


Opened: TypeAlias = "Callable[[onnx.ModelProto, str], Ask]"
"""Opens a model in a precision as users of the bundle will."""
Measure = Callable[[dict[str, Ask], NDArray[np.uint8]], dict[str, float]]
"""Inputs a second of each: see `rates`."""


@dataclass(frozen=True)
class Chosen:
    """A model, and how it was found."""

    model: onnx.ModelProto
    searched: Searched


def search(
    model: onnx.ModelProto,
    calibration: Iterable[NDArray[np.uint8]],
    expected: Reference,
    opened: Opened,
    *,
    report: Callable[[str], None],
    measure: Measure = rates,
) -> Chosen:
    """The fastest of `model` in fp32 and in integers that is within the limits of int8. `calibration` is that of
    `to_int8`; `report` gets what the search does next.

    Raises DataError where every item for calibration was skipped."""
    begun = time.perf_counter()
    report("taking the ranges of values")
    ranges = ranged(model, calibration, kinds=(*QUANTISED, *GATED))
    search = _Search(ranges, opened(model, "fp32"), expected.part(ITEMS), opened, report, measure)
    layers = len(ranges.layers)

    def chosen(found: _Found | None, reason: str) -> Chosen:
        seconds = round(time.perf_counter() - begun, 1)
        if found is None:
            return Chosen(model, Searched("fp32", (), layers, None, seconds, reason))
        return Chosen(found.model, Searched("int8", found.layers, layers, round(found.speed, 2), seconds))

    speeds = search.speeds() if layers else {}
    worth = sorted((kinds for kinds in speeds if speeds[kinds] > FASTER), key=lambda kinds: -speeds[kinds])
    if not worth:
        best = max(speeds.values(), default=0.0)
        slow = f"int8 has {best:.2f} times the speed of fp32 on this machine"
        return chosen(None, slow if layers else "no layer can be in integers")
    reason = ""
    for kinds in worth:
        found = search.within_limits(kinds)
        if found is None:
            reason = "int8 does not pass the gate, whichever layers stay in float"
        elif found.speed > FASTER:
            return chosen(found, "")
        else:
            reason = f"int8 that passes the gate has {found.speed:.2f} times the speed of fp32 on this machine"
    return chosen(None, reason)


@dataclass(frozen=True)
class _Found:
    model: onnx.ModelProto
    layers: tuple[str, ...]
    """Titles of those in float."""
    speed: float
    """As a multiple of fp32's."""


@dataclass(frozen=True)
class _Search:
    ranges: Ranged
    exact: Ask
    expected: Reference
    opened: Opened
    report: Callable[[str], None]
    measure: Measure

    @property
    def limits(self) -> Limits:
        return self.expected.assembly.recipe.export.int8

    def speeds(self) -> dict[tuple[str, ...], float]:
        """Of the whole model in integers, with and without `GATED` operations, as multiples of fp32's."""
        self.report("comparing the speeds of int8 and fp32")
        inside = {node.op_type for node in self.ranges.model.graph.node if node.name not in self.ranges.kept}
        ways = [QUANTISED, (*QUANTISED, *GATED)] if inside & {*GATED} else [QUANTISED]
        asks = {f"int8 {place}": self._opened((), kinds) for place, kinds in enumerate(ways)}
        found = self._rates(asks)
        return dict(zip(ways, found, strict=True))

    def within_limits(self, kinds: Sequence[str]) -> _Found | None:
        """With the fewest parts in float; None where even all but one are not enough."""
        self.report("trying int8 on the validation split")
        whole = self._held((), kinds)
        if whole.outright:
            return self._found((), kinds)
        parts = self.ranges.parts(PARTS)
        ranked = [parts[place] for place in self._ranks(parts, kinds)]

        @cache
        def held(count: int) -> Held:
            layers = sum(len(part.layers) for part in ranked[:count])
            self.report(f"trying int8 with {layers} of {len(self.ranges.layers)} layers in float")
            return self._held(ranked[:count], kinds)

        def found(count: int | None) -> _Found | None:
            floats = {id(part) for part in ranked[: count or 0]}
            return None if count is None else self._found([part for part in parts if id(part) in floats], kinds)

        outright = found(fewest(lambda count: held(count).outright, len(ranked) - 1))
        if outright is not None and outright.speed > FASTER:
            return outright
        most = len(ranked) - 1
        return found(0 if whole.by_the_gate else fewest(lambda count: held(count).by_the_gate, most)) or outright

    def _ranks(self, parts: Sequence[Part], kinds: Sequence[str]) -> list[int]:
        """Places of the parts, that which errs most in integers by itself first."""
        index = self.expected.evaluation.index
        items = index[np.linspace(0, len(index) - 1, min(PROBES, len(index))).astype(int)].tolist()
        squares = self.expected.squares(items)
        exact = self.exact(squares)
        # Probabilities have one unit; numbers have one each.
        scale = exact.std(0) + 1e-12 if self.expected.assembly.spec.targets == "number" else 1.0
        errors = []
        for place, part in enumerate(parts):
            self.report(f"ranking layers: part {place + 1} of {len(parts)}")
            others = [other for other in parts if other is not part]
            error = float((np.abs(self._opened(others, kinds)(squares) - exact) / scale).mean())
            errors.append(error if np.isfinite(error) else np.inf)
        return sorted(range(len(parts)), key=lambda place: -errors[place])

    def _held(self, floats: Sequence[Part], kinds: Sequence[str]) -> Held:
        return held_on_squares(self._opened(floats, kinds), self.expected, self.limits)

    def _found(self, floats: Sequence[Part], kinds: Sequence[str]) -> _Found:
        self.report("comparing the speeds of int8 and fp32")
        (speed,) = self._rates({"int8": self._opened(floats, kinds)})
        layers = tuple(title for part in floats for title in part.layers)
        return _Found(self.ranges.quantised(_nodes(floats), kinds=kinds), layers, speed)

    def _opened(self, floats: Sequence[Part], kinds: Sequence[str]) -> Ask:
        return self.opened(self.ranges.quantised(_nodes(floats), kinds=kinds), "int8")

    def _rates(self, asks: dict[str, Ask]) -> list[float]:
        shape = self.expected.assembly.spec
        (one,) = self.expected.squares(self.expected.evaluation.index[:1].tolist())[:1]
        batch = one[None].repeat(usual_batch("cpu", shape.frames), 0)
        found = self.measure({"fp32": self.exact, **asks}, batch)
        return [found[name] / found["fp32"] for name in asks]


def fewest(holds: Callable[[int], bool], most: int) -> int | None:
    """The smallest count from 1 to `most` that holds, if more never hurt; None where `most` does not. Asked of about
    2 log2(`most`) counts."""
    failed, count = 0, 1
    while count <= most and not holds(count):
        if count == most:
            return None
        failed, count = count, min(2 * count, most)
    if count > most:
        return None
    while count - failed > 1:
        middle = (failed + count) // 2
        failed, count = (failed, middle) if holds(middle) else (middle, count)
    return count


def _nodes(parts: Sequence[Part]) -> list[str]:
    return [name for part in parts for name in part.nodes]
