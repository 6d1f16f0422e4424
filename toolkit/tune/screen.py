"""What a study shows while it works: a live table of its trials on a terminal, one line a trial elsewhere."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table

from toolkit.recipe.tables import TuneTable
from toolkit.runs.directory import RunDirectory
from toolkit.tune.folder import repeat_of, trial_run
from toolkit.tune.outcome import DONE, WORDS, best_numbers, cause, reported_epochs, scores, seconds, short_keys, shown

if TYPE_CHECKING:
    from types import TracebackType

READ_SECONDS = 1.0
"""How often the study's storage is read."""
LEAVE_SECONDS = 2.0
"""How long the end waits for a reading under way: a storage that does not answer holds nobody up."""
FRAME = 8
"""Lines of the terminal that are not rows of the table."""


class StudyScreen:
    """Shows the trials of a study while its block runs, whoever works on them. Only reads the study."""

    def __init__(
        self,
        console: Console,
        study: optuna.Study,
        tune: TuneTable,
        folder: Path,
        *,
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        """`leave` closes what the thread that reads the study has opened: a database's connection is its own."""
        self._console, self._study, self._tune, self._folder, self._leave = console, study, tune, folder, leave
        self._trials: Sequence[FrozenTrial] = ()
        self._trouble = ""
        self._told: set[int] = set()
        self._epochs: dict[int, int] = {}
        self._ended: dict[int, int] = {}
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._read_on, name="study screen", daemon=True)
        self._progress = Progress(
            TextColumn("trials"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            speed_estimate_period=3600,
            console=console,
        )
        self._bar = self._progress.add_task("trials", total=tune.trials)
        self._live = (
            Live(get_renderable=self._view, console=console, refresh_per_second=2) if self._on_terminal else None
        )

    @property
    def _on_terminal(self) -> bool:
        return self._console.is_terminal and not self._console.quiet

    def __enter__(self) -> StudyScreen:
        self._read()
        self._told = {trial.number for trial in self._trials if trial.state.is_finished()}
        self._reader.start()
        if self._live:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._reader.join(LEAVE_SECONDS)
        if not self._reader.is_alive() and not self._trouble:
            self._read()
            self._tell()
        if self._live:
            self._live.stop()

    def _read_on(self) -> None:
        while not self._stop.wait(READ_SECONDS):
            self._read()
            self._tell()
        self._leave()

    def _read(self) -> None:
        """Look at the study; where that fails, what was seen last stands and the next look may succeed."""
        try:
            self._trials = self._study.get_trials(deepcopy=False)
        except Exception as error:  # the drivers of storages have no common kind of error
            self._trouble = f"the storage cannot be read: {type(error).__name__}"
            return
        self._trouble = ""
        self._progress.update(self._bar, completed=sum(trial.state in DONE for trial in self._trials))

    def _tell(self) -> None:
        """One line for each trial that has ended since the last look, where there is no table."""
        if self._live:
            return
        best = best_numbers(self._trials, self._study.directions)
        for trial in self._trials:
            if trial.state.is_finished() and trial.number not in self._told:
                self._told.add(trial.number)
                line = trial_line(trial, self._study.directions, self._trained(trial), best=trial.number in best)
                self._console.print(line, markup=False, soft_wrap=True)

    def _view(self) -> RenderableType:
        rows = max(self._console.height - FRAME, 5)
        parts: list[RenderableType] = [self._progress, self._table(rows)]
        return Group(*parts, self._trouble) if self._trouble else Group(*parts)

    def _table(self, rows: int) -> Table:
        trials = [trial for trial in self._trials if trial.state != TrialState.WAITING]
        best = best_numbers(trials, self._study.directions)
        names = short_keys(key for trial in trials for key in trial.params)
        table = Table(box=None, pad_edge=False, expand=True)
        score = ", ".join(self._tune.metrics) or self._tune.metric or "score"
        for heading in ("trial", score, "epochs", "seconds"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("values", ratio=1, no_wrap=True, overflow="ellipsis")
        for trial in chosen(trials, best, rows):
            table.add_row(
                str(trial.number),
                ", ".join(f"{score:.4f}" for score in scores(trial, self._study.directions)),
                self._epochs_text(trial),
                f"{seconds(trial):.0f}",
                self._state(trial, best=trial.number in best),
                values_text(trial, names),
                style="bold green" if trial.number in best else "dim" if trial.state == TrialState.PRUNED else "",
            )
        return table

    def _epochs_text(self, trial: FrozenTrial) -> str:
        running = trial.state == TrialState.RUNNING and self._planned(trial)
        return f"{self._trained(trial)}/{self._planned(trial)}" if running else str(self._trained(trial) or "")

    def _state(self, trial: FrozenTrial, *, best: bool) -> RenderableType:
        epochs = self._planned(trial)
        if trial.state == TrialState.RUNNING and epochs:
            return ProgressBar(total=epochs, completed=min(self._trained(trial), epochs), width=12)
        failed = trial.state == TrialState.FAIL
        return f"failed: {cause(trial)[:40]}" if failed else WORDS[trial.state] + (", best" if best else "")

    def _trained(self, trial: FrozenTrial) -> int:
        """Epochs behind the trial, all its seeds together: as its runs here have recorded, else as it has reported."""
        if trial.number in self._ended:
            return self._ended[trial.number]
        first = trial_run(self._folder, trial.number)
        runs = [repeat_of(first, number) for number in range(self._tune.seeds_per_trial)]
        epochs = sum(recorded(run) for run in runs) or reported_epochs(trial)
        if trial.state.is_finished():
            self._ended[trial.number] = epochs
        return epochs

    def _planned(self, trial: FrozenTrial) -> int | None:
        """Epochs of the trial's runs; None where they are not here, or have only begun."""
        if trial.number not in self._epochs:
            path = trial_run(self._folder, trial.number).path / "facts.json"
            try:
                epochs = json.loads(path.read_text(encoding="utf-8"))["epochs"]
            except (OSError, ValueError, KeyError):
                return None
            self._epochs[trial.number] = epochs * self._tune.seeds_per_trial
        return self._epochs[trial.number]


def recorded(run: RunDirectory) -> int:
    """Epochs in a run's records; 0 where there are none."""
    try:
        return run.records.read_bytes().count(b"\n")
    except OSError:
        return 0


def chosen(trials: Sequence[FrozenTrial], best: Iterable[int], rows: int) -> list[FrozenTrial]:
    """As many trials as there are rows: those under way, the best, then the latest; in their order."""
    kept = set(best)
    order = sorted(trials, key=lambda one: (one.state != TrialState.RUNNING, one.number not in kept, -one.number))
    return sorted(order[:rows], key=lambda one: one.number)


def trial_line(
    trial: FrozenTrial, directions: Sequence[optuna.study.StudyDirection], epochs: int, *, best: bool
) -> str:
    """A trial that has ended, as one line of a log."""
    parts = [f"trial {trial.number} {WORDS[trial.state]}"]
    parts += [" ".join(f"{score:.4f}" for score in scores(trial, directions))]
    parts += [f"{epochs} epoch{'s' if epochs != 1 else ''}", f"{seconds(trial):.1f} s"]
    parts += [values_text(trial, short_keys(trial.params))]
    parts += [cause(trial), "best" if best else ""]
    return "  ".join(part for part in parts if part)


def values_text(trial: FrozenTrial, names: dict[str, str]) -> str:
    return " ".join(f"{names[key]}={shown(value)}" for key, value in trial.params.items())
