"""What a study shows while it works: a live table of its trials on a terminal, one line a trial elsewhere."""

from __future__ import annotations

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

from toolkit.api.errors import DataError, counted
from toolkit.recipe.tables import TuneTable
from toolkit.runs.directory import RunDirectory
from toolkit.runs.scores import score_text
from toolkit.system.notices import cell, show
from toolkit.tune.outcome import DONE, WORDS, best_numbers, cause, scores, seconds, short_keys, shown
from toolkit.tune.storage import repeat_of, trial_run

if TYPE_CHECKING:
    from types import TracebackType

READ_SECONDS = 1.0
"""How often the study's storage is read."""
LEAVE_SECONDS = 2.0
"""How long the end waits for a reading under way: a storage that does not answer holds nobody up."""
FRAME = 8
"""Lines of the terminal that are not rows of the table."""


class StudyScreen:
    """Shows the trials of a study while its block runs, whichever process trains them. Only reads the study."""

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
        self._metrics = study.metric_names or ["score"] * len(study.directions)
        self._trials: Sequence[FrozenTrial] = ()
        self._trouble = ""
        self._printed: set[int] = set()
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
        on_terminal = console.is_terminal and not console.quiet
        self._live = Live(get_renderable=self._view, console=console, refresh_per_second=2) if on_terminal else None

    def __enter__(self) -> StudyScreen:
        self._read()
        self._printed = {trial.number for trial in self._trials if trial.state.is_finished()}
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
            self._print_ended()
        if self._live:
            self._live.stop()

    def _read_on(self) -> None:
        while not self._stop.wait(READ_SECONDS):
            self._read()
            self._print_ended()
        self._leave()

    def _read(self) -> None:
        """Look at the study; where that fails, what was seen last stays and the next look may succeed."""
        try:
            self._trials = self._study.get_trials(deepcopy=False)
        except Exception as error:  # the drivers of storages have no common kind of error
            self._trouble = f"the storage cannot be read: {type(error).__name__}"
            return
        self._trouble = ""
        self._progress.update(self._bar, completed=sum(trial.state in DONE for trial in self._trials))

    def _print_ended(self) -> None:
        """One line for each trial that has ended since the last look, where there is no table."""
        if self._live:
            return
        best = best_numbers(self._trials, self._study.directions)
        for trial in self._trials:
            if trial.state.is_finished() and trial.number not in self._printed:
                self._printed.add(trial.number)
                epochs, is_best = self._trained(trial), trial.number in best
                line = trial_line(trial, self._study.directions, self._metrics, epochs, best=is_best)
                show(line, console=self._console)

    def _view(self) -> RenderableType:
        trials = [trial for trial in self._trials if trial.state != TrialState.WAITING]
        best = best_numbers(trials, self._study.directions)
        names = short_keys(key for trial in trials for key in trial.params)
        table = Table(box=None, pad_edge=False, expand=True)
        for heading in ("trial", ", ".join(self._metrics), "epochs", "seconds"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("values", ratio=1, no_wrap=True, overflow="ellipsis")
        for trial in chosen(trials, best, max(self._console.height - FRAME, 5)):
            is_best, epochs = trial.number in best, self._trained(trial)
            planned = self._planned(trial) if trial.state == TrialState.RUNNING else 0
            state: RenderableType = WORDS[trial.state] + (", best" if is_best else "")
            if planned:
                state = ProgressBar(total=planned, completed=min(epochs, planned), width=12)
            elif trial.state == TrialState.FAIL:
                state = cell(f"failed: {cause(trial)[:40]}")
            table.add_row(
                str(trial.number),
                ", ".join(score_texts(trial, self._study.directions, self._metrics)),
                f"{epochs}/{planned}" if planned else str(epochs or ""),
                f"{seconds(trial):.0f}",
                state,
                cell(values_text(trial, names)),
                style="bold green" if is_best else "dim" if trial.state == TrialState.PRUNED else "",
            )
        return Group(self._progress, table, *([cell(self._trouble)] if self._trouble else []))

    def _trained(self, trial: FrozenTrial) -> int:
        """Epochs of a trial so far, all its seeds together: as its runs here have recorded, else as it has reported."""
        first = trial_run(self._folder, trial.number)
        runs = (repeat_of(first, number) for number in range(self._tune.seeds_per_trial))
        return sum(recorded(run) for run in runs) or max(trial.intermediate_values, default=0)

    def _planned(self, trial: FrozenTrial) -> int:
        """Epochs of the trial's runs; 0 where they are not here, or have only begun."""
        run = trial_run(self._folder, trial.number)
        try:
            return int(run.read_json(run.facts)["epochs"]) * self._tune.seeds_per_trial
        except (OSError, DataError, ValueError, KeyError):
            return 0


def recorded(run: RunDirectory) -> int:
    """Epochs in a run's records; 0 where it has no records."""
    try:
        return run.records.read_bytes().count(b"\n")
    except OSError:
        return 0


def chosen(trials: Sequence[FrozenTrial], best: Iterable[int], rows: int) -> list[FrozenTrial]:
    """As many trials as there are rows: those under way, the best, then the latest; in their order."""
    first = set(best)
    order = sorted(trials, key=lambda one: (one.state != TrialState.RUNNING, one.number not in first, -one.number))
    return sorted(order[:rows], key=lambda one: one.number)


def trial_line(
    trial: FrozenTrial,
    directions: Sequence[optuna.study.StudyDirection],
    metrics: Sequence[str],
    epochs: int,
    *,
    best: bool,
) -> str:
    """A trial that has ended, as one line of a log."""
    parts = [f"trial {trial.number} {WORDS[trial.state]}"]
    texts = score_texts(trial, directions, metrics)
    parts += [f"{name} {text}" for name, text in zip(metrics, texts, strict=False)]
    parts += [counted(epochs, "epoch"), f"{seconds(trial):.1f} s"]
    parts += [values_text(trial, short_keys(trial.params))]
    parts += [cause(trial), "best" if best else ""]
    return "  ".join(part for part in parts if part)


def score_texts(
    trial: FrozenTrial, directions: Sequence[optuna.study.StudyDirection], metrics: Sequence[str]
) -> list[str]:
    """Its scores as a person reads them; empty where it has none."""
    return [score_text(name, value) for name, value in zip(metrics, scores(trial, directions), strict=False)]


def best_line(trial: FrozenTrial, metrics: Sequence[str]) -> str:
    """A best trial with its scores and all that it tried, by whole keys."""
    reached = ", ".join(f"{name} {score_text(name, value)}" for name, value in zip(metrics, trial.values, strict=True))
    tried = ", ".join(f"{key} = {shown(value)}" for key, value in trial.params.items())
    return f"trial {trial.number}: {reached}" + (f" with {tried}" if tried else "")


def values_text(trial: FrozenTrial, names: dict[str, str]) -> str:
    return " ".join(f"{names[key]}={shown(value)}" for key, value in trial.params.items())
