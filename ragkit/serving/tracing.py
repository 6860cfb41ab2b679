"""OpenTelemetry spans for requests and stages; nothing where it is not installed, or no exporter is set up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Any

from ragkit.errors import InputError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_EXPORTERS = "opentelemetry_traces_exporter"


class Tracing:
    """Makes spans with a tracer; with None it does nothing. No span holds text of a question or a document."""

    def __init__(self, tracer: Tracer | None = None, close: Callable[[], None] = lambda: None) -> None:
        """`close` sends what is still to be sent."""
        self._tracer, self.close = tracer, close

    @contextmanager
    def request(self, method: str, route: str, headers: Mapping[str, str]) -> Iterator[Request]:
        """The span of a request, below the one that its `traceparent` names."""
        if self._tracer is None:
            yield Request(None, None)
            return
        from opentelemetry import propagate, trace

        context = propagate.extract(headers)
        attributes = {"http.request.method": method, "http.route": route}
        with self._tracer.start_as_current_span(
            f"{method} {route}", context, trace.SpanKind.SERVER, attributes, record_exception=False
        ) as span:
            yield Request(self._tracer, span)


class Request:
    """A request's span, or none."""

    def __init__(self, tracer: Tracer | None, span: Any) -> None:
        self._tracer, self._span = tracer, span

    def answered(self, status: int, request_id: str) -> None:
        """What became of it."""
        if self._span is None:
            return
        from opentelemetry.trace import StatusCode

        self._span.set_attributes({"http.response.status_code": status, "ragkit.request_id": request_id})
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)

    def begin(self, name: str, parent: Any) -> Any:
        """The span of a stage, below another stage's or the request's; None without tracing."""
        if self._tracer is None:
            return None
        from opentelemetry.trace import set_span_in_context

        return self._tracer.start_span(name, set_span_in_context(self._span if parent is None else parent))

    def end(self, span: Any, error: BaseException | None) -> None:
        """The stage is done, or has failed."""
        if span is None:
            return
        if error is not None:
            from opentelemetry.trace import StatusCode

            # its class alone: a message could quote a question
            span.set_status(StatusCode.ERROR, type(error).__name__)
        span.end()


def from_environment() -> Tracing:
    """Tracing as the standard OTEL_* variables say: none unless one of them names an exporter or an endpoint.

    OTEL_TRACES_EXPORTER may name any exporter that is installed ("otlp" is meant where an endpoint alone is set); service name,
    resource, sampler, batches, headers and endpoint are read by OpenTelemetry itself. Raises `InputError` for an exporter that
    is not installed.
    """
    environment = os.environ
    endpoint = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    wanted = environment.get("OTEL_TRACES_EXPORTER") or ("otlp" if endpoint else "none")
    if wanted == "none" or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Tracing()
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        return Tracing()
    provider = TracerProvider(resource=Resource.create({} if _named() else {"service.name": "ragkit"}))
    for name in wanted.split(","):
        provider.add_span_processor(BatchSpanProcessor(_exporter(name.strip())))
    return Tracing(provider.get_tracer("ragkit.serving", version("ragkit")), provider.shutdown)


def _named() -> bool:
    return "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")


def _exporter(name: str) -> Any:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    grpc = protocol is not None and protocol.startswith("grpc")
    choices = [name] if name != "otlp" else ["otlp_proto_grpc" if grpc else "otlp_proto_http"]
    for choice in choices:
        for found in entry_points(group=_EXPORTERS, name=choice):
            return found.load()()
    raise InputError(
        f"OTEL_TRACES_EXPORTER: no exporter {choices[0]!r} is installed; pip install opentelemetry-exporter-otlp-proto-http"
    )
