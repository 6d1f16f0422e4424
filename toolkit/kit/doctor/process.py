"""The doctor's side of an examination: starts its process, listens, and reports what ended it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from toolkit.kit.doctor.examination import Begun, Done, Line, Request, needs, read_lines

FORKS = sys.platform == "linux"
"""Elsewhere libraries of the system do not survive a fork."""
SILENCE_SECONDS = 120.0
"""A process without output for this long hangs."""
_LOOK_SECONDS = 0.05


class Ended(Exception):  # noqa: N818 - it says what happened
    """The process ended, or had to be ended, during this step."""

    def __init__(self, during: Begun, cause: str) -> None:
        super().__init__(cause)
        self.during, self.cause = during, cause


class Starter:
    """Starts examinations one after the other, each in a process of its own that has `variables` in its environment.

    A host (`toolkit.kit.doctor.host`), which this starts too, makes the processes: forks of it that find `modules`
    imported, or where that is not safe (`FORKS`) new ones.
    """

    def __init__(self, modules: Sequence[str], variables: Mapping[str, str]) -> None:
        self._words = ["fork" if FORKS else "start", *(modules if FORKS else ())]
        self._variables = variables
        self._host: subprocess.Popen[bytes] | None = None

    def start(self, words: Sequence[str], errors: Path, needs: Sequence[str] = ()) -> None:
        """Start `toolkit.kit.doctor.examination` with these words; its error output goes to the file `errors`.
        `needs` are modules that a fork is to find imported too."""
        if self._host is None or self._host.poll() is not None:
            self._channel, theirs = socket.socketpair()
            with theirs, errors.open("ab") as file:
                self._host = subprocess.Popen(  # noqa: S603 - this interpreter, with words of our own
                    [sys.executable, "-m", "toolkit.kit.doctor.host", *self._words],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=file,
                    env={**os.environ, **self._variables},
                    start_new_session=True,
                )
        self._unread = b""
        self._process: int | None = None
        self._code: int | None = None
        with suppress(ConnectionError):  # that the host is gone is seen when it is listened to
            self._channel.sendall(f"{json.dumps([list(words), str(errors), list(needs)])}\n".encode())

    def ended(self, seconds: float | None) -> int | None:
        """The exit code of the examination, or the negative number of the signal that ended it; None: it runs after so
        many seconds."""
        if self._code is not None or not select.select([self._channel], [], [], seconds)[0]:
            return self._code
        received = b""
        with suppress(ConnectionError):
            received = self._channel.recv(1024)
        self._unread += received
        *numbers, self._unread = self._unread.split(b"\n")
        for number in map(int, numbers):  # first the examination's process, then how that ended
            if self._process is None:
                self._process = number
            else:
                self._code = number
        if not received and self._host is not None:  # it is gone
            self._kill()
            self._channel.close()
            self._code = self._host.wait()
        return self._code

    def end(self) -> int:
        """End the examination, with the processes it started, where it still runs; its exit code."""
        if self._code is None:
            self._kill()
        while (code := self.ended(None)) is None:
            pass
        return code

    def close(self) -> None:
        """End the host."""
        if self._host is not None:
            self._process = None
            self._kill()
            self._channel.close()
            self._host.wait()

    def _kill(self) -> None:
        """End the examination, or the host if its process is still unknown, with all processes of its session."""
        host = self._host.pid if self._host is not None and self._host.poll() is None else None
        if leader := self._process or host:
            with suppress(ProcessLookupError):
                os.killpg(leader, signal.SIGKILL)


def answers(request: Request, starter: Starter, *, silence: float = SILENCE_SECONDS) -> Iterator[Line]:
    """What the examination of `request` finds, as it goes on. Raises Ended where it does not come to its end."""
    with tempfile.TemporaryDirectory(prefix="toolkit-doctor-") as folder:
        report, errors = Path(folder) / "report.jsonl", Path(folder) / "errors.txt"
        report.touch()
        errors.touch()
        starter.start([request.text(), str(report)], errors, needs(request))
        try:
            yield from _heard(starter, report, silence)
        finally:
            code = starter.end()
        lines = list(read_lines(report.read_text(encoding="utf-8")))
        if Done() not in lines:
            last = (errors.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1]
            raise Ended(_during(lines), f"{_manner(code)}{f': {last}' if last and code > 0 else ''}")


def _heard(starter: Starter, report: Path, silence: float) -> Iterator[Line]:
    heard, last = 0, time.monotonic()
    while True:
        running = starter.ended(_LOOK_SECONDS) is None
        lines = list(read_lines(report.read_text(encoding="utf-8")))
        if len(lines) > heard:
            yield from lines[heard:]
            heard, last = len(lines), time.monotonic()
        if not running:
            return
        if time.monotonic() - last > silence:
            raise Ended(_during(lines), f"it did not answer for {silence:g} s and was ended")


def _manner(code: int) -> str:
    if code >= 0:
        return f"it ended the process with exit code {code}"
    try:
        return f"it ended the process by {signal.Signals(-code).name}"
    except ValueError:
        return f"it ended the process by signal {-code}"


def _during(lines: list[Line]) -> Begun:
    return next((line for line in reversed(lines) if isinstance(line, Begun)), Begun("", "import"))
