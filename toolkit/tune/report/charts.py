"""The charts of a study, each drawn for light and for dark pages; those that cannot be drawn say why.

Optuna's own charts leave out pruned trials, which are most trials of a study that prunes well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations
from typing import TYPE_CHECKING, Any

from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from toolkit.runs.report.figures import HALF, WHOLE, Drawing, Theme, figure, shorten
from toolkit.tune.outcome import shown
from toolkit.tune.report.contents import Contents, Spent, Tried

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IN_A_ROW = 4
"""Slices beside each other."""
FADED = 0.35
"""How much of a pruned trial's colour is left."""


@dataclass(frozen=True)
class Chart:
    """One figure of the page, or the reason that there is none."""

    name: str
    title: str
    remark: str
    alt: str
    drawing: Drawing | None
    missing: str = ""


@dataclass(frozen=True)
class Section:
    anchor: str
    title: str
    charts: Sequence[Chart]


def sections(contents: Contents) -> list[Section]:
    """All sections that are charts, in the order of the page."""
    found = [
        Section("history", "History", [_history(contents, place) for place in range(len(contents.metrics))]),
        Section("curves", "Learning curves", [_curves(contents)]),
        Section("slices", "Slices", [_slices(contents, place) for place in range(len(contents.metrics))]),
        Section("importances", "Importances", _importances(contents)),
        Section("parallel", "Parallel coordinates", [_parallel(contents)]),
        Section("time", "Where the time went", [_time(contents)]),
    ]
    if len(contents.metrics) > 1:
        found.insert(1, Section("front", "Pareto front", list(_fronts(contents))))
    return found


def _numbered(name: str, contents: Contents, place: int) -> str:
    return name if len(contents.metrics) == 1 else f"{name}_{place}"


def _scored(contents: Contents) -> list[Tried]:
    """The trials with scores, the best drawn last, on top of the others."""
    kept = [one for one in contents.trials if one.scores and all(math.isfinite(score) for score in one.scores)]
    return sorted(kept, key=lambda one: (one.best, one.state == TrialState.COMPLETE))


NO_SCORE = "No trial has a score yet."
READ = "finished trials filled, pruned ones faded at the best score they reached"


# History


def _history(contents: Contents, place: int) -> Chart:
    metric, scored = contents.metrics[place], _scored(contents)

    def draw(theme: Theme) -> Figure:
        drawn = figure(WHOLE, 3.2)
        axes = drawn.subplots()
        _scatter(axes, [one.number for one in scored], scored, place, theme)
        finished = sorted((one for one in scored if one.state == TrialState.COMPLETE), key=lambda one: one.number)
        reached = accumulate((one.scores[place] for one in finished), _better(contents, place))
        axes.step([one.number for one in finished], list(reached), where="post", color=theme.muted, linewidth=1.2)
        _label(axes, "trial", metric)
        return drawn

    title = f"{metric} by trial"
    drawing = draw if scored else None
    return Chart(
        _numbered("history", contents, place), title, f"{READ}; the line is the best so far", title, drawing, NO_SCORE
    )


def _better(contents: Contents, place: int) -> Any:
    return max if contents.directions[place] == "maximize" else min


def _scatter(axes: Axes, across: Sequence[float], trials: Sequence[Tried], place: int, theme: Theme) -> None:
    """One point a trial: its state by fill, the best by colour and size."""
    points = list(zip(across, trials, strict=True))
    for best, finished in ((False, False), (False, True), (True, True)):
        alike = [(x, one) for x, one in points if (one.best, one.state == TrialState.COMPLETE) == (best, finished)]
        axes.scatter(
            [x for x, _ in alike], [one.scores[place] for _, one in alike],
            s=70 if best else 26,
            marker="*" if best else "o",
            color=theme.series[1] if best else theme.accent if finished else theme.muted,
            alpha=1.0 if finished else FADED,
            linewidths=0,
            zorder=2 + best + finished,
        )  # fmt: skip


def _colour(one: Tried, theme: Theme) -> str:
    return theme.series[1] if one.best else theme.accent if one.state == TrialState.COMPLETE else theme.muted


