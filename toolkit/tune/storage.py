"""Where a study lives: the folder of its runs, and a journal file in it or a database that many machines share."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
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
EXTRAS = {"psycopg": "vision-toolkit[postgresql]"}
"""What to install to get a package."""
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


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """A journal file in the study's folder, or the database at `url`. Raises UsageError where that cannot be used."""
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


def dashboard_command(folder: Path, url: str | None) -> str:
    """What to type to see a study in optuna-dashboard, with its installation where it is not installed. A URL that has
    a password is not repeated: the screen may be a log."""
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
