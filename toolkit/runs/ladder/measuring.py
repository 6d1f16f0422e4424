"""What a step takes: time, memory, and the answer to one item."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from statistics import median

import torch
from torch import nn

from toolkit.build.assemble import Assembly, noise
from toolkit.system import device as devices
from toolkit.training.modes import evaluating

WARM_UP = 3
"""Answers before the first that counts: they choose kernels and take memory."""
ANSWERS = 15
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PEAK = "VmHWM:"


def latency(network: nn.Module, assembly: Assembly) -> float:
    """Seconds of the answer to one item, in the precision of the run: the median."""
    pixels = noise(assembly, 1).pixels
    times = list[float]()
    with torch.inference_mode(), evaluating(network), assembly.autocast():
        for _ in range(WARM_UP + ANSWERS):
            started = time.perf_counter()
            network(pixels)
            devices.synchronize(assembly.device)
            times.append(time.perf_counter() - started)
    return median(times[WARM_UP:])


def forget_peak() -> None:
    """Let the peak of memory count from here, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        _CLEAR.write_text("5")


def peak(device: torch.device) -> int:
    """Bytes that this process had at most since `forget_peak`; where the system cannot count so, since it began."""
    if device.type == "cpu":
        with suppress(OSError, ValueError, StopIteration):
            line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(_PEAK))
            return int(line.split()[1]) * 1024
    return devices.peak_memory(device)
