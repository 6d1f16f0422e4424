"""What of this machine a process may use: cores and memory, within its control group; and what git knows."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

CONTROL_GROUP = Path("/sys/fs/cgroup")
TOPOLOGY = Path("/sys/devices/system/cpu")
PROC = Path("/proc")

_MEMORY = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
"""Files of a control group of version 2, and of 1: its limit, what it uses, and how much of that are pages of files
that it drops when it needs room."""


def processor() -> str:
    """The name of the processor, as the system reports it."""
    names = [line.split(":", 1)[1].strip() for line in _lines(PROC / "cpuinfo") if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def allowed_cores() -> list[int]:
    """Numbers of the logical cores that this process may use, at least one."""
    return sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else list(range(os.cpu_count() or 1))


def physical_cores(group: Path = CONTROL_GROUP, topology: Path = TOPOLOGY) -> int:
    """Physical cores that this process may use: two threads of one core count once, and the quota of its control
    group is a limit. At least 1."""
    names = [_text(topology / f"cpu{n}/topology/thread_siblings_list") or str(n) for n in allowed_cores()]
    old = (group / "cpu/cpu.cfs_quota_us", group / "cpu/cpu.cfs_period_us")
    quota = _text(group / "cpu.max").split() or [_text(path) for path in old]
    granted = sys.maxsize
    if all(text.isdecimal() and int(text) for text in quota):
        limit, period = map(int, quota)
        granted = limit // period
    return max(1, min(len(set(names)), granted))


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether a GPU that runs train on seems to be here, found without importing torch, which takes seconds."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return not hidden and any(devices.glob("nvidia[0-9]*"))


def total_memory() -> int | None:
    """Bytes of memory that the machine has; None where the system does not report it."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", ()):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_available(group: Path = CONTROL_GROUP, meminfo: Path = PROC / "meminfo") -> int:
    """Bytes of memory that this process may still take: what the system has free, within its control group."""
    free = [int(line.split()[1]) * 1024 for line in _lines(meminfo) if line.startswith("MemAvailable:")]
    left = [free[0] if free else (total_memory() or 0) // 2]
    for limit, used, details, droppable in _MEMORY:
        allowed, taken = _text(group / limit), _text(group / used)
        if allowed.isdecimal() and taken.isdecimal():
            kinds = dict(line.split() for line in _lines(group / details))
            left.append(int(allowed) - int(taken) + int(kinds.get(droppable, 0)))
    return max(min(left), 0)


def ask_git(*words: str) -> str | None:
    """What git answers to these words in the working directory; None where it fails or is not installed."""
    try:
        answer = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603, S607
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()


def _text(path: Path) -> str:
    """Its text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
