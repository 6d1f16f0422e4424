"""How workers know of each other: marks of folders and machines, and the signs of life of a trial under way.

A worker of the same folder is gone when nobody holds its run locked. Of a worker on another machine there is only its
silence. Clocks of two machines may differ, so silence is counted by the watcher's own, from when it first saw the
latest sign.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import optuna
from optuna.trial import FrozenTrial

from toolkit.api.files import write_atomically
from toolkit.runs.directory import explained
from toolkit.tune.storage import alone

FOLDER = "folder"
"""The user attribute of a trial that marks the folder of its run."""
MACHINE = "machine"
"""The user attribute of a trial that names the machine of its worker."""
SIGNATURE = "signed"
"""The user attribute of a trial that says when its worker last signed it, in seconds since 1970."""
SIGN_SECONDS = 30.0
SILENT_SECONDS = 600.0
"""Silence after which a worker is held to be gone."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def mark_of(folder: Path) -> str:
    """What distinguishes this folder from those that other machines have of the same study. It lies in the folder, so
    it stays when the folder is moved or its machine gets another name; drawn when it is first asked for."""
    path = folder / "folder.id"
    with alone(folder), explained(folder):
        if not path.is_file():
            write_atomically(path, uuid4().hex.encode())
        return path.read_text(encoding="utf-8")


def machine() -> list[str]:
    """The names of this machine: that of its host, which outlives a boot, and that of the boot, which outlives a new
    name of the host and is one for all containers on it."""
    return [platform.node(), *([_BOOT.read_text(encoding="ascii").strip()] if _BOOT.is_file() else [])]


def claim(trial: optuna.Trial, mark: str) -> None:
    """Record the folder of the trial's run and which machine works on it, and sign the trial."""
    for name, value in {FOLDER: mark, MACHINE: machine(), SIGNATURE: time.time()}.items():
        trial.set_user_attr(name, value)


@contextmanager
def signing(trial: optuna.Trial) -> Iterator[None]:
    """Sign the trial from a thread while the block runs."""
    left = threading.Event()

    def sign() -> None:
        while not left.wait(SIGN_SECONDS):
            with suppress(Exception):  # a storage that fails for a moment is asked again; the trial reports what lasts
                trial.set_user_attr(SIGNATURE, time.time())

    thread = threading.Thread(target=sign, name="sign of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


@dataclass(frozen=True)
class Watch:
    """What one worker has seen of the trials of others."""

    seen: dict[int, tuple[object, float]] = field(default_factory=dict)
    """Trial's number: the latest sign, and when it was first seen, by this process's clock."""

    def is_silent(self, trial: FrozenTrial) -> bool:
        """Whether a trial under way has not been signed for so long that its worker must be gone."""
        sign = trial.user_attrs.get(SIGNATURE, trial.datetime_start)
        latest, since = self.seen.get(trial.number, (None, 0.0))
        if latest is None or latest != sign:
            self.seen[trial.number] = sign, time.monotonic()
            return False
        return time.monotonic() - since > SILENT_SECONDS
