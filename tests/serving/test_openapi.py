"""What the OpenAPI document promises is kept, whatever is sent: schemathesis, a bounded number of examples."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.serving.conftest import running

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
pytest.importorskip("fastapi", reason="needs ragkit[serve]")
pytest.importorskip("prometheus_client", reason="needs ragkit[serve]")

PATHS = ["/health", "/ready", "/metrics", "/v1/search", "/v1/rerank", "/v2/rerank", "/v1/prune", "/v1/ground", "/v1/ask"]


def meant(case: Any, response: Any) -> list[Any]:
    """Checks that do not apply to what the schema cannot say: a deadline is too short, a field or a model is not there."""
    if response.status_code == 504 and case.body.get("timeout_s") is not None:
        return [schemathesis.checks.not_a_server_error]
    if response.status_code == 422 and response.json()["error"]["field"] in ("filter", "model"):
        return [schemathesis.checks.CHECKS.get_one("positive_data_acceptance")]
    return []


@pytest.fixture(scope="module")
def address(make_service: Any) -> Any:
    with running(make_service()) as url:
        yield url


@pytest.fixture(scope="module")
def schema(address: str) -> Any:
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


def test_every_endpoint_is_described(schema: Any) -> None:
    assert sorted(schema.raw_schema["paths"]) == sorted(PATHS)
    for path in schema.raw_schema["paths"].values():
        for operation in path.values():
            assert {"200", "401", "413", "415", "422", "429", "500", "503", "504"} <= set(operation["responses"])


@pytest.mark.parametrize("path", PATHS)
def test_no_request_breaks_it(schema: Any, address: str, path: str) -> None:
    [(method, _)] = schema.raw_schema["paths"][path].items()
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    seen: list[int] = []
    for mode in modes if method == "post" else modes[:1]:
        cases = schema[path][method].as_strategy(generation_mode=mode)

        @settings(max_examples=6, derandomize=True, phases=[Phase.generate], suppress_health_check=[*HealthCheck])
        @given(case=cases)
        def conforms(case: Any) -> None:
            response = case.call(base_url=address)
            seen.append(response.status_code)
            case.validate_response(response, excluded_checks=meant(case, response))

        conforms()
    assert 200 in seen
