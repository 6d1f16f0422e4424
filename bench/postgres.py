"""A PostgreSQL server of this machine's package, for as long as a bench needs it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PLACES = "/usr/lib/postgresql/*/bin"
"""Where Debian keeps what it does not put into PATH."""
ACCOUNTS = ("postgres", "nobody")
"""The server refuses to run as root: it runs as the first of these that there is."""


def programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; None where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    return max(Path("/").glob(f"{PLACES[1:]}"), default=None)


@contextmanager
def server(binaries: Path) -> Iterator[str]:
    """A server on a free port of the loopback device, its data in a folder that goes with it; gives its URL."""
    account = _account()
    with tempfile.TemporaryDirectory() as folder:
        data, port = Path(folder) / "data", _free_port()
        if account:
            shutil.chown(folder, account)
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        _run([binaries / "initdb", "-D", data, "-U", "studies", "-A", "trust"], account)
        _run([binaries / "pg_ctl", "-D", data, "-w", "-l", Path(folder) / "log", "-o", options, "start"], account)
        try:
            yield f"postgresql://studies@127.0.0.1:{port}/postgres"
        finally:
            _run([binaries / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop"], account)


def _run(words: list[str | Path], account: str | None) -> None:
    quiet = subprocess.DEVNULL
    subprocess.run([str(word) for word in words], check=True, user=account, cwd="/", stdout=quiet, stderr=quiet)


def _account() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ACCOUNTS if name in known)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
