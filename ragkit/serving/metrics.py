"""What the service counts and times, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector, generate_latest

from ragkit.serving.batcher import Batch, Batcher
from ragkit.serving.queueing import Why

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """One registry per service. No label has a value that a caller chooses."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter("ragkit_requests", "Requests answered.", ["route", "status"], registry=registry)
        self._seconds = Histogram(
            "ragkit_request_seconds",
            "From a request's first byte to its answer's last.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge("ragkit_requests_in_flight", "Requests under way.", registry=registry)
        self._stages = Histogram(
            "ragkit_stage_seconds", "One question in one stage.", ["stage"], buckets=_SECONDS, registry=registry
        )
        self._batch_items = Histogram(
            "ragkit_batch_items", "Questions that went through a model together.", ["model"], buckets=_ITEMS, registry=registry
        )
        self._batch_seconds = Histogram(
            "ragkit_batch_seconds", "One batch in a model.", ["model"], buckets=_SECONDS, registry=registry
        )
        self._waited = Histogram(
            "ragkit_wait_seconds", "How long a question waited for its batch.", ["model"], buckets=_SECONDS, registry=registry
        )
        self._waiting = Gauge("ragkit_waiting", "Questions that wait for a model.", ["model"], registry=registry)
        self._expected = Gauge(
            "ragkit_expected_wait_seconds",
            "When a model will be done with all that it has, by estimate.",
            ["model"],
            registry=registry,
        )
        self._refused = Counter(
            "ragkit_refused",
            "Questions that were not let wait for a model, or no longer: full, late, or unsure (no pace is known yet).",
            ["model", "why"],
            registry=registry,
        )
        self._passages = Gauge("ragkit_passages", "Passages of the index.", registry=registry)
        self._moves = Counter("ragkit_index_changes", "How often a new state of the index was taken up.", registry=registry)

    def begins(self) -> None:
        """A request has come."""
        self._in_flight.inc()

    def ends(self, route: str, status: int, seconds: float) -> None:
        """It has been answered; 499 is a caller who went before that."""
        self._in_flight.dec()
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        """A question has been through a stage."""
        self._stages.labels(name).observe(seconds)

    def batches(self, model: str) -> Callable[[Batch], None]:
        """What a batcher tells of its batches."""

        def told(batch: Batch) -> None:
            self._batch_items.labels(model).observe(batch.items)
            self._batch_seconds.labels(model).observe(batch.seconds)
            for seconds in batch.waited:
                self._waited.labels(model).observe(seconds)

        return told

    def refusals(self, model: str) -> Callable[[Why], None]:
        """What a batcher tells of what it refuses."""
        return lambda why: self._refused.labels(model, why).inc()

    def watch(self, model: str, batcher: Batcher[Any, Any]) -> None:
        """Look at a queue whenever somebody reads the metrics."""
        self._waiting.labels(model).set_function(lambda: float(len(batcher)))
        self._expected.labels(model).set_function(batcher.expected)

    def index(self, passages: int, *, moved: bool) -> None:
        """The size of the index, and whether it has just changed."""
        self._passages.set(passages)
        if moved:
            self._moves.inc()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)
