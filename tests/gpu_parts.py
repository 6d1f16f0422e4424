"""Parts of the bench `gpu` that end in every way. Each writes its name into the folder of data, once a run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

from bench.gpu.rows import Row
from bench.gpu.schedule import Part, Setting
from toolkit.api.errors import RunFailed


def good(setting: Setting) -> Iterator[Row]:
    _note("good", setting)
    yield Row("first", 1.0, "s", 3)
    yield Row("second", skipped="needs more")


def crashing(setting: Setting) -> Iterator[Row]:
    _note("crashing", setting)
    yield Row("before the crash", 2.0, "s", 3)
    os.kill(os.getpid(), signal.SIGKILL)


def raising(setting: Setting) -> Iterator[Row]:
    _note("raising", setting)
    yield Row("before the error", 2.0, "s", 3)
    print("last words", file=sys.stderr)
    raise ValueError("not this way")


def refusing(setting: Setting) -> Iterator[Row]:
    _note("refusing", setting)
    yield from ()
    raise RunFailed("too little memory", details=["of 80 GiB"], next_step="take less")


def endless(setting: Setting) -> Iterator[Row]:
    yield from ()
    while True:
        signal.pause()


def part(name: str, seconds: float = 60) -> Part:
    return Part(name, f"what {name} does", f"{__name__}:{name}", seconds)


def _note(name: str, setting: Setting) -> None:
    assert setting.options.data is not None
    with (setting.options.data / "ran").open("a", encoding="utf-8") as ran:
        print(name, file=ran)
