"""Raw tensors as the Open Inference Protocol has them: what a model takes and gives, whatever carries it.

https://github.com/kserve/open-inference-protocol; the configuration and the labels of classes are Triton's extensions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit import __version__
from toolkit.api.errors import UsageError
from toolkit.serving.bundle.inputs import check_frames, rank
from toolkit.serving.bundle.manifest import INPUT, Manifest
from toolkit.serving.bundle.trust import DECLINED, PLAUSIBLE, SCORES
from toolkit.serving.server.models import VERSION, Served
from toolkit.serving.server.refusals import BAD, TOO_LARGE, Refused

if TYPE_CHECKING:
    from numpy.typing import NDArray

TAKEN = "UINT8"
PLATFORM = "onnxruntime_onnx"
_RAW = {"FP32": "<f4", "BOOL": "?"}
"""How values are written as bytes, by their datatype."""
SERVER: Mapping[str, Any] = {
    "name": "vision-toolkit",
    "version": __version__,
    "extensions": ["binary_tensor_data", "classification", "model_configuration"],
}


@dataclass(frozen=True)
class Wanted:
    """One output that a request asks for."""

    name: str
    binary: bool = False
    classes: int = 0
    """How many of the likeliest are wanted with their names instead of the numbers of all; 0: all numbers."""


@dataclass(frozen=True)
class Asked:
    """A request, over HTTP or gRPC."""

    pixels: NDArray[np.uint8]
    """`[N, ...]`, which fits the model."""
    outputs: Sequence[Wanted]


@dataclass(frozen=True)
class Given:
    """One output of an answer."""

    wanted: Wanted
    datatype: str
    values: NDArray[np.float32] | NDArray[np.bool_] | Sequence[bytes]
    shape: Sequence[int]

    @property
    def raw(self) -> bytes:
        """The values as bytes: of texts each behind its length, in four bytes."""
        if isinstance(self.values, np.ndarray):
            return self.values.astype(_RAW[self.datatype]).tobytes()
        return b"".join(len(text).to_bytes(4, "little") + text for text in self.values)


def metadata(manifest: Manifest) -> dict[str, Any]:
    """What a model takes and gives; -1 is any size."""
    return {
        "name": manifest.name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": TAKEN, "shape": [-1, *manifest.input.clip_shape, -1, -1, 3]}],
        "outputs": [_output(name, len(manifest.classes)) for name in manifest.outputs],
    }


def _output(name: str, classes: int) -> dict[str, Any]:
    shape = [-1] if name in (*SCORES, DECLINED) else [-1, classes]
    return {"name": name, "datatype": "BOOL" if name in (DECLINED, PLAUSIBLE) else "FP32", "shape": shape}


def configuration(served: Served) -> dict[str, Any]:
    """As Triton has it: metadata without the dimension of a batch, and the thresholds of sets of classes."""
    manifest = served.bundle.manifest
    described = metadata(manifest)
    config: dict[str, Any] = {
        "name": manifest.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": served.batcher.batch,
        "input": [_configured(tensor) for tensor in described["inputs"]],
        "output": [_configured(tensor) for tensor in described["outputs"]],
    }
    if manifest.thresholds is not None:
        config["parameters"] = {"thresholds": {"string_value": json.dumps(list(manifest.thresholds))}}
    return config


def _configured(tensor: Mapping[str, Any]) -> dict[str, Any]:
    dims = tensor["shape"][1:] or [1]  # Triton has no word for none
    return {"name": tensor["name"], "data_type": f"TYPE_{tensor['datatype']}", "dims": dims}


def checked_shape(name: str, datatype: str, shape: Sequence[object], manifest: Manifest, pixels: int) -> list[int]:
    """The shape of the input that a request says it brings. Raises Refused unless the model takes such a one."""
    if name != INPUT:
        raise Refused(BAD, f'input: expected "{INPUT}", got "{name}"')
    if datatype != TAKEN:
        raise Refused(BAD, f'input "{INPUT}": expected datatype {TAKEN}, got {datatype}')
    sides = [side for side in shape if type(side) is int and 0 < side < 1 << 31]
    if len(sides) != len(shape) or len(sides) != rank(manifest.input) + 1:
        expected = metadata(manifest)["inputs"][0]["shape"]
        raise Refused(BAD, f'input "{INPUT}": expected shape {expected}, got {list(shape)}')
    if sides[-3] * sides[-2] > pixels:
        raise Refused(
            TOO_LARGE, f'input "{INPUT}": frames of {sides[-3]} x {sides[-2]}; the limit is {pixels:,} pixels'
        )
    return sides


def of_bytes(data: bytes | memoryview, shape: Sequence[int], manifest: Manifest) -> NDArray[np.uint8]:
    """The input whose elements are `data`. Raises Refused where there are more or fewer than the shape says."""
    if len(data) != math.prod(shape):
        raise Refused(BAD, f'input "{INPUT}": shape {list(shape)} has {math.prod(shape):,} bytes, got {len(data):,}')
    return _fitting(np.frombuffer(data, np.uint8).reshape(shape), manifest)


def of_numbers(data: object, shape: Sequence[int], manifest: Manifest) -> NDArray[np.uint8]:
    """The input whose elements are integers in lists, nested or not. Raises Refused for anything else."""
    try:
        found = np.asarray(data)
        whole = found.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise Refused(BAD, f'input "{INPUT}": its data does not have the shape {list(shape)}') from error
    if whole.dtype.kind not in "iu" or whole.min() < 0 or whole.max() > 255:
        raise Refused(BAD, f'input "{INPUT}": expected integers from 0 to 255')
    return _fitting(whole.astype(np.uint8), manifest)


def _fitting(pixels: NDArray[np.uint8], manifest: Manifest) -> NDArray[np.uint8]:
    try:
        check_frames(pixels, manifest.input, INPUT, many=True)
    except UsageError as error:
        raise Refused(BAD, error.message) from error
    return pixels


def check_output(name: str, manifest: Manifest) -> None:
    """Raise Refused for an output that the model does not have."""
    if name not in manifest.outputs:
        expected = " or ".join(f'"{one}"' for one in manifest.outputs)
        raise Refused(BAD, f'output: expected {expected}, got "{name}"')


def given(wanted: Wanted, answers: NDArray[np.float32], manifest: Manifest) -> Given:
    """What an output shows of the rows of N inputs: all its values, or `probability:index:class` of the likeliest."""
    rows, answers = answers, answers[:, : len(manifest.classes)]
    if wanted.name != manifest.output:
        found = _caution(wanted.name, rows, manifest)
        return Given(wanted, "FP32" if wanted.name in SCORES else "BOOL", found, found.shape)
    if not wanted.classes:
        return Given(wanted, "FP32", answers, answers.shape)
    order = (-answers).argsort(1, kind="stable")[:, : wanted.classes]
    texts = [
        f"{row[place]:f}:{place}:{' '.join(manifest.classes[place].split())}".encode()
        for row, best in zip(answers, order, strict=True)
        for place in best
    ]
    return Given(wanted, "BYTES", texts, order.shape)


def _caution(name: str, rows: NDArray[np.float32], manifest: Manifest) -> NDArray[np.float32] | NDArray[np.bool_]:
    """What says how far the answers go: `[N]`, or `[N, C]` of the classes in a set."""
    parted = [manifest.parted(row) for row in rows]
    if name in SCORES:
        return np.array([score for _, score in parted], np.float32)
    answers = [(row.tolist(), score) for row, score in parted]
    if name == DECLINED:
        return np.array([manifest.trust.declines(row, score) for row, score in answers], np.bool_)
    shown = np.zeros((len(rows), len(manifest.classes)), np.bool_)
    for place, (row, _) in enumerate(answers):
        shown[place, manifest.trust.plausible(row) or []] = True
    return shown
