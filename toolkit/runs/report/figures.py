"""Charts of numbers, each drawn for light and for dark pages. matplotlib's object interface only: no global state."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from toolkit.api.contracts import EpochRecord
from toolkit.api.files import write_atomically
from toolkit.runs.report.statistics import Calibration, Matrix
from toolkit.runs.scores import is_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

PIXELS_PER_INCH = 100
"""CSS pixels an inch of a figure takes on the page."""
CHART, SHEET = 200, 150
"""Dots per inch of charts and of sheets of photographs, which are heavy."""
HALF, WHOLE = 5.3, 10.8
"""Widths in inches of figures that share a line of the page with another one, or with none."""
NUMBERED_CLASSES = 20
"""A confusion matrix of more classes than this has no numbers in its cells."""
LONGEST_LABEL = 22
"""Characters of a class name that an axis has room for."""


@dataclass(frozen=True)
class Theme:
    """Colours of a figure. The colour-blind can distinguish the lines of `series` too (after Okabe and Ito)."""

    name: str
    surface: str
    ink: str
    muted: str
    grid: str
    accent: str
    good: str
    bad: str
    series: Sequence[str]


LIGHT = Theme(
    name="light",
    surface="#ffffff",
    ink="#1b2330",
    muted="#5b6675",
    grid="#e3e8ee",
    accent="#0b5cad",
    good="#00785a",
    bad="#bd4300",
    series=("#0b6cb8", "#d55e00", "#00916a", "#a8508a", "#8a6d00", "#3f4a5a"),
)
DARK = Theme(
    name="dark",
    surface="#161b22",
    ink="#e8edf3",
    muted="#9aa6b5",
    grid="#2b333f",
    accent="#4aa8ff",
    good="#3ccb9b",
    bad="#ff8a4c",
    series=("#56b4e9", "#ff9a3c", "#3ccb9b", "#dd8fc0", "#e8d44d", "#aab4c2"),
)

Drawing: TypeAlias = "Callable[[Theme], Figure]"


def save(directory: Path, name: str, draw: Drawing, dots: int = CHART) -> Path:
    """Write `directory/name.png` for light pages and `directory/dark/name.png` for dark ones; returns the first.

    `dots` is the resolution in dots per inch.
    """
    path = directory / f"{name}.png"
    write_atomically(path, _png(draw, LIGHT, dots))
    write_atomically(directory / "dark" / path.name, _png(draw, DARK, dots))
    return path


def _png(draw: Drawing, theme: Theme, dots: int) -> bytes:
    import matplotlib

    with matplotlib.rc_context(_settings(theme, dots)), warnings.catch_warnings():
        # A class name in a script the font lacks is drawn as boxes; the page itself shows it as text.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from font", category=UserWarning)
        return _encoded(draw(theme))


def _encoded(figure: Figure) -> bytes:
    """By the canvas itself: `savefig` draws a figure once to measure it and once more to show it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(file, metadata={"Software": None}, pil_kwargs={"compress_level": 4})
    return file.getvalue()


def _settings(theme: Theme, dots: int) -> dict[Any, Any]:
    from cycler import cycler

    # parse_math: class names come from users, and "$" in one is a dollar, not a formula.
    return {
        "figure.dpi": dots,
        "text.parse_math": False,
        "text.color": theme.ink,
        "font.size": 9,
        "axes.facecolor": theme.surface,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.muted,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=theme.series),
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
        "legend.frameon": False,
        "figure.facecolor": theme.surface,
    }


def figure(width: float, height: float) -> Figure:
    """A figure of `width` x `height` inches that fits its own contents."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def chart(width: float, height: float, paint: Callable[[Axes, Theme], None]) -> Drawing:
    """A figure of `width` x `height` inches with one chart, which `paint` draws on its axes."""

    def draw(theme: Theme) -> Figure:
        drawn = figure(width, height)
        axes = drawn.subplots()
        axes.tick_params(length=0)
        paint(axes, theme)
        return drawn

    return draw


def shorten(name: str, limit: int = LONGEST_LABEL) -> str:
    """`name` on one line and in at most `limit` characters."""
    line = " ".join(name.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def loss_curves(records: Sequence[EpochRecord], best_epoch: int | None) -> Drawing:
    """Mean loss of each epoch on train and valid."""
    curves = {"train": [record.train_loss for record in records], "valid": _valid(records, "loss")}
    return _curves(records, curves, best_epoch, "loss")


def metric_curve(records: Sequence[EpochRecord], name: str, best_epoch: int | None) -> Drawing:
    """One score of each epoch on valid."""
    return _curves(records, {"valid": _valid(records, name)}, best_epoch, name, shares=is_share(name))


def score_curves(records: Sequence[EpochRecord], names: Sequence[str], best_epoch: int | None) -> Drawing:
    """Scores of each epoch on valid; scores that never differ share one line."""
    curves = _merged({name: _valid(records, name) for name in names})
    shares = all(map(is_share, names))
    return _curves(records, curves, best_epoch, "score on valid", shares=shares, legend="outside right upper")


def learning_rates(records: Sequence[EpochRecord]) -> Drawing:
    """Learning rate of each parameter group at the end of each epoch."""
    groups = {name: None for record in records for name in record.lr}
    curves = {name: [record.lr.get(name, math.nan) for record in records] for name in groups}
    return _curves(records, _merged(curves), None, "learning rate", legend="outside right upper")


def waiting_by_rank(records: Sequence[EpochRecord]) -> Drawing:
    """Share of each epoch's training time that ranks waited for their data: those that waited most, slowest first."""
    waits = _by_rank([record.rank_waiting for record in records])
    slowest = sorted(waits, key=lambda rank: -sum(wait for wait in waits[rank] if wait > 0))
    curves = _of_ranks(waits, slowest)
    return _curves(records, curves, None, "waiting for data", shares=True, legend="outside right upper")


