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
from typing import Any

import torch
from rich.console import Console

from toolkit.api.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_STOPPED, RunFailed, Stopped, ToolkitError
from toolkit.recipe.tables import Recipe
from toolkit.system import device as devices
from toolkit.system.signals import Signalled, Signals, exit_code
from toolkit.tune.worker.join import Job

LOOK_SECONDS = 0.1
VISIBLE = "CUDA_VISIBLE_DEVICES"


class WorkerError(ToolkitError):
    """What a worker's process ended with, told as that process would have."""

    def __init__(self, lines: Sequence[str], *, exit_code: int, next_step: str | None) -> None:
        super().__init__(lines[0], next_step=next_step)
        self.exit_code = exit_code
        self._lines = list(lines)

    def lines(self) -> list[str]:
        return self._lines


@dataclass(frozen=True)
class Place:
    """What one worker computes on."""

    variables: Mapping[str, str]
    """Of its environment."""
    threads: int | None
    """Of a trial on the CPU."""


def places(recipe: Recipe, count: int) -> list[Place]:
    """A GPU for each worker, in turn; or a share of the cores where the recipe computes on the CPU."""
    share = max(torch.get_num_threads() // count, 1)
    if devices.choose_device(recipe.train.device).type == "cpu":
        return [Place({}, share)] * count
    decoding = {"OMP_NUM_THREADS": str(share)}
    if recipe.train.device not in ("auto", "cuda"):
        return [Place(decoding, None)] * count
    gpus = _gpus()
    return [Place({**decoding, VISIBLE: gpus[number % len(gpus)]}, None) for number in range(count)]


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA calls them."""
    named = [name for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return named or [str(number) for number in range(torch.cuda.device_count())]


@dataclass(frozen=True)
class Started:
    """A worker's process."""

    number: int
    """From 1."""
    process: subprocess.Popen[str]
    log: Path
    """What it prints, warnings of libraries and the like."""

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def end(self) -> str:
        """How it ended, in words."""
        code = self.process.returncode
        if code < 0:
            return f"worker {self.number} was killed by {signal.Signals(-code).name}"
        if code in (EXIT_STOPPED, EXIT_INTERRUPTED):
            return f"worker {self.number} was stopped by a signal"
        return f"worker {self.number} ended with exit code {code}, see {self.log}"

    def error(self) -> WorkerError | None:
        """The error that it has told, if any: not that it was stopped."""
        if self.process.returncode in (EXIT_DONE, EXIT_STOPPED, EXIT_INTERRUPTED) or self.process.stdout is None:
            return None
        told = self.process.stdout.read().splitlines()
        return WorkerError(**json.loads(told[-1])) if told else None


@dataclass(frozen=True)
class Workers:
    """The workers of one study that this process starts, passes signals on to and waits for."""

    recipe: Recipe
    source: str
    """The recipe's file."""
    job: Job
    count: int
    console: Console

    def work(self) -> None:
        """Return when the study has what it was asked for. One worker that is killed or stopped leaves its trial to the
        others.

        Raises a worker's error once the others are stopped, Stopped when a signal came, RunFailed when no worker is
        left of an unfinished study.
        """
        chosen = places(self.recipe, self.count)
        self._note_sharing(chosen)
        with Signals():
            try:
                with self._started(chosen) as started:
                    self._wait(started)
            except Signalled as stopped:
                raise Stopped(
                    f"stopped by a signal; the study in {self.job.runs / self.recipe.name} keeps all trials and the "
                    "last checkpoints",
                    exit_code=exit_code(stopped.number),
                    next_step=self.job.again,
                ) from stopped

    def _note_sharing(self, chosen: Sequence[Place]) -> None:
        gpus = {place.variables.get(VISIBLE) for place in chosen if place.threads is None}
        if 0 < len(gpus) < len(chosen):
            told = f"{len(chosen)} workers share {len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
            self.console.print(f"note: {told}: each trial is slower", style="yellow", markup=False)

    @contextmanager
    def _started(self, chosen: Sequence[Place]) -> Iterator[list[Started]]:
        """The processes, which have all ended when the block is left: by the signal that ends it, or by SIGTERM."""
        started: list[Started] = []
        number = signal.SIGTERM
        try:
            for place in chosen:
                started.append(self._start(len(started) + 1, place))
            yield started
        except Signalled as signalled:
            number = signal.Signals(signalled.number)
            raise
        finally:
            _stop(started, number)

    def _start(self, number: int, place: Place) -> Started:
        folder = self.job.runs / self.recipe.name
        log = folder / f"worker-{number}.log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "toolkit.tune.worker.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=os.environ | place.variables,
                text=True,
                start_new_session=True,  # Ctrl-C comes to this process, which passes it on once
            )
        if process.stdin is None:
            raise AssertionError("unreachable: a pipe was asked for")
        process.stdin.write(json.dumps(self._order(place)) + "\n")
        process.stdin.flush()
        return Started(number, process, log)

    def _order(self, place: Place) -> dict[str, Any]:
        """What `toolkit.tune.worker.process` reads."""
        return {
            "name": self.recipe.name,
            "tables": self.recipe.tables(),
            "source": self.source,
            "job": {"runs": str(self.job.runs), "storage": self.job.storage, "again": self.job.again},
            "threads": place.threads,
        }

    def _wait(self, started: Sequence[Started]) -> None:
        running, ended = list(started), []
        while running:
            time.sleep(LOOK_SECONDS)
            for one in [one for one in running if not one.running]:
                running.remove(one)
                ended.append(one)
                self._tell(one, others=bool(running))
        if all(one.process.returncode != EXIT_DONE for one in ended):
            raise self._unfinished(ended)

    def _tell(self, one: Started, *, others: bool) -> None:
        """Say how a worker has ended, where that is not as it should. Raises the error that it has told."""
        error = one.error()
        if error is not None:
            raise error
        if one.process.returncode != EXIT_DONE:
            left = "; its trial is left to the others" if others else ""
            self.console.print(f"warning: {one.end}{left}", style="yellow", markup=False, soft_wrap=True)

    def _unfinished(self, ended: Sequence[Started]) -> ToolkitError:
        codes = {one.process.returncode for one in ended}
        if codes <= {EXIT_STOPPED, EXIT_INTERRUPTED}:
            message = f"all workers were stopped by signals; the study in {self.job.runs / self.recipe.name} is kept"
            return Stopped(message, exit_code=max(codes), next_step=self.job.again)
        return RunFailed(
            f"no worker is left, and the study is not finished: {'; '.join(one.end for one in ended)}",
            next_step=f"go on: {self.job.again}",
        )


def _stop(started: Sequence[Started], number: int) -> None:
    """End processes by a signal, and once more by each that comes meanwhile; they save first."""
    while running := [one for one in started if one.running]:
        try:
            for one in running:
                one.process.send_signal(number)
            for one in running:
                one.process.wait()
        except Signalled as signalled:
            number = signalled.number
    for one in started:
        for pipe in (one.process.stdin, one.process.stdout):
            if pipe is not None:
                pipe.close()
        if not one.log.stat().st_size:
            one.log.unlink()
