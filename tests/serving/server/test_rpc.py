"""What is counted of calls over gRPC; what they answer is tested in `test_protocol`."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from toolkit.serving.server.metrics import Metrics
from toolkit.serving.server.rpc import _Service
from toolkit.serving.server.settings import Settings


def test_a_call_that_ends_in_an_unexpected_error_is_not_counted_as_answered() -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    models: Any = SimpleNamespace(versioned=fail)
    metrics = Metrics()
    service = _Service(models, Settings(), metrics, lambda: True)
    context: Any = SimpleNamespace(invocation_metadata=tuple)
    handler = service._handler("ModelReady", service._model_ready)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(handler.unary_unary(SimpleNamespace(name="toy", version=""), context))
    code = grpc.StatusCode.UNKNOWN.value[0]
    assert f'toolkit_requests_total{{route="ModelReady",status="{code}"}} 1.0' in metrics.text().decode()
