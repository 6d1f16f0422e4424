"""Where a study lives: the folder of its runs, and a journal file in it, or what many machines share: a database, or
the server of one."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from toolkit.api.errors import RunFailed, UsageError
from toolkit.api.files import exclusive
from toolkit.runs.directory import FIX_AND_REPEAT, RunDirectory, explained

DRIVERS = {
    "postgresql": ("psycopg", "psycopg2", "pg8000"),
    "mysql": ("pymysql", "MySQLdb"),
}
"""Packages that speak to a kind of database, by preference; SQLite's is Python's own."""
_DIALECTS = {"MySQLdb": "mysqldb"}
"""What SQLAlchemy calls a package, where it is not by its name."""
EXTRAS = {"psycopg": "vision-toolkit[postgresql]", "grpcio": "vision-toolkit[grpc]"}
"""What to install to get a package."""
GRPC = "grpc://"
"""Begins the URL of a storage that another process serves."""
READY_SECONDS = 10.0
"""How long to wait for the server of a storage to answer."""
_MAKING_SECONDS = 1.0
"""How long to wait for another process that makes the tables of a new database at the same moment."""


def trial_run(folder: Path, number: int) -> RunDirectory:
    """The run of a trial, with the first of its seeds."""
    return RunDirectory(folder / f"trial-{number:04}")


def repeat_of(run: RunDirectory, number: int) -> RunDirectory:
    """The same recipe with the seed that is `number` higher; 0 is the run itself."""
    return RunDirectory(run.path / f"seed-{number}") if number else run


@contextmanager
def alone(folder: Path, lock: str = ".lock", *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep other processes that name the same `lock` in a study's folder out of the block; `waiting` is called where
    one is in its own."""
    with ExitStack() as held:
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(exclusive(folder / lock, waiting=waiting))
        yield


class Journal(JournalFileBackend):
    """Optuna's journal file with another lock. The kernel lifts it when its holder is killed, where Optuna's own locks
    keep everyone waiting for half a minute; and what a killed writer has left of a line is removed by the next one,
    where it would make the whole journal unreadable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with explained(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            super().__init__(str(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with (
            explained(self._path.parent, next_step=FIX_AND_REPEAT),
            exclusive(self._path.with_suffix(".lock")),
            self._path.open("r+b") as journal,
        ):
            end = journal.seek(0, os.SEEK_END)
            while end:
                journal.seek(end - 1)
                if journal.read(1) == b"\n":
                    break
                end -= 1
            journal.truncate(end)
            journal.seek(end)
            journal.write(lines.encode())
            journal.flush()
            os.fsync(journal.fileno())


@contextmanager
def opened_storage(folder: Path, url: str | None) -> Iterator[BaseStorage]:
    """As `open_storage`; connections are closed after the block."""
    storage = open_storage(folder, url)
    try:
        yield storage
    finally:
        if isinstance(storage, RDBStorage):
            storage.remove_session()
            storage.engine.dispose()
        if isinstance(storage, GrpcStorageProxy):
            storage.close()


def storage_failures() -> tuple[type[Exception], ...]:
    """What Optuna raises when a storage fails, for which a trial is not to blame."""
    grpc = sys.modules.get("grpc")
    return (StorageInternalError, grpc.RpcError) if grpc else (StorageInternalError,)


@contextmanager
def answering(study: str, again: str) -> Iterator[None]:
    """Turn the failure of a study's storage into RunFailed; the command `again` continues when it answers."""
    try:
        yield
    except storage_failures() as error:
        raise RunFailed(
            f"the storage of study {study} has failed: {why_failed(error)}", next_step=f"when it answers again: {again}"
        ) from error


