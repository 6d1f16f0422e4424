"""Where a bundle runs: which of onnxruntime's providers loads here, and what is missing where one does not."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from toolkit.api.errors import UsageError, unknown_name
from toolkit.api.files import cache_directory
from toolkit.system.choices import BUNDLE_DEVICES, BundleDevice

PROVIDERS: dict[BundleDevice, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
BATCH: Mapping[BundleDevice, int] = {"cpu": 16, "cuda": 128, "tensorrt": 128, "coreml": 16}
"""Frames a call of the session, by device: more are no faster on a CPU, and are held longer."""
DRIVER = "libcuda.so.1"
NVIDIA = "0x10de"
"""The vendor number of NVIDIA's devices on the PCI bus."""


@dataclass(frozen=True)
class Choice:
    """A device that loads."""

    device: BundleDevice
    reason: str
    """Why it is the one; empty where a user has nothing to learn from it: a machine without a GPU."""


def choose_device(asked: str) -> Choice:
    """Return CUDA for `auto` where it loads, else the CPU. Raises UsageError for an unknown device, and for one that
    is asked for and does not load; the error names what is missing."""
    if asked == "auto":
        missing = missing_for("cuda")
        if missing is None:
            return Choice("cuda", "it loads")
        return Choice("cpu", f"CUDA does not load: {missing}" if has_nvidia_gpu() else "")
    device = next((known for known in BUNDLE_DEVICES if known == asked), None)
    if device is None:
        message = unknown_name(f'--device: no device is called "{asked}"', asked, ("auto", *BUNDLE_DEVICES))
        raise UsageError(message, next_step=f"use auto, {', '.join(BUNDLE_DEVICES)}")
    missing = missing_for(device)
    if missing:
        raise not_loaded(device, missing)
    return Choice(device, "asked for")


def usual_batch(device: BundleDevice, frames: int | None) -> int:
    """Inputs a call of the session, each of so many `frames`; None: an image."""
    return max(BATCH[device] // (frames or 1), 1)


def has_nvidia_gpu() -> bool:
    """Whether this machine has a GPU that CUDA could use, with or without its driver."""
    if Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists():  # the second under Windows' Linux
        return True
    vendors = Path("/sys/bus/pci/devices").glob("*/vendor")
    return any(_is_nvidia_display(vendor) for vendor in vendors)


def _is_nvidia_display(vendor: Path) -> bool:
    with suppress(OSError):
        kind = vendor.with_name("class").read_text()
        return vendor.read_text().strip() == NVIDIA and kind.startswith("0x03")
    return False


def not_loaded(device: BundleDevice, missing: str) -> UsageError:
    return UsageError(
        f"--device {device}: {PROVIDERS[device]} does not load: {missing}",
        next_step="install what is missing, or use --device auto, which takes the best device that loads",
    )


def missing_for(device: BundleDevice) -> str | None:
    """What keeps `device` from loading on this machine; None where nothing does."""
    if device == "cpu":
        return None
    import onnxruntime

    if PROVIDERS[device] not in onnxruntime.get_available_providers():
        install = "on a Mac, pip install onnxruntime" if device == "coreml" else "pip install onnxruntime-gpu"
        return f"this onnxruntime ({onnxruntime.__version__}) is built without it; {install}"
    if device == "coreml":
        return None
    missing = _missing_driver()
    if missing:
        return missing
    preload_libraries()
    folder = Path(onnxruntime.__file__).parent / "capi"
    # TensorRT leaves to CUDA what it cannot run, so it needs both.
    needed = ("shared", "cuda", "tensorrt") if device == "tensorrt" else ("shared", "cuda")
    return _first_missing(folder / f"libonnxruntime_providers_{name}.so" for name in needed)


def preload_libraries() -> None:
    """Load CUDA's and cuDNN's libraries from where pip puts them; what onnxruntime prints of missing ones is
    hidden, since loading the provider reports it again."""
    import onnxruntime

    with redirect_stdout(StringIO()):
        onnxruntime.preload_dlls()


def _missing_driver() -> str | None:
    missing = _first_missing([DRIVER])
    if missing:
        return f"{missing} (the NVIDIA driver)"
    driver = ctypes.CDLL(DRIVER)
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or not count.value:
        return "the NVIDIA driver finds no GPU"
    return None


def _first_missing(libraries: Iterable[str | Path]) -> str | None:
    """The name of the first library that one of `libraries` needs and the loader does not find."""
    for library in libraries:
        try:
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            return str(error).partition(":")[0]
    return None


def provider_options(
    device: BundleDevice, precision: str, sha256: str, *, graphs: bool
) -> list[tuple[str, dict[str, Any]]]:
    """What to give `InferenceSession` as `providers`, best first, for a model of this precision and digest; `graphs` is
    whether CUDA graphs are captured.

    fp32 is computed in full, as it was proved, on any device: `fp16` is for tensor cores. Raises UsageError for int8 on
    TensorRT."""
    cuda = (
        PROVIDERS["cuda"],
        {
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "cudnn_conv_use_max_workspace": "1",
            "prefer_nhwc": "1",
            "use_tf32": "0" if precision == "fp32" else "1",
            "enable_cuda_graph": "1" if graphs else "0",
        },
    )
    cpu: tuple[str, dict[str, Any]] = (PROVIDERS["cpu"], {})
    if device == "cpu":
        return [cpu]
    if device == "cuda":
        return [cuda, cpu]
    if device == "coreml":
        return [(PROVIDERS["coreml"], {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}), cpu]
    if precision == "int8":
        raise UsageError(
            "--device tensorrt: TensorRT knows no uint8 activations, which int8 models have here",
            next_step="use --precision fp16, from a run exported with --set export.precision=fp16, or --device cuda",
        )
    timings = cache_directory() / "tensorrt"
    engines = timings / sha256[:16]  # onnxruntime names an engine after the graph, whatever its weights
    engines.mkdir(parents=True, exist_ok=True)
    tensorrt = {
        "trt_fp16_enable": "1" if precision == "fp16" else "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(timings),
        "trt_cuda_graph_enable": "1" if graphs else "0",
    }
    return [(PROVIDERS["tensorrt"], tensorrt), cuda, cpu]
