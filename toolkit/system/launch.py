"""Ranks of this machine, started by torch's own launcher: `run --ranks N` is the same command in N processes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import RunFailed
from toolkit.system.machine import physical_cores
from toolkit.system.ranks import VARIABLES
from toolkit.system.signals import exit_code

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""What torch's launcher passes on to the ranks."""


def launch(words: Sequence[str], ranks: int) -> int:
    """Run `python -m toolkit WORDS` as so many ranks; the exit code.

    Raises RunFailed where a rank ended without a word: it was killed, for example. All others print what is wrong.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed", "torch.distributed.elastic"):  # each rank reports its own errors
        logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
    )
    with _lent(ranks):
        try:
            elastic_launch(config, sys.executable)("-m", "toolkit", *words)
        except SignalException as stopped:
            return exit_code(stopped.sigval)
        except ChildFailedError as error:
            return _ended(error.failures)
    return 0


def threads_of_each(ranks: int) -> str:
    """What `OMP_NUM_THREADS` is for each of so many ranks of this machine, unless the environment says it."""
    return os.environ.get("OMP_NUM_THREADS") or str(max(physical_cores() // ranks, 1))


@contextmanager
def _lent(ranks: int) -> Iterator[None]:
    """Let torch's launcher have what it takes from this process: the environment that ranks inherit, and signals."""
    before = {name: os.environ.get(name) for name in (*VARIABLES, "OMP_NUM_THREADS")}
    handlers = {number: signal.getsignal(number) for number in _HANDLED}
    for name in VARIABLES:
        os.environ.pop(name, None)
    os.environ["OMP_NUM_THREADS"] = threads_of_each(ranks)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _ended(failures: dict[int, ProcessFailure]) -> int:
    """The exit code that the ranks ended with. Raises RunFailed where the first one that ended was killed."""
    killed = {rank: failure for rank, failure in failures.items() if failure.exitcode < 0}
    # The launcher sends SIGTERM to the ranks that are left, often within the second that timestamps have.
    first = {rank: failure for rank, failure in killed.items() if failure.exitcode != -signal.SIGTERM}
    exited = [failure for failure in failures.values() if failure.exitcode > 0]
    if first or not exited:
        rank, failure = min((first or killed).items(), key=lambda one: one[1].timestamp)
        raise RunFailed(how_killed(rank, -failure.exitcode))
    reported = [failure for failure in exited if Path(failure.error_file).exists()]
    return next(failure.exitcode for failure in [*reported, *exited])


def how_killed(rank: int, number: int) -> str:
    """That a signal has ended a rank, in words."""
    name = signal.Signals(number).name
    reason = ", which the system also sends to processes when memory runs out" if name == "SIGKILL" else ""
    return f"rank {rank} was ended by {name}{reason}"
