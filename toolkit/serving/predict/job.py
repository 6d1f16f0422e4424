"""What is to be predicted, all checked: the bundle, its sources and the rows of their answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.serving.predict.appending import appended
from toolkit.serving.predict.damages import Damages
from toolkit.serving.predict.inputs import Source
from toolkit.serving.predict.rows import Layout, Rows, Table, layout_of, table_width, written

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from toolkit.serving.bundle import Bundle

_LONG = 999.999
"""Seconds up to which a moment fits into the width of the table; later ones are wider."""


@dataclass(frozen=True)
class PredictionJob:
    """What is to be done."""

    bundle: Bundle
    sources: Sequence[Source]
    every: float | None
    """Seconds from one row of a video to the next; None: one row for all of it."""
    stream: bool
    """Whether a file is followed at its own speed."""
    output: Path | None
    plot: Path | None
    save: Path | None
    """The folder of annotated copies."""
    top: int
    batch: int
    console: Console | None
    reconnect: int | None = None
    """Attempts in a row to open a source again that was lost; None: no end."""
    damages: Damages = field(default_factory=Damages)

    @property
    def follows(self) -> bool:
        """Whether the one source is answered as it is shown."""
        return self.stream or any(source.endless for source in self.sources)

    @property
    def attempts(self) -> float:
        return math.inf if self.reconnect is None else self.reconnect

    @property
    def crops(self) -> int:
        """Views in space of each view in time."""
        clip = self.bundle.manifest.clip
        return 1 if clip is None else clip.crops

    @property
    def layout(self) -> Layout:
        return layout_of(self.bundle.manifest, self.top)

    def rows(self) -> AbstractContextManager[Rows]:
        timed = self.follows or self.every is not None
        if self.output is not None and self.follows:
            return appended(self.output, self.layout)
        if self.output is not None:
            return written(self.output, self.layout, timed=timed)
        behind = "#t=" + ",".join([f"{_LONG:.3f}"] * (1 if self.bundle.manifest.clip is None else 2))
        names = [f"{source.name}{behind if timed else ''}" for source in self.sources]
        return nullcontext(Table(width=table_width(names), layout=self.layout, live=self.follows))

    def add(self, rows: Rows, source: Source, probabilities: NDArray[np.float32]) -> None:
        """Add the row of a source whose answer is one row of `Bundle.rows`."""
        rows.add(source, *self.layout.read(self.bundle, probabilities))

    def predict(self, views: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return self.bundle.rows(views)

    def average(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """From the rows of the views of one source to its own row. Raises DataError for answers without meaning."""
        from toolkit.serving.bundle.views import average_views

        self.layout.check(probabilities)

        manifest = self.bundle.manifest
        average = "probabilities" if manifest.clip is None else manifest.clip.average
        return average_views(probabilities, average, manifest.form, scores=manifest.trust.score_columns)
