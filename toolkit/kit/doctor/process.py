"""The doctor's side of an examination: starts the process, listens, and tells what ended it."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from toolkit.kit.doctor.examination import needs
from toolkit.kit.doctor.report import Begun, Done, Line, Request, read_lines
from toolkit.kit.doctor.started import Started, Starter

SILENCE_SECONDS = 120.0
"""A process from which nothing has been heard for so long hangs."""
_LOOK_SECONDS = 0.05


class Ended(Exception):  # noqa: N818 - it says what happened
    """The process ended by itself or had to be ended, while it did this."""

    def __init__(self, during: Begun, cause: str) -> None:
        super().__init__(cause)
        self.during, self.cause = during, cause


def answers(request: Request, starter: Starter, *, silence: float = SILENCE_SECONDS) -> Iterator[Line]:
    """What the examination of `request` finds, as it goes on. Raises Ended where it does not come to its end."""
    with tempfile.TemporaryDirectory(prefix="toolkit-doctor-") as folder:
        report, errors = Path(folder) / "report.jsonl", Path(folder) / "errors.txt"
        report.touch()
        errors.touch()
        started = starter.start([request.text(), str(report)], errors, needs(request))
        try:
            yield from _heard(started, report, silence)
        finally:
            code = started.end()
        _check_end(code, report, errors.read_text(encoding="utf-8", errors="replace"))


def _heard(started: Started, report: Path, silence: float) -> Iterator[Line]:
    told, last = 0, time.monotonic()
    while True:
        running = started.ended(_LOOK_SECONDS) is None
        lines = list(read_lines(report.read_text(encoding="utf-8")))
        if len(lines) > told:
            yield from lines[told:]
            told, last = len(lines), time.monotonic()
        if not running:
            return
        if time.monotonic() - last > silence:
            raise Ended(_during(lines), f"it did not answer for {silence:g} s and was ended")


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
