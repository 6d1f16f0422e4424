"""What Prometheus reads: requests by status, sizes of batches, and how long inputs waited and batches took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """All numbers of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("model",)
        self.requests = Counter(
            "toolkit_requests", "Requests by route and status", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "toolkit_request_seconds", "Time to answer", ("route",), buckets=_SECONDS, registry=self.registry
        )
        self.sizes = Histogram("toolkit_batch_size", "Inputs a batch", labels, buckets=_SIZES, registry=self.registry)
        self.queued = Histogram(
            "toolkit_queue_seconds", "Time inputs waited", labels, buckets=_SECONDS, registry=self.registry
        )
        self.computed = Histogram(
            "toolkit_compute_seconds", "Time batches took", labels, buckets=_SECONDS, registry=self.registry
        )
        self.waiting = Gauge("toolkit_waiting", "Inputs that wait for a batch", labels, registry=self.registry)
        self.listening = Gauge("toolkit_listeners", "Requests that listen to a source", registry=self.registry)
        self.reloads = Counter("toolkit_reloads", "Bundles that were replaced", labels, registry=self.registry)

    def of(self, model: str, waiting: Callable[[], float]) -> ModelMetrics:
        """Those of the batches of one model, whose inputs that wait are counted by `waiting`."""
        self.waiting.labels(model).set_function(waiting)
        return ModelMetrics(self, model)

    def request(self, route: str, status: int, seconds: float) -> None:
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


@dataclass(frozen=True)
class ModelMetrics:
    """Those of one model."""

    metrics: Metrics
    model: str

    def batch(self, size: int, waited: Sequence[float], took: float) -> None:
        self.metrics.sizes.labels(self.model).observe(size)
        self.metrics.computed.labels(self.model).observe(took)
        queued = self.metrics.queued.labels(self.model)
        for seconds in waited:
            queued.observe(seconds)
