"""What a run shows while it works: a live line on a terminal, one line per epoch elsewhere, a table at the end.

Every line fits the width of its console: parts that a reader misses least are dropped first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column, Table

from toolkit.api.answers import percent
from toolkit.api.contracts import EpochRecord
from toolkit.runs.pace import Pace, duration, time_left
from toolkit.runs.report.trust import Rescored
from toolkit.runs.scores import Certainty, score_rows, score_text
from toolkit.system.device import peak_memory
from toolkit.system.notices import cell, note, show
from toolkit.training.features import Featuring
from toolkit.training.fit import Event, StepDone, Validating
from toolkit.training.taught import Asking

if TYPE_CHECKING:
    from types import TracebackType

REFRESH_SECONDS = 0.5
"""Reading the loss waits for a CUDA device: do it no more often than a person can read."""
BAR = 16
"""Columns of the progress bar."""
MARGIN = 4
"""Columns that the live line leaves free: a terminal writes `^C` behind it, and a longer line could not be erased."""
STARVED = 0.05
"""Share of the time spent waiting for data from which a reader should see it first."""


class Screen:
    """Shows the events of `fit`; a context manager that gives the terminal back whatever happens. `unit` is what is
    trained on: images or clips. `ranks` train together; rates are those of all."""

    def __init__(
        self,
        console: Console,
        epochs: int,
        metric: str,
        device: torch.device,
        *,
        unit: str = "images",
        ranks: int = 1,
    ) -> None:
        self._console, self._epochs, self._metric, self._device = console, epochs, metric, device
        self._live = console.is_interactive
        whole = Column(no_wrap=True, overflow="crop")
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=whole),
            BarColumn(bar_width=BAR),
            TextColumn("{task.fields[facts]}", markup=False, table_column=whole),
            console=console,
            transient=True,
            disable=not self._live,
            refresh_per_second=4,
        )
        self._task: TaskID | None = None
        self._features: TaskID | None = None
        self._shown = 0.0
        self._unit, self._ranks = unit, ranks
        self._items = 0
        self._pace = Pace(epochs)

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        self._pace.see(event)
        match event:
            case Featuring():
                self._show_features(event)
            case Asking():
                line = fitted([Part(f"the teacher answers in each step: {event.reason}", 0)], self._console.width)
                show(line, console=self._console)
            case StepDone():
                self._items = event.items
                self._show_step(event)
            case Validating():
                if self._live and self._task is not None:
                    facts = f"validating {event.done:,}/{event.count:,}"
                    self._progress.update(self._task, facts=facts)
            case EpochRecord():
                rate = speed(self._items, event.seconds, self._unit)
                line = epoch_line(event, self._epochs, self._metric, rate, width=self._console.width)
                show(line, console=self._console)

    def _show_features(self, event: Featuring) -> None:
        if event.done == event.count:
            if self._features is not None:
                self._progress.remove_task(self._features)
                self._features = None
            line = features_line(event, self._unit, width=self._console.width)
            show(line, console=self._console)
        elif self._live:
            facts = f"{event.done:,}/{event.count:,}"
            if self._features is None:
                self._features = self._progress.add_task(
                    "teacher" if event.taught else "features", total=event.count, facts=facts
                )
            self._progress.update(self._features, completed=event.done, facts=facts)

    def _show_step(self, event: StepDone) -> None:
        now = time.perf_counter()
        last = event.step == event.steps
        if not self._live or (now - self._shown < REFRESH_SECONDS and not last):
            return
        self._shown = now
        epoch = f"epoch {event.epoch}/{self._epochs}"
        facts = step_facts(
            event,
            speed(event.items, event.seconds, self._unit),
            memory_used(self._device),
            self._pace.left(),
            ranks=self._ranks,
            width=self._console.width - len(epoch) - BAR - MARGIN - 2,
        )
        done = (event.epoch - 1) * event.steps + event.step
        if self._task is None:
            total = self._epochs * event.steps
            self._task = self._progress.add_task(epoch, total=total, completed=done, facts=facts)
        else:
            self._progress.update(self._task, description=epoch, completed=done, facts=facts)


@dataclass(frozen=True)
class Part:
    """One fact on a line."""

    text: str
    rank: int
    """The higher, the sooner it is dropped."""
    room: int = 0
    """Columns kept for it, so that it does not come and go with the digits of its neighbours."""


def fitted(parts: Sequence[Part], width: int) -> str:
    """The parts in their order, as many as fit into `width` columns; the most important one in any case."""
    kept: list[Part] = []
    for part in sorted(parts, key=lambda part: part.rank):
        width -= max(len(part.text), part.room) + 2 * bool(kept)
        if width < 0 and kept:
            break
        kept.append(part)
    return "  ".join(part.text for part in parts if part in kept and part.text)


def speed(items: int, seconds: float, unit: str) -> str:
    """The rate of so many items trained, as text."""
    rate = items / max(seconds, 1e-9)
    return f"{rate:,.{0 if rate >= 9.95 else 1}f} {unit}/s"


def step_facts(event: StepDone, rate: str, memory: str, left: float | None, *, width: int, ranks: int = 1) -> str:
    """The text after the bar of the live line. `left`: seconds until training ends, None where that is unknown."""
    slowest = event.slowest if ranks > 1 else None
    parts = [
        Part(f"loss {float(event.loss):.4f}", 1, 12),
        Part(f"{ranks} ranks" if ranks > 1 else "", 5),
        Part(rate, 2, 15),
        Part(_data_wait(event.waited / max(event.seconds, 1e-9), slowest), 3, 15 if slowest is None else 24),
        Part(f"memory {memory}", 4, 16),
        Part("" if left is None else time_left(left), 0, 15),
    ]
    return fitted(parts, width)


def features_line(event: Featuring, unit: str, *, width: int) -> str:
    """That the backbone, or the teacher, works once alone, as one line."""
    how = f"computed once, in {duration(event.seconds)}" if event.kept is None else f"read from {event.kept}"
    what, why = (
        ("answers of the teacher to", "(no augmentation changes more than the side)")
        if event.taught
        else ("features of", "(the backbone is frozen)")
    )
    parts = [Part(f"{what} {event.count:,} {unit} {how}", 0), Part(why, 1)]
    return fitted(parts, width)


def epoch_line(record: EpochRecord, epochs: int, metric: str, rate: str, *, width: int) -> str:
    """One epoch as one line, the same on a terminal and in a log."""
    return fitted(list(_epoch_parts(record, epochs, metric, rate)), width)


def _epoch_parts(record: EpochRecord, epochs: int, metric: str, rate: str) -> Iterator[Part]:
    yield Part(f"epoch {record.epoch:{len(str(epochs))}}/{epochs}", 0)
    yield Part(f"loss {record.train_loss:.4f}", 1)
    if record.valid:
        yield Part(f"valid loss {record.valid['loss']:.4f}", 3)
        if metric != "loss":
            yield Part(f"{metric} {score_text(metric, record.valid[metric]):>6}", 2)
    rates = set(record.lr.values())
    yield Part(f"lr {'up to ' if len(rates) > 1 else ''}{max(rates):.3g}", 8, 11)
    yield Part(rate, 7, 15)
    waits = list(record.rank_waiting)
    slowest = waits.index(max(waits)) if waits else None
    yield Part(_data_wait(record.waiting, slowest), 6 if record.waiting >= STARVED else 9)
    yield Part(f"{record.seconds + record.valid_seconds:.1f} s", 5, 6)
    if record.valid:
        yield Part("best" if record.best else "", 4, 4)


def _data_wait(share: float, slowest: int | None = None) -> str:
    """The share of the time that is spent waiting for data, and of several ranks the one that waits longest."""
    return f"data wait {percent(share, 0)}" + ("" if slowest is None else f" (rank {slowest})")


def memory_used(device: torch.device) -> str:
    """Peak memory of this process: on the device when that is a GPU, else resident."""
    return f"{peak_memory(device) / 2**30:.1f} GiB"


def print_scores(
    scores: Mapping[str, Mapping[str, Any]], console: Console, *, title: str, certainty: Certainty | None = None
) -> None:
    """Print scalar scores: a column per split, and one row for scores that are equal. `certainty` is of the last."""
    table = Table()
    table.add_column("score", overflow="fold")
    for split in scores:
        table.add_column(split, justify="right", no_wrap=True)
    certainty = certainty or Certainty({}, {})
    for heading in certainty.headings:
        table.add_column(heading, justify="right", overflow="fold")
    for row in score_rows(list(scores.values())):
        table.add_row(cell(row.heading), *row.texts, *certainty.texts(row.names[0]))
    show(f"scores of {title}", console=console)
    console.print(table)


def print_trust(found: Rescored, console: Console) -> None:
    """Print what comes of a bundle's trust: a column for each split, and one for the same at export."""
    table = Table()
    table.add_column("trust", overflow="fold")
    for heading in found.headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for words, texts in found.rows:
        table.add_row(words, *texts)
    console.print(table)
    if not found.same_items:
        note("these splits hold other items than those at export", console)
