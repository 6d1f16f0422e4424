"""A process that has imported what examinations need, and of which each is a fork: `python -m` this, with modules."""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress

from toolkit.kit.doctor.examination import main


def serve() -> Sequence[str] | None:
    """For each line of standard input, the words of an examination, the file of its errors and modules to import before
    it, tell the number of its process and then how that ended. Returns these words in such a process, and None here at
    the end of the input."""
    for line in sys.stdin:
        words, errors, modules = json.loads(line)
        _prepare(modules)
        process = _fork()
        if not process:
            _detach(errors)
            return list(words)
        _tell(process)
        _tell(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    return None


def _prepare(modules: Sequence[str]) -> None:
    """Import what the examination will: it tells itself of what cannot be imported."""
    for name in modules:
        with suppress(Exception):
            importlib.import_module(name)
    gc.freeze()


def _fork() -> int:
    """Libraries for arrays keep threads that wait for work, of which Python would warn; they start them anew."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _detach(errors: str) -> None:
    """A session of its own, so that those it starts end with it; no one answers if it asks."""
    os.setsid()
    _reopen(os.devnull, os.O_RDWR, 0, 1)
    _reopen(errors, os.O_WRONLY | os.O_APPEND, 2)


def _reopen(path: str, flags: int, *descriptors: int) -> None:
    opened = os.open(path, flags)
    for descriptor in descriptors:
        os.dup2(opened, descriptor)
    os.close(opened)


def _tell(number: int) -> None:
    print(number, flush=True)


def examine(words: Sequence[str]) -> None:
    """An examination, after which the process leaves without taking apart what it shares with the host: that would copy
    all of it first."""
    told_all = False

    def leave() -> None:
        if told_all:
            os._exit(0)

    atexit.register(leave)
    main(words)
    told_all = True


if __name__ == "__main__":
    for name in sys.argv[1:]:
        importlib.import_module(name)
    asked = serve()
    if asked is not None:
        examine(asked)
