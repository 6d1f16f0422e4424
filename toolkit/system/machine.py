"""What of this machine a process may use: cores and memory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CONTROL_GROUP = Path("/sys/fs/cgroup")
TOPOLOGY = Path("/sys/devices/system/cpu")


def physical_cores(group: Path = CONTROL_GROUP, topology: Path = TOPOLOGY) -> int:
    """Physical cores that this process may use: two threads of one core count once, and the quota of its control
    group is a limit. At least 1."""
    allowed = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else range(os.cpu_count() or 1)
    cores = {_read(topology / f"cpu{number}/topology/thread_siblings_list") or str(number) for number in allowed}
    return max(1, min(len(cores), _quota(group)))


def memory(group: Path = CONTROL_GROUP) -> int | None:
    """Bytes of memory that this process may fill: the machine's or its control group's; None where nobody says."""
    said = [_read(group / name) for name in ("memory.max", "memory/memory.limit_in_bytes")]
    limits = [int(text) for text in said if text.isdecimal()]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=None)


def _quota(group: Path) -> int:
    """Whole cores' worth of time that a control group of version 2 or 1 grants."""
    quota = _read(group / "cpu.max").split() or [
        _read(group / "cpu/cpu.cfs_quota_us"),
        _read(group / "cpu/cpu.cfs_period_us"),
    ]
    if not all(text.isdecimal() and int(text) for text in quota):
        return sys.maxsize
    limit, period = map(int, quota)
    return limit // period


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
