"""Code of others, run so that it leaves nothing behind but what it made.

What it prints is kept from our standard output, which machines read; what it changes in the process is put back and
named.
"""

from __future__ import annotations

import builtins
import io
import os
import pickle
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from typing import IO, Any

from toolkit.host.seen import Seen


@dataclass(frozen=True)
class _State:
    """Something of the whole process: how to read it (None: it does not exist yet) and how to put it back."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


@contextmanager
def isolated() -> Iterator[Seen]:
    """Run the block, then put back what it changed; what was seen is complete when the block has ended, even by an
    error."""
    seen = Seen()
    before = [(state, state.read()) for state in STATES]
    threads = set(threading.enumerate())
    started = time.perf_counter()
    try:
        with quiet() as printed:
            yield seen
    finally:
        seen.seconds = time.perf_counter() - started
        seen.printed = "".join(printed)
        changed = [(state, value) for state, value in before if value is not None and state.read() != value]
        for state, value in changed:
            state.write(value)
        running = [f"thread {thread.name}" for thread in threading.enumerate() if thread not in threads]
        seen.changed = (*(state.name for state, _ in changed), *running)


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep what the block writes to standard output, by Python or beneath it; the list is filled at its end."""
    kept: list[str] = []
    written = _Unclosed()
    with _temporary() as beneath:
        if sys.stdout:  # Python has none where it was closed from the start
            sys.stdout.flush()
        held = None
        with suppress(OSError):  # as it is closed
            held = os.dup(1)
        if held is not None:
            os.dup2(beneath.fileno(), 1)
        try:
            with redirect_stdout(written):
                yield kept
        finally:
            if held is not None:
                os.dup2(held, 1)
                os.close(held)
            beneath.seek(0)
            kept += [written.getvalue(), beneath.read().decode(errors="replace")]


def _temporary() -> IO[bytes]:
    """A file for what is printed beneath Python; where there is no room for one, that is lost."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return open(os.devnull, "r+b")  # noqa: PTH123 - for the same type as above


class _Unclosed(io.StringIO):
    """Stays open when code of others closes it."""

    def close(self) -> None:
        pass


def _working_directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 (a string suits os.chdir, and another process may have removed the folder)
    except OSError:
        return None


def _put_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _handlers() -> dict[int, Any] | None:
    """Handlers of signals that Python can put back; only the main thread may."""
    if threading.current_thread() is not threading.main_thread():
        return None
    found = {int(number): signal.getsignal(number) for number in signal.valid_signals()}
    return {number: handler for number, handler in found.items() if handler is not None}


def _put_handlers(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _put_filters(before: list[Any]) -> None:
    warnings.resetwarnings()
    warnings.filters[:] = before  # type: ignore[index]


def _numpy_state() -> bytes | None:
    state = getattr(sys.modules.get("numpy.random"), "get_state", None)
    return pickle.dumps(state()) if state else None  # as bytes, which can be compared


def _put_numpy_state(before: bytes) -> None:
    import numpy as np

    np.random.set_state(pickle.loads(before))  # noqa: S301 - our own


def _torch_state() -> bytes | None:
    state = getattr(sys.modules.get("torch"), "get_rng_state", None)
    return state().numpy().tobytes() if state else None


def _put_torch_state(before: bytes) -> None:
    import torch

    torch.set_rng_state(torch.frombuffer(bytearray(before), dtype=torch.uint8))


def _streams() -> tuple[Any, Any]:
    return sys.stdin, sys.stderr


def _put_streams(before: tuple[Any, Any]) -> None:
    sys.stdin, sys.stderr = before


@dataclass(frozen=True, eq=False)
class _Alarm:
    """When the alarm of the process goes off, by the clock that only goes forward, and how often from then on."""

    at: float | None
    every: float

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Alarm):
            return NotImplemented
        both = self.at is not None and other.at is not None
        return self.every == other.every and (abs(self.at - other.at) < 0.5 if both else self.at is other.at)  # type: ignore[operator]

    __hash__ = None  # type: ignore[assignment]


def _alarm() -> _Alarm | None:
    """None where only the main thread may change it, or the system has none."""
    if not hasattr(signal, "getitimer") or threading.current_thread() is not threading.main_thread():
        return None
    left, every = signal.getitimer(signal.ITIMER_REAL)
    return _Alarm(time.monotonic() + left if left else None, every)


def _put_alarm(before: _Alarm) -> None:
    left = 0 if before.at is None else max(before.at - time.monotonic(), 0.001)
    signal.setitimer(signal.ITIMER_REAL, left, before.every)


def _limits() -> dict[str, tuple[int, int]] | None:
    """Soft and hard limits of the process."""
    if sys.platform == "win32":
        return None
    import resource

    names = (name for name in dir(resource) if name.startswith("RLIMIT_"))
    found = {}
    for name in names:
        with suppress(OSError, ValueError):  # not of this system
            found[name] = resource.getrlimit(getattr(resource, name))
    return found


def _put_limits(before: dict[str, tuple[int, int]]) -> None:
    import resource

    for name, (soft, hard) in before.items():
        number = getattr(resource, name)
        now = resource.getrlimit(number)
        if now != (soft, hard):
            with suppress(OSError, ValueError):  # a hard limit that was lowered cannot be raised again
                resource.setrlimit(number, (soft, hard))


@dataclass(frozen=True, eq=False)
class _Finders:
    """Those that imports ask. Equal to others where these come first: what stands behind them shadows no module."""

    in_order: tuple[Any, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Finders) and self.in_order[: len(other.in_order)] == other.in_order

    __hash__ = None  # type: ignore[assignment]


def _put_finders(before: _Finders) -> None:
    """Put those that were there first again. Others follow: the modules that a library has made may need them."""
    sys.meta_path[:] = [*before.in_order, *(one for one in sys.meta_path if one not in before.in_order)]


def _builtins() -> dict[str, Any]:
    return {name: value for name, value in vars(builtins).items() if name != "_"}


def _put_builtins(before: dict[str, Any]) -> None:
    names = vars(builtins)
    for name in names.keys() - before.keys() - {"_"}:
        del names[name]
    names.update(before)


STATES = (
    _State("sys.stdin or sys.stderr", _streams, _put_streams),
    _State("the alarm", _alarm, _put_alarm),
    _State("resource limits", _limits, _put_limits),
    _State("sys.meta_path", lambda: _Finders(tuple(sys.meta_path)), _put_finders),
    _State("builtins", _builtins, _put_builtins),
    _State("the working directory", _working_directory, os.chdir),
    _State("the environment", lambda: dict(os.environ), _put_environment),
    _State("signal handlers", _handlers, _put_handlers),
    _State("warnings filters", lambda: list(warnings.filters), _put_filters),
    _State("sys.excepthook", lambda: sys.excepthook, lambda hook: setattr(sys, "excepthook", hook)),
    _State("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    _State("random's global state", random.getstate, random.setstate),
    _State("numpy's global random state", _numpy_state, _put_numpy_state),
    _State("torch's global random state", _torch_state, _put_torch_state),
)
