"""The timeline of a video as a picture: the probabilities of classes over time, or numbers. matplotlib is imported only
when it is drawn."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError, printable
from toolkit.api.files import write_atomically
from toolkit.serving.predict.inputs import Source

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

CLASSES = 5
"""Most classes or outputs that are drawn."""
COLOURS = ("#0b6cb8", "#d55e00", "#00916a", "#a8508a", "#8a6d00")
"""One per class; colour-blind readers can distinguish them too."""
SUFFIXES = (".png", ".svg")
WIDTH, HEIGHT, DOTS = 10.0, 3.6, 150
"""Of the picture, in inches, and dots an inch."""


def check_plot(plot: Path) -> None:
    """Raise UsageError unless a picture can be written to `plot`."""
    if plot.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f'--plot {plot}: unknown format "{plot.suffix}"',
            next_step=f"end the name with {' or '.join(SUFFIXES)}",
        )
    if plot.is_dir():
        message = f"--plot {plot}: expected a file, got a folder"
        raise UsageError(message, next_step=f"name a file: {plot / 'timeline.png'}")


class Timelines:
    """The answers to the windows of one video, until they are drawn."""

    def __init__(
        self, classes: Sequence[str], thresholds: Sequence[float] | None = None, *, numbers: bool = False
    ) -> None:
        self._classes, self._thresholds, self._numbers = classes, thresholds, numbers
        self._name = ""
        self._seconds: list[float] = []
        self._rows: list[NDArray[np.float32]] = []

    def add(self, source: Source, probabilities: NDArray[np.float32]) -> None:
        """Take in the answer, one row of `Bundle.rows`, to the part `source.moment`, at whose middle it is drawn."""
        start, end = source.moment or (0.0, 0.0)
        self._name = source.name
        self._seconds.append((start + end) / 2)
        self._rows.append(probabilities[: len(self._classes)])

    def draw(self, path: Path, *, sample: bool) -> None:
        """Write the picture to `path`, whose suffix is one of `SUFFIXES`."""
        import matplotlib

        file = io.BytesIO()
        # Class names are not formulas. Letters that the font lacks are drawn as boxes.
        with matplotlib.rc_context({"text.parse_math": False, "svg.hashsalt": "timeline"}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from font", category=UserWarning)
            kind = path.suffix.lower().removeprefix(".")
            self._figure(sample=sample).savefig(file, format=kind, dpi=DOTS, metadata=_UNDATED[kind])
        write_atomically(path, file.getvalue())

    def _figure(self, *, sample: bool) -> Figure:
        import numpy as np
        from matplotlib.figure import Figure

        rows = np.stack(self._rows)
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        shown = range(min(rows.shape[1], CLASSES)) if self._numbers else likeliest(rows, self._thresholds)
        for colour, index in zip(COLOURS, shown, strict=False):
            marker = "o" if len(rows) == 1 else None
            axes.plot(self._seconds, rows[:, index], color=colour, label=self._classes[index], marker=marker)
            if self._thresholds is not None:
                axes.axhline(self._thresholds[index], color=colour, linestyle=":", linewidth=1)
        if self._thresholds is not None:
            axes.plot([], [], color="#5b6b7b", linestyle=":", linewidth=1, label="threshold")
        axes.set(xlabel="seconds", ylabel="number" if self._numbers else "probability")
        if not self._numbers:
            axes.set_ylim(0, 1.02)
        axes.set_title(f"{printable(self._name)}{' (model trained on SAMPLE data)' if sample else ''}", loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e3e8ee")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        return figure


def likeliest(rows: NDArray[np.float32], thresholds: Sequence[float] | None = None) -> list[int]:
    """Of `[N, C]` the `CLASSES` classes with the highest probability at any time, the highest first; where there are
    thresholds, those that are furthest above their own."""
    highest = rows.max(0) if thresholds is None else rows.max(0) - thresholds
    best: list[int] = (-highest).argsort(kind="stable")[:CLASSES].tolist()
    return best


_UNDATED = {"png": {"Software": None}, "svg": {"Date": None}}
"""So that the same answers give the same file."""
