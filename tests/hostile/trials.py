"""Commands on damaged input, each in a process of its own with limits, and what became of them.

A process that has imported everything forks one for each command, so that a trial costs what the command costs. Run as
a module it is that process: it reads a JSON list of words a line, and answers each with an `Outcome`.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TypeAlias

from tests.blank import blank
from tests.late import LATE
from toolkit.runs.report import figures

MUTATIONS = int(os.environ.get("TOOLKIT_MUTATIONS", "0"))
"""Inputs of each kind that are made and tried; 0: the few that each test chooses, so that CI stays short."""
CPU_SECONDS = 30
PATIENCE = 240
"""Seconds after which a trial that uses no processor is ended: it waits for something."""
GROWTH = 1 << 30
"""Bytes of memory that a small input may take at most."""
DOCUMENTED = frozenset({0, 1, 2, 3, 5, 75, 130})
"""Exit codes that damaged input may lead to: no plugin is to blame for it."""

Trial: TypeAlias = Callable[..., "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    """The exit code; negative: the number of the signal that ended it."""
    grown: int
    """Bytes of memory that it took beyond what was loaded before."""
    output: str
    error: str

    def faults(self) -> Iterator[str]:
        """What no input may lead to, however damaged."""
        if self.code not in DOCUMENTED:
            yield f"ended with {self.code}"
        if self.grown > GROWTH:
            yield f"took {self.grown >> 20} MiB"
        for sign in ("Traceback", "error: unexpected ", "Warning: "):
            if sign in self.error:
                yield f"showed {sign!r}"
        if self.code and "error: " not in self.error:
            yield "gave no reason"
        if self.code and "\nnext:  " not in self.error:
            yield "gave no next step"
        if any(not char.isprintable() and char != "\n" for char in self.output + self.error):
            yield "showed control characters"


@contextmanager
def trials() -> Iterator[Trial]:
    """A function that runs `python -m toolkit WORDS` in this process's environment; with `file_bytes`, on a disk that
    takes no larger file, with `memory`, where a process may have no more bytes than the imports take and so many, with
    `unread`, where the reader of its output is gone. Only with `painted` it paints figures, which takes longer than all
    else of a small run."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.hostile.trials"]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdin
        assert server.stdout
        stdin, stdout = server.stdin, server.stdout

        def trial(*words: object, **limits: int) -> Outcome:
            print(json.dumps([[str(word) for word in words], limits]), file=stdin, flush=True)
            return Outcome(**json.loads(stdout.readline()))

        try:
            yield trial
        finally:
            stdin.close()


def _serve(asked: IO[str], answers: IO[str]) -> None:
    for line in asked:
        words, limits = json.loads(line)
        print(json.dumps(asdict(_tried(words, **limits))), file=answers, flush=True)


def _tried(words: Sequence[str], **limits: int) -> Outcome:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as error:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        child = os.fork()
        if not child:
            _become(words, output.fileno(), error.fileno(), **limits)
        _, status, usage = os.wait4(child, 0)
        texts = []
        for file in (output, error):
            file.seek(0)
            texts.append(file.read().decode(errors="backslashreplace"))
        return Outcome(os.waitstatus_to_exitcode(status), max(usage.ru_maxrss - before, 0) << 10, *texts)


def _become(
    words: Sequence[str],
    output: int,
    error: int,
    *,
    file_bytes: int | None = None,
    memory: int | None = None,
    unread: bool = False,
    painted: bool = False,
) -> None:
    """Run the command in this process, and end it."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(_without_reader() if unread else output, 1)
        os.dup2(error, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        signal.alarm(PATIENCE)
        if file_bytes is not None:
            sys.dont_write_bytecode = True  # Python before 3.14 keeps what is cut short, and fails when it reads it
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        if memory is not None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + memory
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        from toolkit.cli.main import main

        if not painted:
            figures._png = blank
        code = main(words)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _without_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def _import_all() -> None:
    for name in LATE:
        importlib.import_module(name)
    import torch

    from toolkit.host.registry import discover

    torch.set_num_threads(1)
    discover()


if __name__ == "__main__":
    _import_all()
    _serve(sys.stdin, os.fdopen(os.dup(1), "w"))
