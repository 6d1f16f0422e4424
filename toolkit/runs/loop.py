"""The body of the training loop: what is shown, saved and tracked at each event, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TypeAlias

from rich.console import Console

from toolkit.api.contracts import EpochRecord, Record, Tracker, Viewed
from toolkit.api.errors import Stopped
from toolkit.build.assemble import Assembly
from toolkit.data.store.corrupt import Met, Skipped
from toolkit.runs.directory import RunDirectory
from toolkit.runs.evaluation import Scored, by_rank
from toolkit.runs.files import write_records
from toolkit.runs.screen import Screen
from toolkit.system.notices import warn
from toolkit.system.ranks import ALONE, Ranks
from toolkit.system.signals import Signals, exit_code, how_ended
from toolkit.training.checkpoint import BestCheckpoint, Checkpoint, LastCheckpoint, Origin
from toolkit.training.finite import require_worth
from toolkit.training.fit import Event, Validating, fit
from toolkit.training.sharded import whole
from toolkit.training.state import Setup, State

Records: TypeAlias = Generator[EpochRecord, None, None]


@dataclass(frozen=True)
class Saving:
    """Where and how often a run is saved."""

    directory: RunDirectory
    origin: Origin
    minutes: float
    skipped: Mapping[str, Skipped] = field(default_factory=dict)
    """Items skipped so far, by split."""
    ranks: Ranks = ALONE
    """Those that train: all of them save, and the first one writes."""

    def save_last(self, state: State) -> None:
        state.join_statistics()
        for met in self.ranks.gather(self._met()):
            for name, one in met.items():
                self.skipped[name].merge(one)
        last = LastCheckpoint(origin=self.origin, state=state.state_dict(), met=self._met())
        self._save(last, self.directory.last)

    def _met(self) -> dict[str, Met]:
        return {name: skipped.met() for name, skipped in self.skipped.items()}

    def save_best(self, state: State, record: EpochRecord) -> None:
        best = BestCheckpoint(
            origin=self.origin,
            network=whole(state.judged.state_dict()),
            objective=state.objective.state_dict(),
            epoch=record.epoch,
            valid=dict(record.valid),
        )
        self._save(best, self.directory.best)

    def _save(self, checkpoint: Checkpoint, path: Path) -> None:
        if self.ranks.leads:
            checkpoint.save(path)


class Trackers:
    """The recipe's trackers. One that fails is reported once, on `console` (None: standard error), and skipped: it
    must not cost the run."""

    def __init__(self, trackers: Sequence[Tracker], console: Console | None) -> None:
        self._trackers, self._console = list(trackers), console

    def track(self, record: Record) -> None:
        for tracker in list(self._trackers):
            self._guarded(tracker, partial(tracker.track, record))

    @property
    def viewers(self) -> list[str]:
        """How to look at what was tracked, a line each."""
        lines: list[str] = []

        def ask(tracker: Tracker) -> None:
            if isinstance(tracker, Viewed) and tracker.viewer:
                lines.append(tracker.viewer)

        for tracker in list(self._trackers):
            self._guarded(tracker, partial(ask, tracker))
        return lines

    def close(self) -> None:
        for tracker in list(self._trackers):
            self._guarded(tracker, tracker.close)

    def _guarded(self, tracker: Tracker, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self._trackers.remove(tracker)
            cause = f"{type(error).__name__}: {error}"
            warn(f"tracker {type(tracker).__name__} failed and is skipped from here on: {cause}", self._console)


@dataclass(frozen=True)
class Prepared:
    """A run whose recipe is built, ready to be trained."""

    directory: RunDirectory
    assembly: Assembly
    state: State
    setup: Setup
    saved: LastCheckpoint | None
    """The state of its training; None where it has not begun."""

    @cached_property
    def scored(self) -> Scored:
        return Scored.of_run(self.assembly, by_rank(self.state.parallel.drawn_by_rank))


@dataclass(frozen=True)
class Session:
    """One process at work on one run: who saves, tracks and shows it, and the signals that end it."""

    saving: Saving
    trackers: Trackers
    console: Console
    signals: Signals

    @property
    def directory(self) -> RunDirectory:
        return self.saving.directory


def train(state: State, setup: Setup, session: Session, *, patience: int | None) -> Records:
    """Train to the end, or until `patience` epochs brought nothing better; yields each epoch's record once it is saved.

    Raises Stopped, after saving, when a signal came. Leave the generator (`close`) to end training early.
    """
    saving, signals = session.saving, session.signals
    unit = "clips" if setup.train.spec.clip else "images"
    ranks, saved = state.parallel.ranks, time.monotonic()
    screen = Screen(session.console, setup.epochs, setup.metric, state.device, unit=unit, ranks=ranks.count)
    with screen, signals.deferred():
        if stale(state, patience):
            return
        for event in fit(state, setup):
            screen.show(event)
            if isinstance(event, EpochRecord):
                if event.best:
                    saving.save_best(state, event)
                saving.save_last(state)
                if ranks.leads:
                    write_records(session.directory, state.records)
                session.trackers.track(event)
                saved = time.monotonic()
            received, due = _agreed(event, ranks, signals, due=time.monotonic() - saved > 60 * saving.minutes)
            if not isinstance(event, EpochRecord) and (received or due):
                require_worth(state, setup)
                saving.save_last(state)
                saved = time.monotonic()
            if received:
                code = exit_code(received)
                raise Stopped(
                    f"{how_ended(code)} in epoch {event.epoch}; everything is saved in {session.directory.path}",
                    exit_code=code,
                    next_step=session.directory.resume_command,
                )
            if isinstance(event, EpochRecord):
                yield event
                if stale(state, patience):
                    return


def _agreed(event: Event, ranks: Ranks, signals: Signals, *, due: bool) -> tuple[int | None, bool]:
    """The signal that any rank has received, and whether it is time to save for any of them: the same on all."""
    if not ranks.together:
        return signals.received, due
    if isinstance(event, Validating):  # ranks may validate unlike numbers of batches
        return None, False
    received, latest = ranks.most(signals.received or 0, due)
    return int(received) or None, bool(latest)


def stale(state: State, patience: int | None) -> bool:
    """Whether `patience` epochs have gone by without a better score."""
    return patience is not None and state.best_epoch > 0 and state.epoch - state.best_epoch >= patience
