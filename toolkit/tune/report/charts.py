"""The charts of a study, each drawn for light and for dark pages; those that cannot be drawn say why.

Optuna's own charts omit pruned trials, which are most trials of a study that prunes well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, combinations
from typing import TYPE_CHECKING, Any

from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from toolkit.api.answers import percent
from toolkit.runs.report.figures import HALF, WHOLE, Drawing, Theme, chart, figure, in_percent, name_axes, shorten
from toolkit.runs.scores import is_share, score_text
from toolkit.tune.outcome import shown
from toolkit.tune.report.contents import Contents, Spent, Tried

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

IN_A_ROW = 4
"""Slices in one row."""
TRUSTED = 10
"""Finished trials from which on importances are shown without a warning."""
FADED = 0.35
"""How much of a pruned trial's colour is left."""
NO_SCORE = "No trial has a score yet."
READ = "finished trials filled, pruned ones faded at the best score they reached"


@dataclass(frozen=True)
class Chart:
    """One figure of the page, or the reason why it cannot be drawn."""

    name: str
    title: str
    remark: str
    alt: str
    drawing: Drawing | None
    missing: str = NO_SCORE


@dataclass(frozen=True)
class Section:
    anchor: str
    title: str
    charts: Sequence[Chart]


def sections(contents: Contents) -> list[Section]:
    """All sections that are charts, in the order of the page."""
    metrics = range(len(contents.metrics))
    fronts = [_front(contents, first, second) for first, second in combinations(metrics, 2)]
    return [
        Section("history", "History", [_history(contents, place) for place in metrics]),
        *([Section("front", "Pareto front", fronts)] if fronts else []),
        Section("curves", "Learning curves", [_curves(contents)]),
        Section("slices", "Slices", [_slices(contents, place) for place in metrics]),
        Section("importances", "Importances", list(_importances(contents))),
        Section("parallel", "Parallel coordinates", [_parallel(contents)]),
        Section("time", "Where the time went", [_time(contents)]),
    ]


def _numbered(name: str, contents: Contents, place: int) -> str:
    return name if len(contents.metrics) == 1 else f"{name}_{place}"


def _scored(contents: Contents) -> list[Tried]:
    """The trials with scores, the best drawn last, on top of the others."""
    scored = [one for one in contents.trials if one.scores and all(math.isfinite(score) for score in one.scores)]
    return sorted(scored, key=lambda one: (one.best, one.state == TrialState.COMPLETE))


def _colour(one: Tried, theme: Theme, finished_alpha: float = 1.0) -> tuple[str, float]:
    """A trial's colour by its state, and how much of it."""
    finished = one.state == TrialState.COMPLETE
    colour = theme.series[1] if one.best else theme.accent if finished else theme.muted
    return colour, 1.0 if one.best else finished_alpha if finished else FADED


def _scatter(axes: Axes, points: Sequence[tuple[float, Tried]], place: int, theme: Theme) -> None:
    """One point a trial; the best are stars."""
    for best, marker, size in ((False, "o", 26), (True, "*", 70)):
        alike = [(x, one) for x, one in points if one.best == best]
        xs, ys = [x for x, _ in alike], [one.scores[place] for _, one in alike]
        colours: Any = [_colour(one, theme) for _, one in alike]
        axes.scatter(xs, ys, s=size, marker=marker, c=colours, linewidths=0, zorder=2 + best)


def _in_percent(axis: Axis, metric: str) -> None:
    if is_share(metric):
        in_percent(axis)


def _history(contents: Contents, place: int) -> Chart:
    metric, scored = contents.metrics[place], _scored(contents)

    def paint(axes: Axes, theme: Theme) -> None:
        _scatter(axes, [(one.number, one) for one in scored], place, theme)
        finished = sorted((one for one in scored if one.state == TrialState.COMPLETE), key=lambda one: one.number)
        better = max if contents.directions[place] == "maximize" else min
        reached = list(accumulate((one.scores[place] for one in finished), better))
        axes.step([one.number for one in finished], reached, where="post", color=theme.muted, linewidth=1.2)
        name_axes(axes, "trial", metric)
        _in_percent(axes.yaxis, metric)

    drawing = chart(WHOLE, 3.2, paint) if scored else None
    title, remark = f"{metric} by trial", f"{READ}; the line is the best so far"
    return Chart(_numbered("history", contents, place), title, remark, title, drawing)


