"""Spans of requests and stages, as an exporter gets them."""

from __future__ import annotations

from typing import Any

import pytest

from ragkit import InputError
from ragkit.serving.tracing import Tracing, from_environment
from tests.serving.conftest import call

pytest.importorskip("fastapi", reason="needs ragkit[serve]")
pytest.importorskip("prometheus_client", reason="needs ragkit[serve]")
trace = pytest.importorskip("opentelemetry.sdk.trace", reason="needs opentelemetry-sdk")


@pytest.fixture
def exporter() -> Any:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: Any) -> Tracing:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = trace.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider.get_tracer("test"))


def test_a_span_per_request_and_stage(make_service: Any, tracing: Tracing, exporter: Any) -> None:
    [response] = call(make_service(), ("/v1/ground", {"query": "otters of a secret kind"}), tracing=tracing)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"POST /v1/ground", "Pipeline.ground", "HybridRetriever", "OverlapReranker", "ExtractivePruner"}
    above = {span.context.span_id: name for name, span in spans.items()}
    parents = {name: above.get(span.parent.span_id) if span.parent else None for name, span in spans.items()}
    assert parents == {
        "POST /v1/ground": None,
        "Pipeline.ground": "POST /v1/ground",
        "HybridRetriever": "Pipeline.ground",
        "OverlapReranker": "Pipeline.ground",
        "ExtractivePruner": "Pipeline.ground",
    }
    assert dict(spans["POST /v1/ground"].attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/ground",
        "http.response.status_code": 200,
        "ragkit.request_id": response.headers["x-request-id"],
    }
    assert "secret" not in "".join(span.to_json() for span in spans.values())


def test_failures_are_marked_and_not_quoted(make_service: Any, tracing: Tracing, exporter: Any) -> None:
    from opentelemetry.trace import StatusCode

    call(make_service(), ("/v1/rerank", {"query": "poison", "documents": ["x"]}), tracing=tracing)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {name: span.status.status_code for name, span in spans.items()} == {
        "POST /v1/rerank": StatusCode.ERROR,
        "OverlapReranker": StatusCode.ERROR,
    }
    assert "secret" not in "".join(span.to_json() for span in spans.values())


def test_the_caller_may_have_a_trace_already(make_service: Any, tracing: Tracing, exporter: Any) -> None:
    import asyncio

    import httpx

    from ragkit.serving.app import create_app

    async def ask() -> None:
        transport = httpx.ASGITransport(app=create_app(make_service(), tracing))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await client.get("/health", headers={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"})

    asyncio.run(ask())
    [span] = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == "ab" * 16
    assert f"{span.parent.span_id:016x}" == "cd" * 8


@pytest.mark.parametrize(
    ("variables", "on"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True),
    ],
)
def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], on: bool) -> None:
    if "ENDPOINT" in "".join(variables):
        pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the OTLP exporter")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (from_environment()._tracer is not None) == on


def test_an_exporter_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "nonsense")
    with pytest.raises(InputError, match="OTEL_TRACES_EXPORTER: no exporter 'nonsense'"):
        from_environment()


def test_without_opentelemetry_there_is_nothing(make_service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    [response] = call(make_service(), ("/v1/ground", {"query": "otters"}), tracing=from_environment())
    assert response.status_code == 200
