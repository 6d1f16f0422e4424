"""Starts the processes of examinations: forks of one that has imported what they need, where that is safe."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

FORKS = sys.platform == "linux"
"""Elsewhere libraries of the system do not survive a fork."""


class Started(Protocol):
    """The process of an examination."""

    def ended(self, seconds: float) -> int | None:
        """Its exit code, or the negative number of the signal that ended it; None: it runs after so many seconds."""

    def end(self) -> int:
        """End it, with those it started, where it still runs; its exit code."""


class Starter:
    """Starts processes that have imported `modules`, with `variables` in their environment."""

    def __init__(self, modules: Sequence[str], variables: Mapping[str, str]) -> None:
        self._modules, self._variables = modules, variables
        self._host: Host | None = None

    def start(self, words: Sequence[str], errors: Path, needs: Sequence[str] = ()) -> Started:
        """`toolkit.kit.doctor.examination` with these words; what it complains of goes to the file `errors`. `needs`
        are modules that it imports by itself too, where it is no fork."""
        if not FORKS:
            return Process(self._python(subprocess.DEVNULL, errors, "toolkit.kit.doctor.examination", *words))
        if self._host is None or self._host.is_gone:
            self._host = self._new_host(errors)
        self._host.ask(words, errors, needs)
        return Fork(self._host)

    def close(self) -> None:
        if self._host is not None:
            self._host.kill()
            self._host.gone()

    def _new_host(self, errors: Path) -> Host:
        ours, theirs = socket.socketpair()
        with theirs:
            return Host(self._python(theirs.fileno(), errors, "toolkit.kit.doctor.host", *self._modules), ours)

    def _python(self, channel: int, errors: Path, module: str, *words: str) -> subprocess.Popen[bytes]:
        """A process of a session of its own, so that those it starts end with it."""
        with errors.open("ab") as file:
            return subprocess.Popen(  # noqa: S603 - this interpreter, with words of our own
                [sys.executable, "-m", module, *words],
                stdin=channel,
                stdout=channel,
                stderr=file,
                env={**os.environ, **self._variables},
                start_new_session=True,
            )


class Process:
    """An examination in a process that this one has started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def ended(self, seconds: float) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def end(self) -> int:
        if self._process.poll() is None:
            _kill(self._process.pid)
        return self._process.wait()


class Host:
    """The process of `toolkit.kit.doctor.host`, and the channel to it."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self._process, self._channel, self._unread = process, channel, b""

    @property
    def is_gone(self) -> bool:
        return self._process.poll() is not None

    def ask(self, words: Sequence[str], errors: Path, needs: Sequence[str]) -> None:
        """That it is gone is seen when it is listened to."""
        with suppress(ConnectionError):
            self._channel.sendall(f"{json.dumps([list(words), str(errors), list(needs)])}\n".encode())

    def told(self, seconds: float | None) -> int | None:
        """The next number it tells, None where there is none after so many seconds. Raises EOFError once it is gone."""
        if b"\n" not in self._unread and select.select([self._channel], [], [], seconds)[0]:
            self._unread += self._received()
        line, end, rest = self._unread.partition(b"\n")
        if not end:
            return None
        self._unread = rest
        return int(line)

    def _received(self) -> bytes:
        with suppress(ConnectionError):
            if received := self._channel.recv(1024):
                return received
        raise EOFError

    def kill(self) -> None:
        if not self.is_gone:
            _kill(self._process.pid)

    def gone(self) -> int:
        """Its exit code; waits for it."""
        self._channel.close()
        return self._process.wait()


class Fork:
    """An examination in a fork of the host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._process: int | None = None
        self._code: int | None = None

    def ended(self, seconds: float | None) -> int | None:
        if self._code is None:
            try:
                self._listen(seconds)
            except EOFError:
                self._kill()
                self._code = self._host.gone()
        return self._code

    def end(self) -> int:
        if self._code is None:
            self._kill()
        while (code := self.ended(None)) is None:
            pass
        return code

    def _listen(self, seconds: float | None) -> None:
        number = self._host.told(seconds)
        if self._process is None:
            self._process = number
        else:
            self._code = number

    def _kill(self) -> None:
        if self._process is None:
            self._host.kill()
        else:
            _kill(self._process)


def _kill(leader: int) -> None:
    """End a process and those of its session."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
