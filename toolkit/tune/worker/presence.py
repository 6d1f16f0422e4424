"""Signs of life: a worker signs the trial it trains, so that workers on other machines know when it is gone.

A worker of the same folder is known to be gone by its run, which nobody holds locked; of another machine there is only
its silence. Clocks of two machines may differ, so silence is counted by the watcher's own, from when it first saw the
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

import optuna
from optuna.trial import FrozenTrial

SIGNATURE = "signed"
"""The user attribute of a trial that says when its worker last signed it, in seconds since 1970."""
SIGN_SECONDS = 30.0
SILENT_SECONDS = 600.0
"""Silence after which a worker is held to be gone."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def machine() -> list[str]:
    """The names of this machine: that of its host, which outlives a boot, and that of the boot, which outlives a new
    name of the host and is one for all containers on it."""
    return [platform.node(), *([_BOOT.read_text(encoding="ascii").strip()] if _BOOT.is_file() else [])]


@contextmanager
def signing(trial: optuna.Trial) -> Iterator[None]:
    """Sign the trial from a thread while the block runs."""
    left = threading.Event()
    thread = threading.Thread(target=_sign_on, args=(trial, left), name="sign of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def _sign_on(trial: optuna.Trial, left: threading.Event) -> None:
    while not left.wait(SIGN_SECONDS):
        with suppress(Exception):  # a storage that fails for a moment is asked again; the trial tells what lasts
            trial.storage.set_trial_user_attr(trial._trial_id, SIGNATURE, time.time())


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
