"""The gate of a runtime: it must answer as onnxruntime does, whose answers the export compared with the trained ones.

No data is here that a model could be scored on, so both are asked about generated pictures: as squares, and of other
sizes. A difference may not be above the limit that the precision had to meet in the export. In reduced precision that
limit can be wide, since the export judges by scores; so a difference may not be above a share of how much answers vary
from picture to picture either.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.serving.bundle.manifest import Input, Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ask = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

EXACT = 1e-4
"""Difference that rounding in float32 explains: of a probability, or as a share of the largest number. Also the limit
where a recipe has none."""
SHARE = 0.1
"""Of the standard deviation of the answers to all pictures: what a difference may be, even if a limit is wider."""
BATCHES, CLIP_BATCHES = (1, 3, 8), (1, 2)
"""Inputs of a call, as squares."""
SHAPES = ((3, 4, 2), (5, 3, 1))
"""Inputs of other sizes: height and width in halves of the square's side, and how many. Clips: one each."""
GRIDS = (2, 5, 13, 34)
"""Points of a side between which the colours of a picture run: coarse and fine."""


@dataclass(frozen=True)
class Agreement:
    """The largest difference between two runtimes, by what it may be."""

    what: str
    """What differs, in words."""
    difference: float
    limit: float

    @property
    def passes(self) -> bool:
        return self.difference <= self.limit  # NaN is not

    def __str__(self) -> str:
        return f"{self.what} differs by {self.difference:.2g}; the limit is {self.limit:.2g}"


def agreement(manifest: Manifest, precision: str, proved: Ask, other: Ask) -> Agreement:
    """Ask two runtimes of the model of this `precision` about the same pictures: `proved` is onnxruntime."""
    pairs = [(proved(pixels), other(pixels)) for pixels in probes(manifest.input)]
    expected, found = (np.concatenate(side).astype(np.float64) for side in zip(*pairs, strict=True))
    differences, limit, count = np.abs(found - expected), _limit(manifest, precision), len(manifest.classes)
    spreads = expected.std(0)
    sizes = np.abs(expected).max(0)

    def of_numbers(what: str, column: int) -> Agreement:
        allowed = max(EXACT * sizes[column], min(limit, SHARE) * spreads[column])
        return Agreement(what, float(differences[:, column].max()), float(allowed))

    score = [of_numbers(f"the {manifest.trust.scored}", count)] if manifest.trust.scored else []
    if manifest.form == "number":
        answers = [of_numbers(f'"{name}"', column) for column, name in enumerate(manifest.classes)]
    else:
        allowed = min(limit, max(EXACT, SHARE * float(spreads[:count].max())))
        answers = [Agreement("a probability", float(differences[:, :count].max()), allowed)]
    return max((*answers, *score), key=_excess)


def probes(expected: Input) -> Iterator[NDArray[np.uint8]]:
    """Batches of generated inputs, uint8 `[N, H, W, 3]` or clips `[N, T, H, W, 3]`, the same each time."""
    side, frames = expected.square, expected.frames
    number = 0
    sizes = [(side, side, count) for count in (BATCHES if frames is None else CLIP_BATCHES)]
    sizes += [(max(h * side // 2, 1), max(w * side // 2, 1), n if frames is None else 1) for h, w, n in SHAPES]
    for height, width, count in sizes:
        yield np.stack([_input(number + place, height, width, frames) for place in range(count)])
        number += count


def _input(number: int, height: int, width: int, frames: int | None) -> NDArray[np.uint8]:
    first = _picture(number, 0, height, width)
    if frames is None:
        return first.astype(np.uint8)
    last = _picture(number, 1, height, width)
    return np.stack([first + (last - first) * (time / frames) for time in range(frames)]).astype(np.uint8)


def _picture(number: int, which: int, height: int, width: int) -> NDArray[np.float64]:
    """Colours from 0 to 255 that run smoothly, with coarse and fine detail; some pictures are dark, others bright."""
    draws = np.random.default_rng((number, which))
    picture = np.full((height, width, 3), 255 * draws.uniform(), np.float64)
    for points in GRIDS:
        grid = draws.uniform(-60, 60, (points, points, 3))
        picture += np.einsum("hp,wq,pqc->hwc", _between(height, points), _between(width, points), grid, optimize=True)
    return picture.clip(0, 255)


def _between(extent: int, points: int) -> NDArray[np.float64]:
    """`[extent, points]`: the weights of the points that each place of a side lies between."""
    places = np.linspace(0, points - 1, extent)
    return (1 - np.abs(places[:, None] - np.arange(points))).clip(0)


def _excess(one: Agreement) -> float:
    """How far a difference goes, by what it may be; infinity where it is not a number."""
    if one.passes:
        return one.difference / one.limit if one.limit else 0.0
    return one.difference / one.limit if one.limit and math.isfinite(one.difference) else math.inf


def _limit(manifest: Manifest, precision: str) -> float:
    """`export.PRECISION.max_difference` of the bundle's recipe."""
    try:
        table: Any = tomllib.loads(manifest.recipe)
    except tomllib.TOMLDecodeError:
        return EXACT
    for key in ("export", precision, "max_difference"):
        table = table.get(key) if isinstance(table, Mapping) else None
    return float(table) if type(table) in (int, float) and 0 <= table <= 1 else EXACT
