"""The host of examinations, each a process that it makes: `python -m` this, with `fork` and modules, or `start`.

A fork finds the modules imported that examinations need, which saves seconds each time.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress

from toolkit.kit.doctor.examination import main


def serve(*, forks: bool) -> Sequence[str] | None:
    """For each line of standard input, the words of an examination, the file of its errors and modules to import before
    it, print the number of its process (a fork does so itself) and then how that ended.

    Returns these words in a fork, and None here at the end of the input.
    """
    for line in sys.stdin:
        words, errors, modules = json.loads(line)
        if forks:
            process = _fork(modules)
            if not process:
                _detach(errors)
                return list(words)
            print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
        else:
            with open(errors, "ab") as file:  # noqa: PTH123
                started = subprocess.Popen(  # noqa: S603 - this interpreter, with words of our own
                    [sys.executable, "-m", "toolkit.kit.doctor.examination", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=file,
                    start_new_session=True,
                )
            print(started.pid, flush=True)
            print(started.wait(), flush=True)
    return None


def _fork(modules: Sequence[str]) -> int:
    """Import what the examination will, which reports itself what cannot be imported, and fork."""
    for name in modules:
        with suppress(Exception):
            importlib.import_module(name)
    gc.freeze()
    with warnings.catch_warnings():
        # Array libraries keep idle threads, and Python warns of them at a fork; the libraries restart them.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _detach(errors: str) -> None:
    """A session of its own, so that those it starts end with it; no one answers if it asks."""
    os.setsid()
    # The fork itself prints this before a plugin's code runs, which may end the host.
    print(os.getpid(), flush=True)
    for path, flags, descriptors in ((os.devnull, os.O_RDWR, (0, 1)), (errors, os.O_WRONLY | os.O_APPEND, (2,))):
        opened = os.open(path, flags)
        for descriptor in descriptors:
            os.dup2(opened, descriptor)
        os.close(opened)


def examine(words: Sequence[str]) -> None:
    """An examination, after which the process leaves without taking apart what it shares with the host: that would copy
    all of it first."""
    done = False

    def leave() -> None:
        if done:
            os._exit(0)

    atexit.register(leave)
    main(words)
    done = True


if __name__ == "__main__":
    for name in sys.argv[2:]:
        importlib.import_module(name)
    asked = serve(forks=sys.argv[1] == "fork")
    if asked is not None:
        examine(asked)
