"""Where the arithmetic runs, and in which precision."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.backends import cudnn

from toolkit.api.errors import Problem, RunFailed, UsageError, counted
from toolkit.api.memory import lacks_memory
from toolkit.system.choices import Precision
from toolkit.system.ranks import ALONE, Ranks

_KEEP = ((-3, 1 << 30), (-1, (1 << 31) - 1))
"""glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD with limits, in bytes, that no block of a step reaches."""

_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "deterministic": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    "benchmark": (lambda: cudnn.benchmark, partial(setattr, cudnn, "benchmark")),
    "tf32": (lambda: cudnn.allow_tf32, partial(setattr, cudnn, "allow_tf32")),
    "threads": (torch.get_num_threads, torch.set_num_threads),
}
"""Settings of torch that a run may change: how each is read and written."""

_BEFORE: dict[str, Any] = {}
"""Those that a run has changed, as they were."""


class Unavailable(UsageError):  # noqa: N818 - it says what is wrong: a device is unavailable
    """What a recipe asks for at `key`, and this machine does not have."""

    def __init__(self, key: str, reason: str, instead: str, *, next_step: str) -> None:
        super().__init__(f"{key}: {reason}", next_step=next_step)
        self.problem = Problem(key, reason, instead)


def choose_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """The device of this name, which a recipe has checked: `auto` is the first CUDA device where there is one, else the
    CPU. Each of several ranks on a machine gets a CUDA device of its own. Raises Unavailable for one that is not
    there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if ranks.together and name.startswith("cuda"):
        if name != "cuda":
            raise Unavailable(
                "train.device",
                f'each rank chooses its own device, got "{name}"',
                "cuda",
                next_step="use --set train.device=cuda, and choose devices by CUDA_VISIBLE_DEVICES",
            )
        name = f"cuda:{ranks.local_rank}"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise Unavailable(
            "train.device",
            f'"{name}" asked for, {torch.cuda.device_count()} CUDA devices found',
            "auto",
            next_step=f"start at most {torch.cuda.device_count()} ranks on a machine, or use --set train.device=cpu"
            if ranks.together
            else "use --set train.device=auto, or install a driver and a CUDA build of torch",
        )
    return device


def on_gpus(name: str) -> bool:
    """Whether `choose_device` would choose a CUDA device."""
    return name.startswith("cuda") or (name == "auto" and torch.cuda.is_available())


def choose_precision(name: str, device: torch.device, begun: Precision | None = None) -> Precision:
    """The precision in which a run has `begun`, whatever is asked for. `auto` is bf16 where the processor computes in
    it, else fp32. Raises Unavailable where the device cannot train in it."""
    if begun is None and name == "auto":
        return "bf16" if _has_bf16(device) else "fp32"
    precision: Precision = begun or name  # type: ignore[assignment]
    if precision == "fp16" and device.type == "cpu":
        raise Unavailable(
            "train.precision",
            f"{'the run began in fp16, which' if begun else 'fp16'} trains on CUDA only",
            "bf16",
            next_step="resume it where there is a CUDA device" if begun else "use --set train.precision=bf16, or auto",
        )
    return precision


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """The context for a forward pass in `precision`; weights and optimizer stay float32."""
    if precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype)


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """float32 of what autocast has computed in fewer bits. float64 stays: a network of doubles shows whether a
    difference is rounding."""
    return values if values.dtype == torch.float64 else values.float()


def describe(device: torch.device) -> str:
    """The device as people call it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return counted(torch.get_num_threads(), "CPU thread")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Bytes that this process had at most: on the device when that is a GPU, else resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn a refusal of memory, the device's or the machine's, into RunFailed."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        where = "on the device" if isinstance(error, torch.OutOfMemoryError) else "on this machine"
        raise RunFailed(
            f"too little memory {where}{_wanted(str(error))}",
            next_step="cut batches into parts that are computed one after the other (--set train.accumulate=2), take "
            "smaller ones (--set train.batch=... and train.eval_batch=...) or smaller items (--set input.size=...), "
            "or end what else runs there",
        ) from error


def _wanted(said: str) -> str:
    """What an allocator says of the memory it was asked for, without where in its sources it says so."""
    if asked := re.search(r"you tried to allocate (\d+) bytes", said):
        return f": {int(asked[1]):,} bytes were asked for at once"
    reason = ". ".join(said.partition("\n")[0].split(". ")[:2])
    return f": {reason}" if reason else ""


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed instead of giving it back: each step frees and takes the same large blocks,
    and fresh pages cost the kernel more than many an operation on them. Whether this system's library takes the advice
    (glibc does)."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    accepted = [library.mallopt(option, limit) for option, limit in _KEEP]
    return all(accepted)


def make_deterministic(wanted: bool = True) -> None:
    """Refuse operations that give other results on the next try. Not `wanted`: take back an earlier call, so that a run
    leaves nothing to the next one of its process."""
    _set("deterministic", True if wanted else None)
    _set("benchmark", False if wanted else None)


def use_full_float32(wanted: bool = True) -> None:
    """Compute with all 24 bits of a float32 where torch rounds the factors of convolutions and recurrences to the 11 of
    TF32 on CUDA. Not `wanted`: take back an earlier call."""
    _set("tf32", False if wanted else None)


def use_threads(count: int | None) -> None:
    """Compute on `count` CPU threads. None: on as many as before an earlier call, or as torch has chosen."""
    _set("threads", count)


def _set(name: str, value: Any) -> None:
    """Change a setting of torch; None: take back an earlier change."""
    read, write = _SETTINGS[name]
    if value is not None:
        _BEFORE.setdefault(name, read())
        write(value)
    elif name in _BEFORE:
        write(_BEFORE.pop(name))


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported: bool = torch.cpu._is_avx512_bf16_supported()
    return supported
