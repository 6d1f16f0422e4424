"""The Open Inference Protocol over HTTP: a JSON object, behind which tensors may follow as bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.api.errors import printable
from toolkit.serving.bundle.manifest import Manifest
from toolkit.serving.server.models import VERSION, Served
from toolkit.serving.server.refusals import BAD, FAILED, TOO_LARGE, Refused
from toolkit.serving.server.settings import Limits
from toolkit.serving.server.tensors import Asked, Given, Wanted, check_output, checked_shape, of_bytes, of_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADER = "Inference-Header-Content-Length"
"""The header that says how many bytes of a body are JSON; the others are tensors."""
BINARY = "application/octet-stream"
_MOST_OUTPUTS = 16


def request(body: bytes, json_size: str | None, manifest: Manifest, limits: Limits) -> tuple[Asked, str | None]:
    """A request of this body, and its id. Raises Refused for one that is malformed or does not fit the model."""
    head, tensors = _divided(body, json_size)
    if len(head) > limits.message:
        raise Refused(TOO_LARGE, f"JSON of {len(head):,} bytes; the limit is {limits.message:,}: send tensors as bytes")
    claimed = parsed(head)
    identity = claimed.get("id")
    if identity is not None and not isinstance(identity, str):
        raise Refused(BAD, "id: expected a string")
    inputs = claimed.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refused(BAD, "inputs: expected a list of one object")
    pixels = _input(inputs[0], tensors, manifest, limits)
    return Asked(pixels, _outputs(claimed, manifest)), identity


def parsed(text: bytes) -> dict[str, Any]:
    """The JSON object in `text`. Raises Refused for anything else."""
    try:
        claimed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(BAD, f"body: not valid JSON: {printable(str(error))}") from error
    if not isinstance(claimed, dict):
        raise Refused(BAD, "body: expected a JSON object")
    return claimed


def response(served: Served, identity: str | None, outputs: Sequence[Given]) -> tuple[bytes, dict[str, str]]:
    """The body of an answer and its headers."""
    tail = b""
    listed = []
    for one in outputs:
        described: dict[str, Any] = {"name": one.wanted.name, "datatype": one.datatype, "shape": list(one.shape)}
        if one.wanted.binary:
            data = one.raw
            described["parameters"] = {"binary_data_size": len(data)}
            tail += data
        elif isinstance(one.values, np.ndarray):
            described["data"] = one.values.ravel().tolist()
        else:
            described["data"] = [text.decode() for text in one.values]
        listed.append(described)
    whole = {"model_name": served.name, "model_version": VERSION, "outputs": listed}
    if identity is not None:
        whole["id"] = identity
    try:
        head = json.dumps(whole, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:
        raise Refused(FAILED, "the model answers with a number that is not finite") from error
    if not tail:
        return head, {"Content-Type": "application/json"}
    return head + tail, {"Content-Type": BINARY, HEADER: str(len(head))}


def _divided(body: bytes, json_size: str | None) -> tuple[bytes, memoryview]:
    if json_size is None:
        return body, memoryview(b"")
    if not (json_size.isascii() and json_size.isdecimal() and len(json_size) < 12 and int(json_size) <= len(body)):
        raise Refused(BAD, f"{HEADER}: expected a number of bytes up to {len(body):,}")
    return body[: int(json_size)], memoryview(body)[int(json_size) :]


def _input(claimed: Mapping[str, Any], tensors: memoryview, manifest: Manifest, limits: Limits) -> NDArray[np.uint8]:
    shape = claimed.get("shape")
    if not isinstance(shape, list):
        raise Refused(BAD, "inputs[0].shape: expected a list of integers")
    name, datatype = (str(claimed.get(key, "")) for key in ("name", "datatype"))
    sides = checked_shape(printable(name), printable(datatype), shape, manifest, limits.pixels)
    size = _parameters(claimed, "inputs[0]").get("binary_data_size")
    if size is None:
        if tensors:
            raise Refused(BAD, "inputs[0].parameters.binary_data_size: missing, but bytes follow the JSON")
        return of_numbers(claimed.get("data"), sides, manifest)
    if type(size) is not int or size != len(tensors):
        raise Refused(BAD, f"inputs[0].parameters.binary_data_size: {len(tensors):,} bytes follow the JSON")
    return of_bytes(tensors, sides, manifest)


def _outputs(claimed: Mapping[str, Any], manifest: Manifest) -> list[Wanted]:
    """Those that are asked for; without any all that the model has."""
    every_binary = _parameters(claimed, "request").get("binary_data_output") is True
    listed = claimed.get("outputs")
    if listed is None:
        return [Wanted(name, every_binary) for name in manifest.outputs]
    if not isinstance(listed, list) or not 0 < len(listed) <= _MOST_OUTPUTS:
        raise Refused(BAD, f"outputs: expected a list of 1 to {_MOST_OUTPUTS} objects")
    return [_wanted(one, manifest, binary=every_binary) for one in listed]


def _wanted(claimed: object, manifest: Manifest, *, binary: bool) -> Wanted:
    if not isinstance(claimed, dict):
        raise Refused(BAD, "outputs: expected objects")
    name = printable(str(claimed.get("name", "")))
    check_output(name, manifest)
    parameters = _parameters(claimed, "outputs[]")
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0:
        raise Refused(BAD, "outputs[].parameters.classification: expected a number of classes")
    return Wanted(name, parameters.get("binary_data", binary) is True, classes)


def _parameters(claimed: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    found = claimed.get("parameters", {})
    if not isinstance(found, dict):
        raise Refused(BAD, f"{place}.parameters: expected an object")
    return found
