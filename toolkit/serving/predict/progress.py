"""What `predict` prints on standard error while it works: notes and progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from toolkit.system.notices import show

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class Notes(Protocol):
    """What happens meanwhile."""

    def say(self, text: str) -> None: ...

    def advance(self) -> None: ...


class Lines:
    """Notes as lines."""

    def say(self, text: str) -> None:
        show(text, file=sys.stderr)

    def advance(self) -> None:
        pass


class Bar:
    """Notes above a progress bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self._done, self._started = 0, time.perf_counter()

    def say(self, text: str) -> None:
        show(text, console=self._progress.console)

    def advance(self) -> None:
        self._done += 1
        rate = self._done / max(time.perf_counter() - self._started, 1e-9)
        self._progress.update(self._task, advance=1, rate=f"{rate:,.0f} inputs/s")


@contextmanager
def shown_progress(total: int, *, rows_on_screen: bool, console: Console | None = None) -> Iterator[Notes]:
    """A bar where standard error is a terminal that does not show the answers themselves, else lines alone.

    console: where the bar goes; made only where one is shown, since rich takes time to load.
    """
    terminal = sys.stderr.isatty() if console is None else console.is_terminal
    if not terminal or rows_on_screen:
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("predict"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
    )
    target = console or Console(stderr=True)
    with Progress(*columns, console=target, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        yield Bar(progress, progress.add_task("predict", total=total, rate=""))
