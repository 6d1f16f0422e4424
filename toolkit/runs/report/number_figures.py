"""Charts of answers that are numbers, a panel for each output."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from toolkit.runs.estimates import Estimate
from toolkit.runs.report.figures import HALF, WHOLE, Drawing, Theme, figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 9
"""Outputs that are drawn, at most."""
MARKERS = 5000
"""Items that are drawn, at most, evenly spaced."""
BINS = 30

Paint = Callable[["Axes", Theme, str], None]


def answers_by_target(rows: Sequence[Estimate]) -> Drawing:
    """Each answer above its target; right ones lie on the diagonal."""

    def paint(axes: Axes, theme: Theme, name: str) -> None:
        shown = rows[:: math.ceil(len(rows) / MARKERS)]
        targets, answers = [row.target[name] for row in shown], [row.prediction[name] for row in shown]
        finite = [value for value in (*targets, *answers) if math.isfinite(value)]
        low, high = min(finite, default=0.0), max(finite, default=1.0)
        axes.scatter(targets, answers, s=14, color=theme.accent, alpha=0.6, linewidths=0)
        axes.plot([low, high], [low, high], color=theme.ink, linewidth=1, linestyle=(0, (2, 3)), label="right")
        axes.set(xlabel="target", ylabel="prediction")
        axes.grid()

    return _panels(rows, paint)


def errors(rows: Sequence[Estimate]) -> Drawing:
    """How many items have which error."""

    def paint(axes: Axes, theme: Theme, name: str) -> None:
        found = [error for error in (row.error(name) for row in rows) if math.isfinite(error)]
        axes.hist(found, bins=BINS, color=theme.accent)
        axes.axvline(0, color=theme.ink, linewidth=1, linestyle=(0, (2, 3)))
        axes.set(xlabel="prediction less target", ylabel="items")
        axes.grid(axis="y")

    return _panels(rows, paint)


def errors_by_target(rows: Sequence[Estimate]) -> Drawing:
    """The error of each answer above its target: whether errors depend on how large the target is."""

    def paint(axes: Axes, theme: Theme, name: str) -> None:
        shown = rows[:: math.ceil(len(rows) / MARKERS)]
        targets, found = [row.target[name] for row in shown], [row.error(name) for row in shown]
        axes.scatter(targets, found, s=14, color=theme.accent, alpha=0.6, linewidths=0)
        axes.axhline(0, color=theme.ink, linewidth=1, linestyle=(0, (2, 3)))
        axes.set(xlabel="target", ylabel="prediction less target")
        axes.grid()

    return _panels(rows, paint)


def _panels(rows: Sequence[Estimate], paint: Paint) -> Drawing:
    names = [*rows[0].target][:PANELS]
    across = min(len(names), 3)
    down = math.ceil(len(names) / across)

    def draw(theme: Theme) -> Figure:
        drawn = figure(HALF, HALF * 0.78) if len(names) == 1 else figure(WHOLE, down * WHOLE / across * 0.78)
        for place, name in enumerate(names, 1):
            axes = drawn.add_subplot(down, across, place)
            if len(names) > 1:
                axes.set_title(shorten(name), loc="left", fontsize=9)
            paint(axes, theme, name)
        return drawn

    return draw
