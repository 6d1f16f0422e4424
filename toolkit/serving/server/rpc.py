"""The Open Inference Protocol over gRPC."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import numpy as np

from toolkit.api.errors import ToolkitError, printable
from toolkit.serving.bundle.manifest import Manifest
from toolkit.serving.server.messages import DATA_TYPES, SERVICE, messages
from toolkit.serving.server.metrics import Metrics
from toolkit.serving.server.models import VERSION, Models, Served
from toolkit.serving.server.refusals import BAD, BUSY, FAILED, FORBIDDEN, NOT_FOUND, TOO_LARGE, UNAUTHORIZED, Refused
from toolkit.serving.server.settings import Settings
from toolkit.serving.server.tensors import (
    SERVER,
    Asked,
    Given,
    Wanted,
    check_output,
    checked_shape,
    configuration,
    given,
    metadata,
    of_bytes,
    of_numbers,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CODES: Mapping[int, grpc.StatusCode] = {
    BAD: grpc.StatusCode.INVALID_ARGUMENT,
    TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    FAILED: grpc.StatusCode.INTERNAL,
}
OPEN = frozenset({"ServerLive", "ServerReady"})
"""Calls that need no token."""
_MOST_CALLS = 64
"""Calls at a time: each may bring a whole message, and gRPC holds it before anyone can refuse it."""


def rpc_server(models: Models, settings: Settings, metrics: Metrics, ready: Callable[[], bool]) -> grpc.aio.Server:
    """A server of the protocol that listens nowhere yet."""
    largest = settings.limits.message
    server = grpc.aio.server(
        maximum_concurrent_rpcs=_MOST_CALLS,
        options=[
            ("grpc.max_receive_message_length", largest),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # two servers on one port would share its requests
        ],
    )
    server.add_generic_rpc_handlers((_Service(models, settings, metrics, ready).handlers(),))
    return server


class _Service:
    def __init__(self, models: Models, settings: Settings, metrics: Metrics, ready: Callable[[], bool]) -> None:
        self._models, self._settings, self._metrics, self._ready = models, settings, metrics, ready
        self._made = messages()

    def handlers(self) -> Any:
        calls: Mapping[str, Callable[[Any], Awaitable[Any]]] = {
            "ServerLive": self._live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._metadata,
            "ModelConfig": self._config,
            "ModelInfer": self._infer,
        }
        return grpc.method_handlers_generic_handler(SERVICE, {name: self._handler(name, calls[name]) for name in calls})

    def _handler(self, name: str, call: Callable[[Any], Awaitable[Any]]) -> Any:
        async def answered(request: Any, context: Any) -> Any:
            begun, status = time.perf_counter(), grpc.StatusCode.UNKNOWN  # what gRPC answers to any other exception
            try:
                self._check_token(name, context)
                answer = await call(request)
                status = grpc.StatusCode.OK
                return answer
            except Refused as refused:
                status = _CODES[refused.status]
                await context.abort(status, refused.message)
            except ToolkitError as error:
                status = grpc.StatusCode.INTERNAL
                await context.abort(status, error.message)
            finally:
                self._metrics.request(name, status.value[0], time.perf_counter() - begun)

        return grpc.unary_unary_rpc_method_handler(
            answered,
            request_deserializer=self._made[f"{name}Request"].FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _check_token(self, name: str, context: Any) -> None:
        sent = dict(context.invocation_metadata() or ())
        if name not in OPEN and not self._settings.allows_token(str(sent.get("authorization", ""))):
            raise Refused(UNAUTHORIZED, "expected the metadata authorization: Bearer TOKEN")

    async def _live(self, _: Any) -> Any:
        return self._made["ServerLiveResponse"](live=True)

    async def _server_ready(self, _: Any) -> Any:
        return self._made["ServerReadyResponse"](ready=self._ready())

    async def _model_ready(self, request: Any) -> Any:
        self._models.versioned(request.name, request.version)
        return self._made["ModelReadyResponse"](ready=self._ready())

    async def _server_metadata(self, _: Any) -> Any:
        return self._made["ServerMetadataResponse"](**SERVER)

    async def _metadata(self, request: Any) -> Any:
        served = self._models.versioned(request.name, request.version)
        return self._made["ModelMetadataResponse"](**metadata(served.bundle.manifest))

    async def _config(self, request: Any) -> Any:
        found = configuration(self._models.versioned(request.name, request.version))
        for tensor in (*found["input"], *found["output"]):
            tensor["data_type"] = DATA_TYPES[tensor["data_type"]]
        return self._made["ModelConfigResponse"](config=found)

    async def _infer(self, request: Any) -> Any:
        served = self._models.versioned(request.model_name, request.model_version)
        manifest = served.bundle.manifest
        asked = _asked(request, manifest, self._settings.limits.pixels)
        answers = await served.ask(list(asked.pixels))
        return self._response(request, served, [given(wanted, answers, manifest) for wanted in asked.outputs])

    def _response(self, request: Any, served: Served, outputs: Sequence[Given]) -> Any:
        response = self._made["ModelInferResponse"](model_name=served.name, model_version=VERSION, id=request.id)
        for one in outputs:
            response.outputs.add(name=one.wanted.name, datatype=one.datatype, shape=list(one.shape))
            response.raw_output_contents.append(one.raw)
        return response


def _asked(request: Any, manifest: Manifest, pixels: int) -> Asked:
    if len(request.inputs) != 1:
        raise Refused(BAD, f"inputs: expected one, got {len(request.inputs)}")
    (tensor,) = request.inputs
    shape = checked_shape(printable(tensor.name), printable(tensor.datatype), list(tensor.shape), manifest, pixels)
    return Asked(_pixels(request, tensor, shape, manifest), _outputs(request, manifest))


def _pixels(request: Any, tensor: Any, shape: Sequence[int], manifest: Manifest) -> NDArray[np.uint8]:
    if len(request.raw_input_contents) > 1:
        raise Refused(BAD, f"raw_input_contents: expected one, got {len(request.raw_input_contents)}")
    if request.raw_input_contents:
        return of_bytes(request.raw_input_contents[0], shape, manifest)
    return of_numbers(np.array(tensor.contents.uint_contents, np.uint32), shape, manifest)


def _outputs(request: Any, manifest: Manifest) -> list[Wanted]:
    for output in request.outputs:
        check_output(printable(output.name), manifest)
    wanted = [Wanted(one.name, True, max(one.parameters["classification"].int64_param, 0)) for one in request.outputs]
    return wanted or [Wanted(name, True) for name in manifest.outputs]
