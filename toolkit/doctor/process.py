"""The doctor's side of an examination: starts the process, listens, and tells what ended it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from toolkit.doctor.report import Begun, Done, Line, Request, read_lines

SILENCE_SECONDS = 120.0
"""A process from which nothing has been heard for so long hangs."""
_LOOK_SECONDS = 0.05


class Ended(Exception):  # noqa: N818 - it says what happened
    """The process ended by itself or had to be ended, while it did this."""

    def __init__(self, during: Begun, cause: str) -> None:
        super().__init__(cause)
        self.during, self.cause = during, cause


def answers(request: Request, *, left_out: str, silence: float = SILENCE_SECONDS) -> Iterator[Line]:
    """What the examination of `request` finds, as it goes on. Raises Ended where it does not come to its end.

    `left_out` names the plugins that the process shall not load, in the form of `TOOLKIT_DISABLE`.
    """
    with tempfile.TemporaryDirectory(prefix="toolkit-doctor-") as folder:
        report = Path(folder) / "report.jsonl"
        report.touch()
        words = [sys.executable, "-m", "toolkit.doctor.examination", request.text(), str(report)]
        with (Path(folder) / "errors.txt").open("w+", encoding="utf-8", errors="replace") as errors:
            process = _started(words, {**os.environ, "TOOLKIT_DISABLE": left_out}, errors.fileno())
            try:
                yield from _heard(process, report, silence)
            finally:
                _end(process)
            errors.seek(0)
            _check_end(process.returncode, report, errors.read())


def _started(words: list[str], environment: Mapping[str, str], errors: int) -> subprocess.Popen[bytes]:
    """A process of a session of its own, so that those it starts end with it; no one answers if it asks."""
    return subprocess.Popen(  # noqa: S603 - this interpreter, with words of our own
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env=dict(environment),
        start_new_session=True,
    )


def _heard(process: subprocess.Popen[bytes], report: Path, silence: float) -> Iterator[Line]:
    told, last = 0, time.monotonic()
    while True:
        running = process.poll() is None
        lines = list(read_lines(report.read_text(encoding="utf-8")))
        if len(lines) > told:
            yield from lines[told:]
            told, last = len(lines), time.monotonic()
        if not running:
            return
        if time.monotonic() - last > silence:
            raise Ended(_during(lines), f"it did not answer for {silence:g} s and was ended")
        time.sleep(_LOOK_SECONDS)


def _check_end(code: int, report: Path, errors: str) -> None:
    lines = list(read_lines(report.read_text(encoding="utf-8")))
    if Done() in lines:
        return
    last = (errors.strip().splitlines() or [""])[-1]
    told = f": {last}" if last and code > 0 else ""
    raise Ended(_during(lines), f"{_manner(code)}{told}")


def _manner(code: int) -> str:
    if code >= 0:
        return f"it ended the process with exit code {code}"
    try:
        return f"it ended the process by {signal.Signals(-code).name}"
    except ValueError:
        return f"it ended the process by signal {-code}"


def _during(lines: list[Line]) -> Begun:
    return next((line for line in reversed(lines) if isinstance(line, Begun)), Begun("", "import"))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
