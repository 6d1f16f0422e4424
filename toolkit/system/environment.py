"""What a run ran on: versions, hardware, the state of the source tree."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "torch", "torchvision", "numpy", "scikit-learn", "pluggy", "pydantic", "av", "safetensors", "onnx",
    "onnxruntime-gpu", "onnxruntime", "optuna", "pytorchvideo",
)  # fmt: skip


def describe_environment(device: torch.device) -> dict[str, Any]:
    """The contents of environment.json."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": versions(),
        "hardware": _hardware(device),
        "git": _git(),
        "command": sys.argv,
    }


def memory_available() -> int:
    """Bytes of memory that this process may still take: what the system has free, within its control group."""
    return max(min(_system_memory(), _group_memory()), 0)


def versions() -> dict[str, str]:
    """Of this package and of those whose version decides what a run or an export gives."""
    installed = {"vision-toolkit": _version("vision-toolkit")} | {name: _version(name) for name in PACKAGES}
    return {name: version for name, version in installed.items() if version}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _hardware(device: torch.device) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(_total_memory() / 2**30, 1),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["gpu_memory_gib"] = round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
        facts["cuda"] = torch.version.cuda
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git() -> dict[str, Any] | None:
    commit = _ask_git("rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "changed": bool(_ask_git("status", "--porcelain"))}


def _ask_git(*words: str) -> str | None:
    try:
        answer = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603, S607
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _total_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _system_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return _total_memory() // 2
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return available[0] if available else _total_memory() // 2


_GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
"""Where a control group of version 2, and of 1, tells its limit, what it uses, and how much of that are pages of files
that it drops when it needs room."""


def _group_memory(group: Path = Path("/sys/fs/cgroup")) -> int:
    return min(_left(group, *names) for names in _GROUPS)


def _left(group: Path, limit: str, used: str, details: str, droppable: str) -> int:
    try:
        allowed = (group / limit).read_text().strip()
        taken = int((group / used).read_text())
        told = dict(line.split() for line in (group / details).read_text().splitlines())
    except (OSError, ValueError):
        return sys.maxsize
    return int(allowed) - taken + int(told.get(droppable, 0)) if allowed.isdecimal() else sys.maxsize
