"""How much of the cores other processes take while a bench measures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from toolkit.system.machine import PROC, allowed_cores

FEWEST_TICKS = 100
"""Time is counted in ticks of 10 ms, so a share of fewer ticks says little."""
_BUSY = (0, 1, 2, 5, 6, 7)
"""Of /proc/stat: user, nice, system, irq, softirq, and steal, which other virtual machines take."""
_COUNTED = 8
"""Columns of /proc/stat; the ones behind them are parts of user and nice."""
_PARENT, _USED = 1, slice(11, 15)
"""Of /proc/PID/stat, behind the name: the parent, and ticks of this process and of its children that have ended."""


@dataclass(frozen=True)
class Usage:
    """Ticks since the machine started."""

    passed: int
    """On all cores that this process may use."""
    busy: int
    """Of these, with any process at work."""
    own: int
    """Of this process and all that descend from it."""


def usage(proc: Path = PROC) -> Usage | None:
    """Usage until now; None where the system does not report it."""
    try:
        lines = [line.split() for line in (proc / "stat").read_text(encoding="ascii").splitlines()]
    except OSError:
        return None
    names = {f"cpu{core}" for core in allowed_cores()}
    cores = [[int(count) for count in counts[:_COUNTED]] for name, *counts in lines if name in names]
    busy = sum(counts[column] for counts in cores for column in _BUSY)
    return Usage(sum(map(sum, cores)), busy, sum(_ticks_below(os.getpid(), proc)))


def others_share(before: Usage | None, after: Usage | None) -> float | None:
    """The share of the cores' time that other processes took in between, 0 to 1; None where that is unknown."""
    if before is None or after is None or after.passed - before.passed < FEWEST_TICKS:
        return None
    others = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, others / (after.passed - before.passed))


def cpu_seconds_of(process: int, proc: Path = PROC) -> float:
    """CPU seconds so far of a process and all that descend from it, to 0.01 each."""
    return sum(_ticks_below(process, proc)) / os.sysconf("SC_CLK_TCK")


def _ticks_below(ancestor: int, proc: Path) -> Iterator[int]:
    parents, ticks = dict[int, int](), dict[int, int]()
    for folder in proc.iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # it has ended
                fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                parents[int(folder.name)] = int(fields[_PARENT])
                ticks[int(folder.name)] = sum(map(int, fields[_USED]))
    for process, used in ticks.items():
        line = process
        while line not in (0, ancestor):
            line = parents.get(line, 0)
        if line:
            yield used
