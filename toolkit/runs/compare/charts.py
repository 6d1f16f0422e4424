"""Charts of a comparison: each score with its interval, and the curves of all contenders."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.runs.compare.comparison import Comparison
from toolkit.runs.compare.contender import Contender
from toolkit.runs.report.figures import HALF, Drawing, Theme, chart, in_percent, name_axes, shorten
from toolkit.runs.scores import is_share
from toolkit.runs.series.members import FRACTION

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def intervals(found: Comparison) -> Drawing:
    """The measure of each contender, one line each, with its interval."""

    def paint(axes: Axes, theme: Theme) -> None:
        for place, one in enumerate(found.contenders):
            estimated = found.measured[one.name]
            low, high = estimated.interval
            colour = theme.series[place % len(theme.series)]
            if math.isfinite(low):
                axes.hlines(place, low, high, color=colour, linewidth=3)
            axes.plot([estimated.value], [place], "o", color=colour, markersize=8)
        axes.set_yticks(range(len(found.contenders)), [shorten(one.name) for one in found.contenders])
        axes.invert_yaxis()
        axes.margins(y=0.4 / max(1, len(found.contenders)) + 0.1)
        axes.set_xlabel(f"{found.measure} on {found.split}")
        axes.grid(axis="x")
        axes.locator_params(axis="x", nbins=5)
        if found.shares:
            in_percent(axes.xaxis)

    return chart(HALF, 1.4 + 0.35 * len(found.contenders), paint)


def fractions_of(found: Comparison) -> dict[str, list[tuple[float, Contender]]]:
    """The shares of the training items that contenders have learned from, ascending, with their contenders, by what
    else distinguishes them; empty where fewer than two shares do."""
    others = [key for key in found.recipes if key != FRACTION]
    curves: dict[str, list[tuple[float, Contender]]] = {}
    for one in found.contenders:
        name = ", ".join(f"{key}={one.tables.get(key)}" for key in others)
        curves.setdefault(name, []).append((float(one.tables.get(FRACTION, 1.0)), one))
    whole = {name: sorted(points, key=lambda point: point[0]) for name, points in curves.items()}
    return whole if all(len({share for share, _ in points}) > 1 for points in whole.values()) else {}


def learning_curves(found: Comparison, curves: Mapping[str, Sequence[tuple[float, Contender]]]) -> Drawing:
    """The measure by the share of the training items, with its interval: over runs where a point has several, else over
    items."""

    def paint(axes: Axes, theme: Theme) -> None:
        lines = {}
        for place, (name, points) in enumerate(curves.items()):
            colour = theme.series[place % len(theme.series)]
            shares = [share for share, _ in points]
            estimates = [found.measure_of(one) for _, one in points]
            lines[name] = axes.plot(shares, [one.value for one in estimates], "o-", color=colour, markersize=5)[0]
            known = [(share, *one.interval) for share, one in zip(shares, estimates, strict=True)]
            for share, low, high in known:
                if math.isfinite(low):
                    axes.vlines(share, low, high, color=colour, linewidth=2, alpha=0.6)
        axes.set_xscale("log")
        ticks = sorted({share for points in curves.values() for share, _ in points})
        axes.set_xticks(ticks, [f"{100 * share:g} %" for share in ticks])
        axes.minorticks_off()
        axes.set_xlabel("training items")
        axes.set_ylabel(f"{found.measure} on {found.split}")
        axes.grid()
        if found.shares:
            in_percent(axes.yaxis)
        if len(lines) > 1:
            drawn: Any = axes.figure
            labels = [f" {shorten(name)}" for name in lines]
            drawn.legend(list(lines.values()), labels, labelcolor=theme.ink, fontsize=8, loc="outside upper left")

    return chart(HALF, 3.0, paint)


def metric_of(contenders: Sequence[Contender]) -> str | None:
    """The score on valid that all contenders have a curve of: the one that chose their best epochs, or the loss."""
    watched = str(contenders[0].first.tables.get("train", {}).get("metric", "loss"))
    for name in (watched, "loss"):
        if all(_curves(one, name) for one in contenders):
            return name
    return None


def overlaid(contenders: Sequence[Contender], name: str) -> Drawing:
    """One score of each epoch on valid: the mean over a contender's runs, and the band between its worst and best."""

    def paint(axes: Axes, theme: Theme) -> None:
        lines = {}
        for place, one in enumerate(contenders):
            colour = theme.series[place % len(theme.series)]
            curves = _curves(one, name)
            longest = max(map(len, curves))
            columns = [[curve[at] for curve in curves if at < len(curve)] for at in range(longest)]
            epochs = range(1, longest + 1)
            marker = "o" if longest <= 30 else ""
            means = [statistics.fmean(column) for column in columns]
            lines[one.name] = axes.plot(epochs, means, color=colour, marker=marker, markersize=3.2)[0]
            if len(curves) > 1:
                lows, highs = ([pick(column) for column in columns] for pick in (min, max))
                axes.fill_between(epochs, lows, highs, color=colour, alpha=0.18, linewidth=0)
        name_axes(axes, "epoch", f"{name} on valid")
        if is_share(name):
            in_percent(axes.yaxis)
        drawn: Any = axes.figure
        drawn.legend(
            list(lines.values()), [f" {shorten(one)}" for one in lines], labelcolor=theme.ink, fontsize=8,
            loc="outside upper left", ncols=min(3, len(lines)),
        )  # fmt: skip

    return chart(HALF, 3.2, paint)


def _curves(one: Contender, name: str) -> list[list[float]]:
    """The score of each epoch, one curve a run that has it."""
    curves = [[record.valid.get(name, math.nan) for record in run.records] for run in one.runs]
    return [curve for curve in curves if curve and all(map(math.isfinite, curve))]