def _curves(contents: Contents) -> Chart:
    with_curves = sorted((one for one in contents.trials if one.curve), key=lambda one: one.best)

    def paint(axes: Axes, theme: Theme) -> None:
        for one in with_curves:
            colour, width = _colour(one, theme, 0.75), 2.2 if one.best else 1.1
            marker = "o" if len(one.curve) == 1 else ""
            axes.plot(*zip(*one.curve, strict=True), color=colour, linewidth=width, marker=marker, markersize=3)
        name_axes(axes, "epoch", f"{contents.score} on valid")
        _in_percent(axes.yaxis, contents.score)

    drawing = chart(WHOLE, 3.8, paint) if with_curves else None
    remark = "of every trial, with the recipe's seed; pruned ones faded, the best thick"
    alt = f"Line chart of {contents.score} by epoch, one line a trial"
    missing = "No epoch has this score." if contents.trials else NO_SCORE
    return Chart("learning_curves", contents.score, remark, alt, drawing, missing)


def _slices(contents: Contents, place: int) -> Chart:
    metric, scored = contents.metrics[place], _scored(contents)

    def draw(theme: Theme) -> Figure:
        across, down = min(len(contents.keys), IN_A_ROW), math.ceil(len(contents.keys) / IN_A_ROW)
        drawn = figure(WHOLE if across > 2 else HALF * across, 2.7 * down)
        grid = drawn.subplots(down, across, sharey=True, squeeze=False)
        for axes, key in zip(grid.flat, contents.keys, strict=False):
            scale = Scale.of(key, contents.trials)
            _scatter(axes, [(scale.share(one.values[key]), one) for one in scored if key in one.values], place, theme)
            scale.mark(axes)
            axes.set_xlabel(contents.short[key])
            axes.grid(axis="y")
        for axes in list(grid.flat)[len(contents.keys) :]:
            axes.set_visible(False)
        for axes in grid[:, 0]:
            axes.set_ylabel(metric)
            _in_percent(axes.yaxis, metric)
        return drawn

    drawing = draw if scored and contents.keys else None
    alt = f"Scatter charts of {metric} by the value of each key"
    return Chart(_numbered("slices", contents, place), metric, READ, alt, drawing)


@dataclass(frozen=True)
class Scale:
    """Where the values of a key lie between the ends of an axis: choices in their order, numbers by their size or its
    logarithm."""

    low: float
    high: float
    log: bool = False
    choices: Sequence[Any] = ()
    """Empty for numbers."""

    @classmethod
    def of(cls, key: str, trials: Sequence[Tried]) -> Scale:
        known = next(one.distributions[key] for one in trials if key in one.distributions)
        if isinstance(known, (FloatDistribution, IntDistribution)):
            return cls(known.low, known.high, known.log)
        choices = getattr(known, "choices", ())
        return cls(0, len(choices) - 1, choices=choices)

    def share(self, value: Any) -> float:
        """0 at the low end, 1 at the high one."""
        number = self.choices.index(value) if self.choices else value
        low, high, at = (math.log(one) if self.log else one for one in (self.low, self.high, number))
        return (at - low) / (high - low) if high > low else 0.5

    def at(self, share: float) -> float:
        """The number that lies at a share of the way from the low to the high end."""
        if self.log:
            return float(self.low * (self.high / self.low) ** share)
        return self.low + (self.high - self.low) * share

    @property
    def ends(self) -> list[tuple[float, str]]:
        """Share and label of what is written along an axis."""
        if self.choices:
            return [(self.share(choice), shorten(shown(choice), 16)) for choice in self.choices]
        return [(0.0, f"{self.low:.3g}"), (1.0, f"{self.high:.3g}")]

    def mark(self, axes: Axes) -> None:
        """Label a horizontal axis of shares."""
        ticks = self.ends if self.choices else [(share, f"{self.at(share):.2g}") for share in (0.0, 0.5, 1.0)]
        labels = [label for _, label in ticks]
        wide = bool(self.choices) and sum(map(len, labels)) > 24
        axes.set_xticks([share for share, _ in ticks], labels, fontsize=7.5, rotation=30 if wide else 0)
        margin = 0.5 / max(len(self.choices) - 1, 1) if self.choices else 0.05
        axes.set_xlim(-margin, 1 + margin)
        axes.tick_params(length=0)


def _importances(contents: Contents) -> Iterator[Chart]:
    if not contents.importances:
        yield Chart("importances", "", "", "", None, contents.why_no_importances)
    for place, shares in enumerate(contents.importances):
        metric, finished = contents.metrics[place], len(contents.in_state(TrialState.COMPLETE))
        remark = f"share of the differences in {metric} among {finished} finished trials that a key explains"
        if finished < TRUSTED:
            remark += f"; warning: fewer than {TRUSTED} trials are too few, more may change the order"
        alt = "Bar chart of " + ", ".join(f"{key} {percent(share, 0)}" for key, share in shares.items())
        drawing = chart(HALF, 0.8 + 0.34 * len(shares), partial(_bars, contents.short, shares))
        yield Chart(_numbered("importances", contents, place), metric, remark, alt, drawing)


