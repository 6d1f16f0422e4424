"""The order of a process that a study starts: a line of JSON on its standard input, which stays open as long as the
process that started it lives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


def give(order: Mapping[str, Any], process: subprocess.Popen[str]) -> None:
    """Give an order to a process. One that has ended already raises nothing here: its exit code says why."""
    if process.stdin is None:
        raise AssertionError("unreachable: a pipe was asked for")
    try:
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        with suppress(BrokenPipeError):  # closing it writes what is left once more
            process.stdin.close()


def take(*, end: int) -> dict[str, Any]:
    """The order of this process, which gets the signal `end` when the one that gave it is gone."""
    order: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_wait_for_end, args=(end,), daemon=True).start()
    return order


def _wait_for_end(number: int) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), number)
