"""The ranks of a trial: processes that train one of its runs together, started by the worker that took the trial.

The worker alone asks the study, and decides after each epoch; all ranks read its decision in the store that it serves.
So a rank that dies costs the worker nothing: it starts the ranks again, and the run goes on from its checkpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is public

from toolkit.api.contracts import EpochRecord
from toolkit.api.errors import EXIT_INTERRUPTED, EXIT_STOPPED, RunFailed, Stopped, ToolkitError
from toolkit.build.plan import Plan
from toolkit.runs.directory import RunDirectory
from toolkit.runs.loop import Records
from toolkit.system.launch import how_killed, threads_of_each
from toolkit.system.ranks import VARIABLES, RanksLost
from toolkit.tune.worker.orders import give

GO_ON, LEAVE = "go on", "leave"
"""Decisions on a run after an epoch; any other is the cause of its failure."""
LOOK_SECONDS = 0.05
STOP_SECONDS = 60.0
"""How long ranks have to save and leave."""
LOST_SECONDS = 10.0
"""How long ranks have to notice that another one is gone."""


class RankKilled(RunFailed):
    """A rank ended without a word, or does not answer."""


def record_of(number: int) -> str:
    """Where in the store a run's record is, the first of which is 0."""
    return f"record {number}"


def decision_after(number: int) -> str:
    """Where in the store the worker's decision on this record is."""
    return f"decision {number}"


def ending_of(rank: int) -> str:
    """Where in the store a rank's error is."""
    return f"ending {rank}"


@dataclass(frozen=True)
class Ending:
    """The error that ended a rank."""

    message: str
    next_step: str
    exit_code: int
    when: float
    """In seconds since 1970."""
    lost: bool
    """Whether it is that another rank is gone."""
    unwritten: bool
    """Whether the file system has refused."""

    def error(self) -> Exception:
        if self.exit_code in (EXIT_STOPPED, EXIT_INTERRUPTED):
            return Stopped(self.message, exit_code=self.exit_code, next_step=self.next_step)
        error = RunFailed(self.message, next_step=self.next_step or None)
        error.__cause__ = OSError(self.message) if self.unwritten else None
        return error

    @classmethod
    def of(cls, error: BaseException, exit_code: int) -> Ending:
        message = str(error) if isinstance(error, ToolkitError) else f"{type(error).__name__}: {error}"
        next_step = (error.next_step if isinstance(error, ToolkitError) else None) or ""
        lost, unwritten = isinstance(error, RanksLost), isinstance(error.__cause__, OSError)
        return cls(message, next_step, exit_code, time.time(), lost, unwritten)


def train_on_ranks(planned: Plan, directory: RunDirectory, *, ranks: int) -> Records:
    """As `toolkit.runs.session.train_run`, on so many ranks of this machine.

    Ranks of which one is killed are started again, as long as the run gets further. Raises RunFailed when it does not.
    """
    reached: object = "not begun"
    while True:
        begun = reached
        try:
            with _started(_order(planned, directory), ranks) as group:
                yield from group.records()
            return
        except RankKilled as killed:
            reached = directory.last.stat().st_mtime_ns if directory.last.exists() else None
            if reached == begun:
                message = f"{killed.message}; the run got no further when its ranks were started again"
                raise RunFailed(message) from killed


def _order(planned: Plan, directory: RunDirectory) -> dict[str, Any]:
    recipe = planned.resolved
    return {"name": recipe.name, "tables": recipe.tables(), "source": planned.source, "run": str(directory.path)}


@contextmanager
def _started(order: Mapping[str, Any], ranks: int) -> Iterator[_Group]:
    """The ranks, none of which is left after the block."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=STOP_SECONDS))
    processes: list[subprocess.Popen[str]] = []
    try:
        while len(processes) < ranks:
            processes.append(_start(order, len(processes), ranks, store.port))
        yield _Group(store, processes)
    finally:
        _stop(processes)


def _start(order: Mapping[str, Any], rank: int, ranks: int, port: int) -> subprocess.Popen[str]:
    launched = {
        **dict(zip(VARIABLES, (rank, ranks, rank, ranks), strict=True)),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": port,
        "TORCHELASTIC_USE_AGENT_STORE": True,
        "OMP_NUM_THREADS": threads_of_each(ranks),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit.tune.worker.rank"],
        stdin=subprocess.PIPE,
        env={**os.environ, **{name: str(value) for name, value in launched.items()}},
        text=True,
        start_new_session=True,  # Ctrl-C comes to the worker, which passes it on once
    )
    give(order, process)
    return process


def _stop(processes: Sequence[subprocess.Popen[str]]) -> None:
    """End processes by SIGTERM, at which they save, and by SIGKILL if that takes too long."""
    until = time.monotonic() + STOP_SECONDS
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            if process.stdin is not None:
                process.stdin.close()


@dataclass(frozen=True)
class _Group:
    """Ranks at work on one run."""

    store: TCPStore
    """What the worker serves and the ranks read and write."""
    processes: Sequence[subprocess.Popen[str]]

    def records(self) -> Records:
        """The records of the run. Raises what ended the ranks, RankKilled where they said nothing of it."""
        number = 0
        while (record := self._next(number)) is not None:
            try:
                yield record
            except GeneratorExit:
                self._decide(number, LEAVE)
                raise
            except Exception as error:
                self._decide(number, f"{type(error).__name__}: {error}")
                raise
            self.store.set(decision_after(number), GO_ON)
            number += 1

    def _decide(self, number: int, decision: str) -> None:
        """Let the ranks leave, each by itself."""
        self.store.set(decision_after(number), decision)
        self._wait(STOP_SECONDS)

    def _wait(self, seconds: float) -> None:
        """Until all have ended, or for so long."""
        until = time.monotonic() + seconds
        while any(process.poll() is None for process in self.processes) and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)

    def _next(self, number: int) -> EpochRecord | None:
        """The next record; None if all ranks have reached the end of the run."""
        while True:
            ended = [process.poll() for process in self.processes]
            if self.store.check([record_of(number)]):
                table: dict[str, Any] = json.loads(self.store.get(record_of(number)))
                lists = {name: tuple(value) for name, value in table.items() if isinstance(value, list)}
                return EpochRecord(**{**table, **lists})  # JSON has no tuples
            if any(ended):
                raise self._error()
            if None not in ended:
                return None
            time.sleep(LOOK_SECONDS)

    def _error(self) -> Exception:
        """Why the ranks have ended, of which one has: the first that knows more than that another is gone."""
        self._wait(LOST_SECONDS)
        said = [key for key in map(ending_of, range(len(self.processes))) if self.store.check([key])]
        endings = sorted((Ending(**json.loads(self.store.get(key))) for key in said), key=lambda ending: ending.when)
        if known := next((ending for ending in endings if not ending.lost), None):
            return known.error()
        codes = {rank: process.returncode for rank, process in enumerate(self.processes) if process.returncode}
        for rank, code in codes.items():
            if code < 0:
                return RankKilled(how_killed(rank, -code))
        if endings:
            return RankKilled(endings[0].message)
        rank, code = next(iter(codes.items()))
        return RunFailed(f"rank {rank} ended with exit code {code}")