def _bars(short: Mapping[str, str], shares: Mapping[str, float], axes: Axes, theme: Theme) -> None:
    names, values = [short.get(key, key) for key in reversed([*shares])], [*reversed([*shares.values()])]
    bars = axes.barh(names, values, color=theme.accent)
    axes.bar_label(bars, [percent(value, 0) for value in values], padding=4, color=theme.ink, fontsize=8)
    axes.set_xlim(0, max(1e-9, 1.18 * max(values)))
    axes.set_xticks([])
    axes.spines[:].set_visible(False)


def _parallel(contents: Contents) -> Chart:
    scored = _scored(contents)
    scales = {key: Scale.of(key, contents.trials) for key in contents.keys}

    def paint(axes: Axes, theme: Theme) -> None:
        low, high = (edge(one.scores[0] for one in scored) for edge in (min, max))
        reached, metric = Scale(low, high), contents.metrics[0]
        ends = [scale.ends for scale in scales.values()]
        ends += [[(0.0, score_text(metric, low)), (1.0, score_text(metric, high))]]
        for one in scored:
            heights = [scale.share(one.values[key]) if key in one.values else -0.18 for key, scale in scales.items()]
            heights.append(reached.share(one.scores[0]))
            axes.plot(heights, color=_colour(one, theme, 0.7), linewidth=2.4 if one.best else 1.0)
        for place, written in enumerate(ends):
            axes.vlines(place, 0, 1, color=theme.muted, linewidth=0.8, zorder=5)
            for height, label in written:
                box = {"facecolor": theme.surface, "edgecolor": "none", "alpha": 0.75, "pad": 1}
                axes.text(place + 0.03, height, label, fontsize=7.5, color=theme.ink, va="center", bbox=box, zorder=6)
        names = [*(contents.short[key] for key in contents.keys), metric]
        axes.set_xticks(range(len(names)), [shorten(name) for name in names])
        axes.set(xlim=(-0.2, len(names) - 0.55), ylim=(-0.24, 1.1), yticks=[])
        axes.spines[:].set_visible(False)

    drawing = chart(WHOLE, 3.8, paint) if scored and scales else None
    remark = (
        "one line a trial, the best thick, pruned ones faded; below the axes: the key does not belong to its component"
    )
    return Chart("parallel", "", remark, "Parallel coordinates of all tried values", drawing)


def _front(contents: Contents, first: int, second: int) -> Chart:
    finished = [one for one in _scored(contents) if one.state == TrialState.COMPLETE]
    xlabel, ylabel = contents.metrics[first], contents.metrics[second]

    def paint(axes: Axes, theme: Theme) -> None:
        _scatter(axes, [(one.scores[first], one) for one in finished], second, theme)
        for one in (one for one in finished if one.best):
            where = one.scores[first], one.scores[second]
            axes.annotate(str(one.number), where, (5, 4), textcoords="offset points", fontsize=8, color=theme.ink)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        _in_percent(axes.xaxis, xlabel)
        _in_percent(axes.yaxis, ylabel)
        axes.grid()

    drawing = chart(HALF, 3.6, paint) if finished else None
    name, title = f"front_{first}_{second}", f"{ylabel} by {xlabel}"
    remark = "numbered: no other trial is better by all metrics"
    return Chart(name, title, remark, f"Scatter chart of {title}", drawing, "No trial is finished.")


def _time(contents: Contents) -> Chart:
    spent = contents.spent
    parts = {"training": "training", "waiting": "waiting for data", "validation": "validation", "rest": "rest"}

    def paint(axes: Axes, theme: Theme) -> None:
        rows = list(reversed(list(spent)))
        left = [0.0] * len(rows)
        for (part, label), colour in zip(parts.items(), theme.series, strict=False):
            minutes = [getattr(spent[row], part) / 60 for row in rows]
            axes.barh(rows, minutes, left=left, label=label, color=colour)
            left = [before + more for before, more in zip(left, minutes, strict=True)]
        axes.set_xlabel("minutes")
        axes.legend(ncols=len(parts), loc="lower left", bbox_to_anchor=(0, 1), labelcolor=theme.ink, fontsize=8)

    total = sum(spent.values(), Spent())
    alt = f"Bar chart of minutes: {total.training / 60:.1f} training, {total.waiting / 60:.1f} waiting for data"
    remark = "of all trials by what became of them; the rest is starting, saving and lying interrupted"
    drawing = chart(WHOLE, 1.3 + 0.4 * len(spent), paint) if spent else None
    return Chart("time", "", remark, alt, drawing, "No trial has taken any time.")