def why_failed(error: Exception) -> str:
    """What a storage that fails says of it, on one line."""
    cause = error.__cause__ or error
    details = getattr(cause, "details", None)  # of an error of gRPC, whose text has many lines
    return str(details() if callable(details) else cause)


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """A journal file in the study's folder, the database at `url`, or the server of a storage there. Raises UsageError
    where that cannot be used."""
    if url is not None and url.startswith(GRPC):
        return _served(url)
    if url is None:
        path = folder / "journal.log"
        try:
            return JournalStorage(Journal(path))
        except ValueError as error:  # a line that is not JSON
            raise RunFailed(
                f"{path}: is damaged: {error}", next_step="restore it, or tune a copy of the recipe under another name"
            ) from error
    known = with_driver(url)
    with suppress(Exception):  # the drivers' own errors have no common kind
        return RDBStorage(known)
    time.sleep(_MAKING_SECONDS)
    try:
        return RDBStorage(known)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UsageError(
            f"--storage {_without_password(url)}: cannot be used: {reason}",
            next_step="give the URL of an existing database, such as --storage sqlite:///study.db",
        ) from error


def _served(url: str) -> BaseStorage:
    """What a server of a storage at `grpc://HOST:PORT` serves."""
    require_grpc(f"--storage {url}")
    host, port = address_of(url.removeprefix(GRPC), f"--storage {url}", f"--storage {GRPC}localhost:13000")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        proxy = GrpcStorageProxy(host=host, port=port)
    try:
        proxy.wait_server_ready(timeout=READY_SECONDS)
    except ConnectionError as error:
        proxy.close()
        raise UsageError(
            f"--storage {url}: no server answers",
            next_step=f"serve the study there: python -m toolkit tune RECIPE --serve-storage {host}:{port}",
        ) from error
    return proxy


def require_grpc(flag: str) -> None:
    """Raise UsageError where gRPC is not installed, which `flag` needs."""
    if importlib.util.find_spec("grpc") is None or importlib.util.find_spec("google.protobuf") is None:
        raise UsageError(f"{flag}: gRPC is not installed", next_step=f"pip install '{EXTRAS['grpcio']}'")


def address_of(text: str, flag: str, example: str) -> tuple[str, int]:
    """The host and the port in `HOST:PORT` or `PORT`. Raises UsageError, which begins with `flag` and shows an
    `example`, where there is no port."""
    host, _, port = text.rstrip("/").rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"{flag}: expected a host and a port", next_step=f"give one such as {example}")
    return host or "localhost", int(port)


def dashboard_command(folder: Path, url: str | None) -> str | None:
    """What to type to see a study in optuna-dashboard, with its installation where it is not installed; None where
    that is seen on the machine that serves its storage. A URL that has a password is not repeated: the screen may be a
    log."""
    if url is not None and url.startswith(GRPC):
        return None
    place = str(folder / "journal.log") if url is None else url
    shown = "URL" if url is not None and _without_password(url) != url else shlex.quote(place)
    install = "" if importlib.util.find_spec("optuna_dashboard") else "pip install optuna-dashboard && "
    return f"{install}optuna-dashboard {shown}"


def with_driver(url: str) -> str:
    """The URL with the driver that is installed, where it names none. Raises UsageError where none is."""
    scheme, separator, rest = url.partition("://")
    kind = {"postgres": "postgresql"}.get(scheme, scheme)
    if not separator or kind not in DRIVERS:
        return url
    drivers = DRIVERS[kind]
    driver = next((name for name in drivers if importlib.util.find_spec(name) is not None), None)
    if driver is None:
        raise UsageError(
            f"--storage {_without_password(url)}: no driver for {kind} is installed",
            next_step=f"pip install '{EXTRAS.get(drivers[0], drivers[0])}'",
        )
    return f"{kind}+{_DIALECTS.get(driver, driver)}://{rest}"


def _without_password(url: str) -> str:
    """For messages: they end up in logs."""
    scheme, separator, rest = url.partition("://")
    account, at, place = rest.rpartition("@")
    user, colon, _ = account.partition(":")
    return f"{scheme}{separator}{user}{':…' if colon else ''}{at}{place}"
