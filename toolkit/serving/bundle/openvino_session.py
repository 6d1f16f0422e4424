"""An ONNX model opened by OpenVINO: batches of pixels in, probabilities or numbers out.

OpenVINO computes the graph's resampling in other numbers than onnxruntime does, which rounds otherwise. So it is given
squares only, which the graph takes as they are. What is not a square becomes one by NumPy before, to the bit as in the
graph.
"""

from __future__ import annotations

import sys
import threading
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.errors import BundleError, UsageError
from toolkit.serving.bundle.inputs import square_batch
from toolkit.serving.bundle.manifest import INPUT, MAPS, Manifest
from toolkit.serving.bundle.session import answered_in_parts, joined, largest_call, read_outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

EXTRA = "openvino"
INSTALL = f"pip install 'vision-toolkit[{EXTRA}]'"
TELEMETRY = "openvino_telemetry"
"""The package by which `import openvino` reports itself to its makers; without it, it reports nothing."""


class OpenVinoSession:
    """One model on the CPU. Calls from several threads are safe: they take turns, since one uses all cores."""

    def __init__(self, path: Path, manifest: Manifest, threads: int) -> None:
        """Raises BundleError where OpenVINO cannot open the model, UsageError where it is not installed."""
        openvino = library()
        self.path = path
        self._input = manifest.input
        self._columns = manifest.columns
        self._outputs = read_outputs(manifest)
        self._turn = threading.Lock()
        try:
            model = openvino.Core().read_model(path) if path.suffix == ".xml" else of_squares(path, manifest)
            self._model = openvino.Core().compile_model(model, "CPU", _settings(threads))
            self._request = self._model.create_infer_request()
        except Exception as error:  # OpenVINO's own errors have no other class in common
            raise BundleError(
                f"{path}: openvino {installed_version()} cannot open it: {cause_of(error)}",
                next_step="use --runtime onnxruntime",
            ) from error

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 `[N, ..., H, W, 3]` to float32 `[N, C]`, or `[N, C + 1]` with a score last where the graph gives one.
        Raises BundleError where it cannot be computed."""
        largest = self.largest(pixels.shape[1:])
        return answered_in_parts(pixels, largest, self._columns, self.path, self._answered)

    def maps(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The heat maps that the graph gives to as many inputs as one call takes, `[N, C, h, w]` or `[N, C, t, h, w]`:
        above 0 where something speaks for the class. Raises BundleError where they cannot be computed."""
        (found,) = self._inferred(pixels, [MAPS])
        return found

    def largest(self, shape: Sequence[int]) -> int:
        """Items of this `shape` that one call takes at most."""
        return largest_call("cpu", shape, self._input.frames)

    def _answered(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return joined(self._inferred(pixels, self._outputs))

    def _inferred(self, pixels: NDArray[np.uint8], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        try:
            with self._turn:
                found = self._request.infer({INPUT: square_batch(pixels, self._input)}, share_inputs=True)
                return [found[self._model.output(name)].copy() for name in outputs]
        except Exception as error:
            raise BundleError(
                f"{self.path}: openvino cannot compute it for {list(pixels.shape)}: {cause_of(error)}",
                next_step="use --runtime onnxruntime",
            ) from error


def of_squares(path: Path, manifest: Manifest) -> Any:
    """The ONNX model at `path` as OpenVINO has it, for any number of squares. Raises what OpenVINO raises."""
    openvino = library()
    reader = _frontends().load_by_framework("onnx")  # a file that is not ONNX goes to no other reader
    model = reader.convert(reader.load(str(path)))
    model.reshape({INPUT: openvino.PartialShape([-1, *manifest.input.square_shape])})
    return model


def is_installed() -> bool:
    return EXTRA in sys.modules or find_spec(EXTRA) is not None


def installed_version() -> str:
    return version(EXTRA)


@cache
def library(asked: str = "--runtime openvino") -> Any:
    """OpenVINO, imported so that it reports nothing over the network. Raises UsageError, which names the flag that
    `asked` for it, where it is missing or does not import."""
    known = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        reason = "which is not installed" if not is_installed() else f"which cannot be imported: {error}"
        raise UsageError(f"{asked}: needs openvino, {reason}", next_step=INSTALL) from error
    finally:
        del sys.modules[TELEMETRY]
        if known is not None:
            sys.modules[TELEMETRY] = known
    return openvino


def _frontends() -> Any:
    from openvino.frontend import FrontEndManager

    return FrontEndManager()


def _settings(threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": "f32",  # else processors with bf16 compute in it
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "ENABLE_CPU_PINNING": False,  # decoding threads need the cores
    }


def cause_of(error: Exception) -> str:
    """What OpenVINO said, without the places in its code."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not line.startswith("Exception from")), type(error).__name__)
