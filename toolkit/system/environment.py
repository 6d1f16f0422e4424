"""What a run ran on: versions, hardware, the state of the source tree."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

import torch

from toolkit.system.machine import processor, total_memory

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
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round((total_memory() or 0) / 2**30, 1),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["gpu_memory_gib"] = round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
        facts["cuda"] = torch.version.cuda
    return facts


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
