"""What a run ran on: versions, hardware, the state of the source tree."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from importlib import metadata
from typing import Any

import torch

from toolkit.system.machine import ask_git, processor, total_memory

PACKAGES = (
    "torch", "torchvision", "numpy", "scikit-learn", "pluggy", "pydantic", "av", "safetensors", "onnx",
    "onnxruntime-gpu", "onnxruntime", "optuna", "pytorchvideo",
)  # fmt: skip


def describe_environment(device: torch.device) -> dict[str, Any]:
    """The contents of environment.json."""
    hardware: dict[str, Any] = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round((total_memory() or 0) / 2**30, 1),
    }
    if device.type == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name(device)
        hardware["gpu_memory_gib"] = round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
        hardware["cuda"] = torch.version.cuda
    commit = ask_git("rev-parse", "HEAD")
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": versions(),
        "hardware": hardware,
        "git": {"commit": commit, "changed": bool(ask_git("status", "--porcelain"))} if commit else None,
        "command": sys.argv,
    }


def versions() -> dict[str, str]:
    """Of this package and of those whose version decides what a run or an export gives."""
    versions = {name: _version(name) for name in ("vision-toolkit", *PACKAGES)}
    return {name: version for name, version in versions.items() if version is not None}


@cache
def _version(name: str) -> str | None:
    """None for a package that is not installed. Its metadata takes long to read, for what one line of it says."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