def speed_by_rank(records: Sequence[EpochRecord]) -> Drawing:
    """Validation items that ranks answered in a second, by epoch: those that were slowest, slowest first."""
    found = _by_rank([record.rank_speeds for record in records])
    speeds = {rank: [value or math.nan for value in values] for rank, values in found.items()}
    known = {rank: [value for value in values if value > 0] for rank, values in speeds.items()}
    slowest = sorted((rank for rank in known if known[rank]), key=lambda rank: sum(known[rank]) / len(known[rank]))
    return _curves(records, _of_ranks(speeds, slowest), None, "items/s", legend="outside right upper")


def _by_rank(rows: Sequence[Sequence[float]]) -> dict[int, list[float]]:
    """The values of each rank, of epochs that may have unlike numbers of ranks; NaN where there was no such rank."""
    return dict(enumerate(map(list, zip_longest(*rows, fillvalue=math.nan))))


def _of_ranks(values: Mapping[int, list[float]], order: Sequence[int]) -> dict[str, list[float]]:
    """The curves of the first ranks in this order, as many as there are colours."""
    return {f"rank {rank}": values[rank] for rank in order[: len(LIGHT.series)]}


def score_names(records: Sequence[EpochRecord]) -> list[str]:
    """Scores on valid that lie in 0..1 and grow as the model gets better: what one chart can hold."""
    return [
        name for name in _scores(records) if all(not value < 0 and not value > 1 for value in _valid(records, name))
    ]


def error_names(records: Sequence[EpochRecord]) -> list[str]:
    """Errors on valid, in the unit of the targets; where no error is above 1, all scores that lie in 0..1."""
    shares = score_names(records)
    above = [name for name in _scores(records) if not any(value < 0 for value in _valid(records, name))]
    return [name for name in above if name not in shares] or shares


def _scores(records: Sequence[EpochRecord]) -> list[str]:
    names = {name: None for record in records for name in record.valid if not name.endswith(("loss", "ece"))}
    return list(names)


def _valid(records: Sequence[EpochRecord], name: str) -> list[float]:
    return [record.valid.get(name, math.nan) for record in records]


