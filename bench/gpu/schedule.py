"""Parts that fit the time left, each in a process of its own.

A part that crashes or takes too long costs itself alone: what it had measured is kept, with the cause. The processes
are forked from a server that has imported the libraries, so that a part costs no imports.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, TypeAlias

from bench.data import Options
from bench.gpu.rows import Row
from bench.pairs import Effort
from toolkit.api.errors import ToolkitError

PRELOADED = ("torch", "torchvision", "toolkit.runs.loop", "toolkit.serving.bundle.model", "toolkit.export.write")
"""What the server imports before the first part."""
LINES = 20
"""Last lines that are kept of what a failed part printed."""


@dataclass(frozen=True)
class Setting:
    """What the command line says to each part."""

    options: Options
    rehearsal: bool
    """Tiny sizes on the CPU: shows that the code runs, not how fast."""

    def effort(self, pairs: int) -> Effort:
        """What a figure takes: a rehearsal two pairs."""
        return Effort(2, 0) if self.rehearsal and self.options.pairs is None else self.options.effort(pairs)


@dataclass(frozen=True)
class Part:
    name: str
    what: str
    entry: str
    """`module:function`; the function takes a `Setting` and yields rows."""
    seconds: float
    """Most that it may take. It starts where this is left."""


State: TypeAlias = Literal["done", "failed"]


@dataclass(frozen=True)
class Outcome:
    state: State
    seconds: float
    found: tuple[Any, ...]
    """What the part's function yielded, its `Row`s."""
    cause: str = ""
    details: tuple[str, ...] = ()
    """The last lines that a failed part printed."""


def run_parts(
    parts: Iterable[Part], setting: Setting, ends: float, keep: Callable[[Part, Outcome], None]
) -> list[Part]:
    """Run each part whose seconds are left before `ends`, of `time.monotonic`. Returns those that did not fit."""
    skipped = []
    for part in parts:
        if time.monotonic() + part.seconds > ends:
            skipped.append(part)
            continue
        keep(part, in_own_process(part.entry, setting, part.seconds))
    return skipped


def in_own_process(entry: str, setting: Setting, seconds: float) -> Outcome:
    """What the function at `entry` yields, and how it ended. Its process and those that it started are ended after
    `seconds`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "printed"
        log.touch()
        process = context.Process(target=_work, args=(entry, setting, sender, log))
        begun = time.monotonic()
        process.start()
        sender.close()
        try:
            found = list(_received(receiver, process.sentinel, begun + seconds))
            process.join(max(begun + seconds - time.monotonic(), 0))
            code = process.exitcode
        finally:
            _end(process)
            process.close()
            receiver.close()
        taken = time.monotonic() - begun
        lines = tuple(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:])
    if code == 0:
        return Outcome("done", taken, tuple(found))
    how = f"took more than {seconds:g} s" if code is None else _how_ended(code)
    return Outcome("failed", taken, tuple(found), ": ".join([how, *lines[-1:]]), lines)


def _received(receiver: Connection, sentinel: int, ends: float) -> Iterator[Any]:
    """All that the process sends, until it ends or the time has come."""
    while ready := wait([receiver, sentinel], max(ends - time.monotonic(), 0)):
        # Of a process that has ended, what it had sent is read first.
        if receiver not in ready and not receiver.poll():
            return
        try:
            yield receiver.recv()
        except EOFError:
            return


def _end(process: multiprocessing.process.BaseProcess) -> None:
    """End the process and all that it has started."""
    if process.pid is not None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _how_ended(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _work(entry: str, setting: Setting, sender: Connection, log: Path) -> None:
    """The body of a part's process: sends what the function yields."""
    os.setsid()
    # Noise must not stay among what is kept of real videos.
    os.environ["TOOLKIT_CACHE"] = str(log.with_name("cache"))
    if setting.rehearsal:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with log.open("ab", buffering=0) as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    faulthandler.enable(all_threads=False)
    module, _, function = entry.partition(":")
    try:
        for one in getattr(import_module(module), function)(setting):
            sender.send(one)
    except ToolkitError as error:
        print(*error.details, error.message, file=sys.stderr, sep="\n")
        raise SystemExit(error.exit_code) from None
    except Exception:
        traceback.print_exc()
        raise SystemExit(1) from None
    finally:
        sys.stderr.flush()


def failures(outcomes: Iterable[Outcome]) -> bool:
    """Whether any failed or missed a goal."""
    return any(outcome.state == "failed" or any(row.missed for row in rows_of(outcome)) for outcome in outcomes)


def rows_of(outcome: Outcome) -> Sequence[Row]:
    """Its rows; one that has failed has a last row with the cause."""
    rows = [row for row in outcome.found if isinstance(row, Row)]
    return [*rows, Row("failed", skipped=outcome.cause)] if outcome.state == "failed" else rows