def _label(axes: Axes, across: str, up: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.grid(axis="y")
    axes.tick_params(length=0)


# Learning curves


def _curves(contents: Contents) -> Chart:
    with_curves = [one for one in contents.trials if one.curve]

    def draw(theme: Theme) -> Figure:
        drawn = figure(WHOLE, 3.8)
        axes = drawn.subplots()
        for one in sorted(with_curves, key=lambda one: one.best):
            epochs, values = zip(*one.curve, strict=True)
            axes.plot(
                epochs, values,
                color=_colour(one, theme),
                alpha=1.0 if one.best else 0.75 if one.state == TrialState.COMPLETE else FADED,
                linewidth=2.2 if one.best else 1.1,
                marker="o" if len(epochs) == 1 else "",
                markersize=3,
            )  # fmt: skip
        _label(axes, "epoch", f"{contents.score} on valid")
        return drawn

    remark = "of every trial, with the recipe's seed; pruned ones faded, the best thick"
    missing = "No epoch has this score." if contents.trials else NO_SCORE
    drawing = draw if with_curves else None
    alt = f"Line chart of {contents.score} by epoch, one line a trial"
    return Chart("learning_curves", contents.score, remark, alt, drawing, missing)


# Slices


def _slices(contents: Contents, place: int) -> Chart:
    metric, scored = contents.metrics[place], _scored(contents)
    across = min(len(contents.keys), IN_A_ROW)

    def draw(theme: Theme) -> Figure:
        down = math.ceil(len(contents.keys) / IN_A_ROW)
        drawn = figure(WHOLE if across > 2 else HALF * across, 2.7 * down)
        grid = drawn.subplots(down, across, sharey=True, squeeze=False)
        for axes, key in zip(grid.flat, contents.keys, strict=False):
            having = [one for one in scored if key in one.values]
            scale = Scale.of(key, contents.trials)
            _scatter(axes, [scale.place(one.values[key]) for one in having], having, place, theme)
            scale.mark(axes)
            axes.set_xlabel(contents.short[key])
            axes.grid(axis="y")
        for axes in list(grid.flat)[len(contents.keys) :]:
            axes.set_visible(False)
        for axes in grid[:, 0]:
            axes.set_ylabel(metric)
        return drawn

    drawing = draw if scored and contents.keys else None
    alt = f"Scatter charts of {metric} by the value of each key"
    return Chart(_numbered("slices", contents, place), metric, READ, alt, drawing, NO_SCORE)


@dataclass(frozen=True)
class Scale:
    """Where the values of a key stand on an axis: choices side by side, numbers by their size or its logarithm."""

    choices: Sequence[Any]
    """Empty for numbers."""
    log: bool
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of(cls, key: str, trials: Sequence[Tried]) -> Scale:
        known = next(one.distributions[key] for one in trials if key in one.distributions)
        if isinstance(known, (FloatDistribution, IntDistribution)):
            return cls((), known.log, known.low, known.high)
        choices = getattr(known, "choices", ())
        return cls(choices, False, 0, len(choices) - 1)

    def place(self, value: Any) -> float:
        return float(self.choices.index(value)) if self.choices else float(value)

    def share(self, value: Any) -> float:
        """0 at the low end, 1 at the high one."""
        if self.high == self.low:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (self.place(value) - self.low) / (self.high - self.low)

    def mark(self, axes: Axes) -> None:
        axes.tick_params(length=0)
        if self.choices:
            axes.set_xticks(range(len(self.choices)), self.labels, fontsize=7.5, rotation=30 if self.wide else 0)
            axes.set_xlim(-0.5, len(self.choices) - 0.5)
            return
        if self.log:
            axes.set_xscale("log")
            axes.minorticks_off()
        ticks = [self.at(share) for share in (0.0, 0.5, 1.0)]
        axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axes.set_xlim(self.at(-0.05), self.at(1.05))

    def at(self, share: float) -> float:
        """The number that stands at a share of the way from the low to the high end."""
        if self.log:
            return math.exp(math.log(self.low) * (1 - share) + math.log(self.high) * share)
        return self.low + (self.high - self.low) * share

    @property
    def labels(self) -> list[str]:
        return [shorten(shown(choice), 16) for choice in self.choices]

    @property
    def wide(self) -> bool:
        """Whether the labels need more room than they have side by side."""
        return sum(len(label) for label in self.labels) > 24

    @property
    def ends(self) -> list[tuple[float, str]]:
        """Share and label of what is written along an axis."""
        if self.choices:
            return [(self.share(choice), label) for choice, label in zip(self.choices, self.labels, strict=True)]
        return [(0.0, f"{self.low:.3g}"), (1.0, f"{self.high:.3g}")]


# Importances


def _importances(contents: Contents) -> list[Chart]:
    if not contents.importances:
        return [Chart("importances", "", "", "", None, contents.why_no_importances)]
    return [_importance(contents, place, shares) for place, shares in enumerate(contents.importances)]


def _importance(contents: Contents, place: int, shares: Mapping[str, float]) -> Chart:
    names = [contents.short.get(key, key) for key in reversed(list(shares))]
    values = list(reversed(list(shares.values())))

    def draw(theme: Theme) -> Figure:
        drawn = figure(HALF, 0.8 + 0.34 * len(names))
        axes = drawn.subplots()
        bars = axes.barh(names, values, color=theme.accent)
        axes.bar_label(bars, [f"{100 * value:.0f} %" for value in values], padding=4, color=theme.ink, fontsize=8)
        axes.set_xlim(0, max(1e-9, 1.18 * max(values)))
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        return drawn

    finished = len(contents.in_state(TrialState.COMPLETE))
    remark = (
        f"share of the differences in {contents.metrics[place]} among {finished} finished trials that a key explains"
    )
    alt = "Bar chart of " + ", ".join(f"{key} {100 * share:.0f} %" for key, share in shares.items())
    return Chart(_numbered("importances", contents, place), contents.metrics[place], remark, alt, draw)


# Parallel coordinates


def _parallel(contents: Contents) -> Chart:
    scored, metric = _scored(contents), contents.metrics[0]
    scales = {key: Scale.of(key, contents.trials) for key in contents.keys}

    def draw(theme: Theme) -> Figure:
        drawn = figure(WHOLE, 3.8)
        axes = drawn.subplots()
        reached = Scale((), False, min(one.scores[0] for one in scored), max(one.scores[0] for one in scored))
        for one in scored:
            _draw_path(axes, one, scales, reached, theme)
        _draw_ends(axes, [*scales.values(), reached], theme)
        names = [*(contents.short[key] for key in contents.keys), metric]
        axes.set_xticks(range(len(names)), [shorten(name) for name in names])
        axes.set_ylim(-0.24, 1.1)
        axes.set_xlim(-0.2, len(names) - 0.55)
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        return drawn

    drawing = draw if scored and scales else None
    remark = (
        "one line a trial, the best thick, pruned ones faded; below the axes: the key does not belong to its component"
    )
    return Chart("parallel", "", remark, "Parallel coordinates of all tried values", drawing, NO_SCORE)


def _draw_path(axes: Axes, one: Tried, scales: Mapping[str, Scale], reached: Scale, theme: Theme) -> None:
    heights = [scale.share(one.values[key]) if key in one.values else -0.18 for key, scale in scales.items()]
    axes.plot(
        range(len(heights) + 1), [*heights, reached.share(one.scores[0])],
        color=_colour(one, theme),
        alpha=1.0 if one.best else 0.7 if one.state == TrialState.COMPLETE else FADED * 0.7,
        linewidth=2.4 if one.best else 1.0,
    )  # fmt: skip


def _draw_ends(axes: Axes, scales: Sequence[Scale], theme: Theme) -> None:
    for place, scale in enumerate(scales):
        axes.vlines(place, 0, 1, color=theme.muted, linewidth=0.8, zorder=5)
        for height, label in scale.ends:
            box = {"facecolor": theme.surface, "edgecolor": "none", "alpha": 0.75, "pad": 1}
            axes.text(place + 0.03, height, label, fontsize=7.5, color=theme.ink, va="center", bbox=box, zorder=6)


# Pareto front


def _fronts(contents: Contents) -> Iterator[Chart]:
    finished = [one for one in _scored(contents) if one.state == TrialState.COMPLETE]
    for first, second in combinations(range(len(contents.metrics)), 2):
        names = contents.metrics[first], contents.metrics[second]
        drawing = _front(finished, first, second, names) if finished else None
        title = f"{names[1]} by {names[0]}"
        remark = "numbered: no other trial is better by all metrics"
        yield Chart(
            f"front_{first}_{second}", title, remark, f"Scatter chart of {title}", drawing, "No trial is finished."
        )


def _front(finished: Sequence[Tried], first: int, second: int, names: tuple[str, str]) -> Drawing:
    def draw(theme: Theme) -> Figure:
        drawn = figure(HALF, 3.6)
        axes = drawn.subplots()
        _scatter(axes, [one.scores[first] for one in finished], finished, second, theme)
        for one in (one for one in finished if one.best):
            where = one.scores[first], one.scores[second]
            axes.annotate(str(one.number), where, (5, 4), textcoords="offset points", fontsize=8, color=theme.ink)
        axes.set(xlabel=names[0], ylabel=names[1])
        axes.grid()
        axes.tick_params(length=0)
        return drawn

    return draw


# Time


def _time(contents: Contents) -> Chart:
    spent = contents.spent
    parts = {"training": "training", "waiting": "waiting for data", "validation": "validation", "rest": "rest"}

    def draw(theme: Theme) -> Figure:
        drawn = figure(WHOLE, 1.3 + 0.4 * len(spent))
        axes = drawn.subplots()
        rows = list(reversed(list(spent)))
        left = [0.0] * len(rows)
        for (part, label), colour in zip(parts.items(), theme.series, strict=False):
            minutes = [getattr(spent[row], part) / 60 for row in rows]
            axes.barh(rows, minutes, left=left, label=label, color=colour)
            left = [before + more for before, more in zip(left, minutes, strict=True)]
        axes.set_xlabel("minutes")
        axes.legend(ncols=len(parts), loc="lower left", bbox_to_anchor=(0, 1), labelcolor=theme.ink, fontsize=8)
        axes.tick_params(length=0)
        return drawn

    total = sum(spent.values(), Spent())
    alt = f"Bar chart of minutes: {total.training / 60:.1f} training, {total.waiting / 60:.1f} waiting for data"
    remark = "of all trials by what became of them; the rest is starting, saving and lying interrupted"
    return Chart("time", "", remark, alt, draw if spent else None, "No trial has taken any time.")
