"""Several workers on one machine: processes of their own, one for each GPU where there are GPUs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from toolkit.api.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_STOPPED, RunFailed, Stopped, ToolkitError, counted
from toolkit.recipe.tables import Recipe
from toolkit.system import device as devices
from toolkit.system.notices import note, warn
from toolkit.system.signals import Signalled, Signals, exit_code, how_ended
from toolkit.tune.worker.orders import give
from toolkit.tune.worker.trial import StudyLocation

LOOK_SECONDS = 0.1
VISIBLE = "CUDA_VISIBLE_DEVICES"


class WorkerError(ToolkitError):
    """What a worker's process ended with, in its own words."""

    def __init__(self, lines: Sequence[str], *, exit_code: int, next_step: str | None) -> None:
        super().__init__(lines[0], next_step=next_step)
        self.exit_code = exit_code
        self._lines = list(lines)

    def lines(self) -> list[str]:
        return self._lines


@dataclass(frozen=True)
class Resources:
    """What one worker computes on."""

    variables: Mapping[str, str]
    """Of its environment."""
    threads: int | None
    """Of a trial on the CPU, of each of its ranks."""


def resources(recipe: Recipe, count: int, ranks: int = 1) -> list[Resources]:
    """GPUs for each worker, in turn, one for each rank of a trial; or a share of the cores where the recipe computes on
    the CPU."""
    share = max(torch.get_num_threads() // (count * ranks), 1)
    if devices.choose_device(recipe.train.device).type == "cpu":
        return [Resources({}, share)] * count
    decoding = {"OMP_NUM_THREADS": str(share)}
    if recipe.train.device not in ("auto", "cuda"):
        return [Resources(decoding, None)] * count
    named = [name for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    gpus = named or [str(number) for number in range(torch.cuda.device_count())]
    own = [[gpus[(number * ranks + rank) % len(gpus)] for rank in range(ranks)] for number in range(count)]
    return [Resources({**decoding, VISIBLE: ",".join(dict.fromkeys(names))}, None) for names in own]


@dataclass(frozen=True)
class WorkerProcess:
    """A worker's process."""

    number: int
    """From 1."""
    process: subprocess.Popen[str]
    log: Path
    """What it prints, warnings of libraries and the like."""

    @property
    def ending(self) -> str:
        """How it ended, as text."""
        code = self.process.returncode
        if code < 0:
            return f"worker {self.number} was killed by {signal.Signals(-code).name}"
        if code in (EXIT_STOPPED, EXIT_INTERRUPTED):
            return f"worker {self.number} was stopped by a signal"
        return f"worker {self.number} ended with exit code {code}, see {self.log}"

    def error(self) -> WorkerError | None:
        """The error that the worker reported, if any; a signal does not count."""
        if self.process.returncode in (EXIT_DONE, EXIT_STOPPED, EXIT_INTERRUPTED) or self.process.stdout is None:
            return None
        lines = self.process.stdout.read().splitlines()
        return WorkerError(**json.loads(lines[-1])) if lines else None


@dataclass(frozen=True)
class Workers:
    """The workers of one study that this process starts, passes signals on to and waits for."""

    recipe: Recipe
    source: str
    """The recipe's file."""
    location: StudyLocation
    count: int
    console: Console
    ranks: int = 1
    """Of each trial."""

    @property
    def folder(self) -> Path:
        return self.location.runs / self.recipe.name

    def work(self) -> None:
        """Return when the study has what it was asked for. One worker that is killed or stopped leaves its trial to the
        others.

        Raises a worker's error once the others are stopped, Stopped when a signal came, RunFailed when no worker is
        left of an unfinished study.
        """
        shares = resources(self.recipe, self.count, self.ranks)
        gpus = {gpu for share in shares if share.threads is None for gpu in share.variables.get(VISIBLE, "").split(",")}
        if 0 < len(gpus) < len(shares) * self.ranks:
            text = f"{len(shares)} workers share {counted(len(gpus), 'GPU')}: each trial is slower"
            note(text, self.console)
        with Signals():
            try:
                with self._started(shares) as started:
                    self._wait(started)
            except Signalled as stopped:
                code = exit_code(stopped.number)
                raise Stopped(
                    f"{how_ended(code)}; the study in {self.folder} keeps all trials and the last checkpoints",
                    exit_code=code,
                    next_step=self.location.again,
                ) from stopped

    @contextmanager
    def _started(self, shares: Sequence[Resources]) -> Iterator[list[WorkerProcess]]:
        """The processes, which have all ended when the block is left: by the signal that ends it, or by SIGTERM."""
        started: list[WorkerProcess] = []
        number = signal.SIGTERM
        try:
            for share in shares:
                started.append(self._start(len(started) + 1, share))
            yield started
        except Signalled as signalled:
            number = signal.Signals(signalled.number)
            raise
        finally:
            _stop(started, number)

    def _start(self, number: int, share: Resources) -> WorkerProcess:
        log = self.folder / f"worker-{number}.log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "toolkit.tune.worker.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=os.environ | share.variables,
                text=True,
                start_new_session=True,  # Ctrl-C comes to this process, which passes it on once
            )
        order = {
            "name": self.recipe.name,
            "tables": self.recipe.tables(),
            "source": self.source,
            "runs": str(self.location.runs),
            "storage": self.location.storage,
            "again": self.location.again,
            "threads": share.threads,
            "ranks": self.ranks,
        }
        give(order, process)
        return WorkerProcess(number, process, log)

    def _wait(self, started: Sequence[WorkerProcess]) -> None:
        """Until all have ended, with a warning for each that does not end well. Raises the error that one reports."""
        running = list(started)
        while running:
            time.sleep(LOOK_SECONDS)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                if (error := one.error()) is not None:
                    raise error
                if one.process.returncode != EXIT_DONE:
                    left = "; the other workers continue its trial" if running else ""
                    warn(f"{one.ending}{left}", self.console)
        codes = {one.process.returncode for one in started}
        if EXIT_DONE in codes:
            return
        if codes <= {EXIT_STOPPED, EXIT_INTERRUPTED}:
            message = f"all workers were stopped by signals; the study in {self.folder} is kept"
            raise Stopped(message, exit_code=max(codes), next_step=self.location.again)
        endings = "; ".join(one.ending for one in started)
        raise RunFailed(
            f"no worker is left, and the study is not finished: {endings}", next_step=f"go on: {self.location.again}"
        )


def _stop(started: Sequence[WorkerProcess], number: int) -> None:
    """End processes by a signal, and once more by each that comes meanwhile; they save first."""
    while running := [one.process for one in started if one.process.poll() is None]:
        try:
            for process in running:
                process.send_signal(number)
            for process in running:
                process.wait()
        except Signalled as signalled:
            number = signalled.number
    for one in started:
        for pipe in (one.process.stdin, one.process.stdout):
            if pipe is not None:
                pipe.close()
        if not one.log.stat().st_size:
            one.log.unlink()
