"""The map of items on a page: coloured by class, with a text for each point. Plain Python: no torch, no numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.runs.files import RunFiles
from toolkit.runs.predictions import Prediction
from toolkit.runs.rows import Row

WIDTH, HEIGHT, MARGIN = 640, 480, 12
NAMED = 20
"""Most targets that the legend lists: colours of more are too much alike."""
COLOURLESS = "var(--accent)"


@dataclass(frozen=True)
class Spot:
    """One item."""

    x: float
    y: float
    colour: str
    wrong: bool
    text: str


@dataclass(frozen=True)
class Map:
    """All items with their colours."""

    width: int
    height: int
    spots: Sequence[Spot]
    legend: Sequence[tuple[str, str]]
    """Targets with their colours; empty where they are too many."""


def map_of(files: RunFiles) -> Map | None:
    """None where a run has no map."""
    rows = [row for row in files.rows if row.id in files.embedding]
    if not rows:
        return None
    targets = sorted({row.target for row in rows if isinstance(row, Prediction)})
    colours = {name: f"hsl({360 * place / len(targets):.0f} 70% 48%)" for place, name in enumerate(targets)}
    legend = list(colours.items()) if len(targets) <= NAMED else []
    return Map(WIDTH, HEIGHT, [_spot(files, row, colours) for row in rows], legend)


def _spot(files: RunFiles, row: Row, colours: dict[str, str]) -> Spot:
    point = files.embedding[row.id]
    x, y = (MARGIN + at * (side - 2 * MARGIN) for at, side in ((point.x, WIDTH), (point.y, HEIGHT)))
    answer, truth = row.captions
    colour = colours.get(row.target, COLOURLESS) if isinstance(row, Prediction) else COLOURLESS
    wrong = isinstance(row, Prediction) and row.wrong
    return Spot(round(x, 1), round(y, 1), colour, wrong, f"{row.id}: {answer}, {truth}")
