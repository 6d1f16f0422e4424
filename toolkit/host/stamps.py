"""Whether the code in a tree is still what it was when something was read of it.

A tree is a package's folder or a module's file. Each of its files has a stamp: size, times and number, by which a file
is known to be the same at the price of asking for them, and a digest of its content, which decides where they differ.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeAlias

Stamps: TypeAlias = dict[str, list[Any]]
"""By path: what `_status` gives (None where it may not be relied on) and a digest (None for a large file)."""

_SUFFIXES = (".py", ".so", ".pyd", ".json", ".toml", ".yaml", ".yml", ".txt", ".csv")
"""Of code, and of small files that plugins read their components' names from."""
_LARGEST = 4 << 20
"""Bytes of a file whose content is compared; a larger one is another file as soon as its times differ."""
_TICK = 0.05
"""Seconds by which the time of a change may lie before the change."""


def stamped(tree: str) -> Stamps | None:
    """The stamps of a tree's files. None where they may not be what this process has imported, as one of them has
    changed since it began, or where there are none."""
    stamps: Stamps = {}
    try:
        for path in _files(tree):
            status = os.stat(path)  # noqa: PTH116 (a Path a file costs time)
            if changed_meanwhile(status.st_ctime):
                return None
            stamps[path] = [_status(status), _digest(path, status.st_size)]
    except OSError:
        return None
    return stamps or None


def still(tree: str, stamps: Stamps) -> Stamps | None:
    """The stamps that the tree has now, where it has the same files with the same content; None where it has not."""
    try:
        found = list(_files(tree))
        if len(found) != len(stamps):
            return None
        now = {path: _renewed(path, stamps[path]) for path in found}
    except (OSError, KeyError):
        return None
    return None if None in now.values() else now  # type: ignore[return-value]


def _files(tree: str) -> Iterator[str]:
    if not os.path.isdir(tree):  # noqa: PTH112
        yield tree
        return
    waiting, entered = [tree], {os.path.realpath(tree)}
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                name = entry.name
                if name.endswith(_SUFFIXES):
                    yield entry.path
                elif "." not in name and name != "__pycache__" and entry.is_dir():
                    if entry.is_symlink():
                        real = os.path.realpath(entry.path)
                        if real in entered:
                            continue
                        entered.add(real)
                    waiting.append(entry.path)


def _status(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _renewed(path: str, stamp: list[Any]) -> list[Any] | None:
    """The stamp that the file has now, the same one where nothing happened to it; None where its content changed."""
    status = os.stat(path)  # noqa: PTH116
    if stamp[0] == _status(status):
        return stamp
    digest = _digest(path, status.st_size)
    if digest is None or digest != stamp[1]:
        return None
    return [None if changed_meanwhile(status.st_ctime) else _status(status), digest]


def _digest(path: str, size: int) -> str | None:
    if size > _LARGEST:
        return None
    from hashlib import sha256

    with open(path, "rb") as file:  # noqa: PTH123
        return sha256(file.read()).hexdigest()


def changed_meanwhile(changed: float) -> bool:
    """Whether a file with this time of change may have changed after this process began. One that has not gets another
    time with its next change, however coarse the clock of its file system is."""
    return changed > _began() - _TICK


@cache
def _began() -> float:
    """When this process began; where the system does not say, when this module was imported."""
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        since_boot = ticks / os.sysconf("SC_CLK_TCK")
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
    except (OSError, ValueError, AttributeError, IndexError):
        return _IMPORTED


_IMPORTED = time.time()
