"""What a run shows while it works: a live line on a terminal, one line an epoch elsewhere."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from toolkit.api.contracts import EpochRecord
from toolkit.runs.scores import score_rows
from toolkit.training.fit import Event, StepDone, Validating

if TYPE_CHECKING:
    from types import TracebackType

REFRESH_SECONDS = 0.5
"""Reading the loss waits for a CUDA device: do it no more often than a person can read."""


class Screen:
    """Shows the events of `fit`; a context manager that gives the terminal back whatever happens. `unit` is what is
    trained on: images or clips."""

    def __init__(
        self, console: Console, epochs: int, metric: str, device: torch.device, *, unit: str = "images"
    ) -> None:
        self._console, self._epochs, self._metric, self._device = console, epochs, metric, device
        self._live = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not self._live,
            refresh_per_second=4,
        )
        self._task: TaskID | None = None
        self._shown = 0.0
        self._unit = unit
        self._items = 0

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        match event:
            case StepDone():
                self._items = event.items
                self._show_step(event)
            case Validating():
                if self._live and self._task is not None:
                    self._progress.update(self._task, facts=f"validating {event.done}/{event.count}")
            case EpochRecord():
                rate = speed(self._items, event.seconds, self._unit)
                self._console.print(epoch_line(event, self._epochs, self._metric, rate), soft_wrap=True)

    def _show_step(self, event: StepDone) -> None:
        now = time.perf_counter()
        last = event.step == event.steps
        if not self._live or (now - self._shown < REFRESH_SECONDS and not last):
            return
        self._shown = now
        shown: dict[str, Any] = {
            "description": f"epoch {event.epoch}/{self._epochs}",
            "completed": (event.epoch - 1) * event.steps + event.step,
            "facts": step_facts(event, speed(event.items, event.seconds, self._unit), memory_used(self._device)),
        }
        if self._task is None:
            self._task = self._progress.add_task(total=self._epochs * event.steps, **shown)
        else:
            self._progress.update(self._task, **shown)


def speed(items: int, seconds: float, unit: str) -> str:
    """The rate of so many items trained, as text."""
    rate = items / max(seconds, 1e-9)
    return f"{rate:,.{0 if rate >= 9.95 else 1}f} {unit}/s"


def step_facts(event: StepDone, rate: str, memory: str) -> str:
    waiting = event.waited / max(event.seconds, 1e-9)
    return f"loss {float(event.loss):.4f}  {rate}  waiting {waiting:.0%}  {memory}"


def epoch_line(record: EpochRecord, epochs: int, metric: str, rate: str) -> str:
    """One epoch as one line, the same on a terminal and in a log."""
    parts = [f"epoch {record.epoch}/{epochs}", f"loss {record.train_loss:.4f}"]
    if record.valid:
        parts.append(f"valid loss {record.valid['loss']:.4f}")
        parts += [f"{metric} {record.valid[metric]:.4f}"] if metric != "loss" else []
    parts.append(f"lr {max(record.lr.values()):.3g}")
    parts.append(rate)
    parts.append(f"waiting {record.waiting:.0%}")
    parts.append(f"{record.seconds + record.valid_seconds:.1f} s")
    return "  ".join(parts) + ("  best" if record.best else "")


def memory_used(device: torch.device) -> str:
    """Peak memory of this process: on the device when that is a GPU, else resident."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f} GiB"


def score_table(scores: dict[str, dict[str, Any]], *, title: str) -> Table:
    """Scalar scores, one column a split."""
    table = Table(title=title, title_justify="left")
    table.add_column("score")
    for split in scores:
        table.add_column(split, justify="right")
    for row in score_rows(list(scores.values())):
        table.add_row(row.heading, *map(_number, row.values))
    return table


def _number(score: Any) -> str:
    return "" if not isinstance(score, float) else "undefined" if math.isnan(score) else f"{score:.4f}"