def _merged(curves: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    names: dict[tuple[str, ...], list[str]] = {}
    for name, values in curves.items():
        names.setdefault(tuple(f"{value:.9g}" for value in values), []).append(name)
    return {"\n= ".join(same): curves[same[0]] for same in names.values()}


def _curves(
    records: Sequence[EpochRecord],
    curves: Mapping[str, Sequence[float]],
    best_epoch: int | None,
    ylabel: str,
    *,
    shares: bool = False,
    legend: str = "outside upper left",
) -> Drawing:
    """One line a curve; the legend is where no line can run: above the axes, or at their right where it is long."""
    epochs = [record.epoch for record in records]

    def paint(axes: Axes, theme: Theme) -> None:
        lines = {
            name: axes.plot(epochs, values, marker="o" if len(epochs) <= 30 else "", markersize=3.2)[0]
            for name, values in curves.items()
            if any(math.isfinite(value) for value in values)
        }
        if best_epoch is not None:
            lines[f"best: epoch {best_epoch}"] = axes.axvline(
                best_epoch, color=theme.muted, linewidth=1, linestyle=(0, (2, 3)), zorder=1
            )
        name_axes(axes, "epoch", ylabel)
        if shares:
            in_percent(axes.yaxis)
        above = "upper" in legend.split()[1]
        # matplotlib hides a label that begins with "_"
        drawn: Any = axes.figure
        drawn.legend(
            list(lines.values()), [f" {name}" for name in lines], labelcolor=theme.ink, fontsize=8, loc=legend,
            ncols=len(lines) if above else 1,
        )  # fmt: skip

    return chart(HALF, 3.0, paint)


def name_axes(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Label axes whose x counts something: ticks at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.grid(axis="y")


def in_percent(axis: Axis) -> None:
    """Write shares, 0..1, as percent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1, symbol=" %"))


def confusion(classes: Sequence[str], matrix: Matrix, *, shares: bool) -> Drawing:
    """Confusion matrix, rows are targets; `shares` writes cells 0..1 as percent."""
    from matplotlib.colors import LinearSegmentedColormap

    numbered = len(classes) <= NUMBERED_CLASSES
    side = HALF if numbered else WHOLE
    highest = 1.0 if shares else max(1.0, *(max(row) for row in matrix))

    def paint(axes: Axes, theme: Theme) -> None:
        tint = LinearSegmentedColormap.from_list("tint", [theme.surface, theme.accent])
        image = axes.imshow(matrix, cmap=tint, vmin=0, vmax=highest, aspect="equal")
        _name_classes(axes, classes)
        if not numbered:
            _explain_colours(axes, image, theme, shares=shares)
        size = max(4.5, min(9.0, 95 / len(matrix)))
        for y, row in enumerate(matrix if numbered else ()):
            for x, cell in enumerate(row):
                if shown := round(100 * cell) if shares else round(cell):
                    colour = theme.surface if cell > 0.5 * highest else theme.ink
                    axes.text(x, y, str(shown), ha="center", va="center", fontsize=size, color=colour)

    return chart(side, side if numbered else 0.9 * side, paint)


def _explain_colours(axes: Axes, image: AxesImage, theme: Theme, *, shares: bool) -> None:
    """A colour bar, where cells are too many to hold numbers."""
    drawn: Any = axes.figure
    bar = drawn.colorbar(image, ax=axes, shrink=0.6, aspect=30, pad=0.02)
    if shares:
        in_percent(bar.ax.yaxis)
    bar.set_label("share of target" if shares else "items", color=theme.muted)
    bar.outline.set_visible(False)


def _name_classes(axes: Axes, classes: Sequence[str]) -> None:
    size = 8.0 if len(classes) <= 16 else 6.5
    names = [shorten(name) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set_xlabel("prediction")
    axes.set_ylabel("target")
    axes.spines[:].set_visible(False)


def reliability(bins: Calibration) -> Drawing:
    """Reliability diagram (DeGroot and Fienberg, 1983): accuracy by confidence, above each bin's share of items."""

    def draw(theme: Theme) -> Figure:
        drawn = figure(HALF, HALF * 0.94)
        upper, lower = drawn.subplots(2, sharex=True, height_ratios=(3.4, 1))
        _draw_reliability(upper, bins, theme)
        centres, width = _centres(len(bins.share))
        lower.bar(centres, bins.share, width * 0.92, color=theme.muted)
        lower.set(xlabel="confidence", ylabel="items", xlim=(0, 1))
        in_percent(lower.xaxis)
        in_percent(lower.yaxis)
        lower.tick_params(length=0)
        return drawn

    return draw


def _draw_reliability(axes: Axes, bins: Calibration, theme: Theme) -> None:
    centres, width = _centres(len(bins.accuracy))
    wide = width * 0.92
    rows = zip(centres, bins.accuracy, bins.confidence, strict=True)
    filled = [(centre, accuracy, confidence) for centre, accuracy, confidence in rows if math.isfinite(accuracy)]
    where = [centre for centre, _, _ in filled]
    agreed = [min(accuracy, confidence) for _, accuracy, confidence in filled]
    too_sure = [max(0.0, confidence - accuracy) for _, accuracy, confidence in filled]
    too_unsure = [max(0.0, accuracy - confidence) for _, accuracy, confidence in filled]
    axes.bar(where, agreed, wide, color=theme.series[0])
    axes.bar(where, too_sure, wide, bottom=agreed, color=theme.series[1], label="too sure")
    axes.bar(where, too_unsure, wide, bottom=agreed, color=theme.series[2], label="not sure enough")
    axes.hlines(
        [accuracy for _, accuracy, _ in filled], [centre - width * 0.46 for centre in where],
        [centre + width * 0.46 for centre in where], color=theme.ink, linewidth=1.6, label="accuracy",
    )  # fmt: skip
    axes.plot(
        [0, 1], [0, 1], color=theme.ink, linewidth=1, linestyle=(0, (2, 3)), zorder=3, label="perfectly calibrated"
    )
    axes.set(ylabel="accuracy", ylim=(0, 1.02))
    in_percent(axes.yaxis)
    axes.grid(axis="y")
    axes.tick_params(length=0)
    drawn: Any = axes.figure
    drawn.legend(loc="outside upper left", ncols=4, fontsize=8, labelcolor=theme.ink)


def _centres(bins: int) -> tuple[list[float], float]:
    return [(index + 0.5) / bins for index in range(bins)], 1 / bins
