"""What is refused, what is given up, and what that leaves alone."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit.serving import limits as sizes
from ragkit.serving.limits import Limits
from ragkit.serving.parts import parts
from tests.serving.conftest import Gate, client_of, running, until

pytest.importorskip("fastapi", reason="needs ragkit[serve]")
pytest.importorskip("prometheus_client", reason="needs ragkit[serve]")

DOCUMENTS = ["Otters swim."]


@pytest.fixture(scope="module")
def client(make_service: Any) -> Iterator[httpx.Client]:
    with client_of(make_service(limits=Limits(body_bytes=50_000, most_timeout_s=5, drain_s=10))) as client:
        yield client


def wrong(response: httpx.Response, status: int = 422) -> tuple[str | None, str]:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"field", "message"}
    return error["field"], error["message"]


def connection(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=20)


def nested(depth: int) -> dict[str, Any]:
    return {"n": 1} if depth == 1 else {"$not": nested(depth - 1)}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("search", {"query": ""}, "query"),
        ("search", {"query": "x" * (sizes.QUERY_CHARS + 1)}, "query"),
        ("search", {"query": "\ud800"}, "query"),
        ("search", {"query": 5}, "query"),
        ("search", {}, "query"),
        ("search", {"query": "x", "k": 0}, "k"),
        ("search", {"query": "x", "k": sizes.K + 1}, "k"),
        ("search", {"query": "x", "k": "3"}, "k"),
        ("search", {"query": "x", "path": "/etc"}, "path"),
        ("search", {"query": "x", "filter": []}, "filter"),
        ("search", {"query": "x", "filter": {"$where": 1}}, "filter"),
        ("search", {"query": "x", "filter": {"nobody": 1}}, "filter"),
        ("search", {"query": "x", "filter": {"n": {"$in": "ab"}}}, "filter"),
        ("search", {"query": "x", "filter": nested(sizes.FILTER_DEPTH + 1)}, "filter"),
        ("search", {"query": "x", "filter": {"n": {"$in": [*range(sizes.FILTER_PARTS)]}}}, "filter"),
        ("search", {"query": "x", "filter": {"n": "y" * (sizes.FILTER_CHARS + 1)}}, "filter"),
        ("search", {"query": "x", "filter": {"n": "\udfff"}}, "filter"),
        ("search", {"query": "x", "filter": {"n": 2**70}}, "filter"),
        ("search", {"query": "x", "timeout_s": 0}, "timeout_s"),
        ("ground", {"query": "x", "max_tokens": 0}, "max_tokens"),
        ("ask", {"query": "x", "abstain_below": 2}, "abstain_below"),
        ("ask", {"query": "x", "model": "openai:other"}, "model"),
        ("rerank", {"query": "x", "documents": []}, "documents"),
        ("rerank", {"query": "x", "documents": ["y"] * (sizes.DOCUMENTS + 1)}, "documents"),
        ("rerank", {"query": "x", "documents": ["y"], "top_n": 0}, "top_n"),
        ("rerank", {"query": "x", "documents": ["y"], "model": "/models/other"}, "model"),
        ("rerank", {"query": "x", "documents": ["y"], "model": "http://example.com/m"}, "model"),
        ("rerank", {"query": "x", "documents": ["y"], "rank_fields": ["title"]}, "rank_fields"),
        ("rerank", {"query": "x", "documents": [{"title": "no text"}]}, "documents.0.text"),
        ("rerank", {"query": "x", "documents": ["y", {"text": "y", "title": 5}]}, "documents.1.title"),
        ("rerank", {"query": "x", "documents": ["y", 5]}, "documents.1"),
        ("rerank", {"query": "x", "documents": [{"text": "y", "own": ["\udfff"]}]}, "documents.0"),
        ("rerank", {"query": "x", "documents": [{"text": "y", "own": nested(sizes.FIELD_DEPTH + 1)}]}, "documents.0"),
        ("rerank", {"query": "x", "documents": [{"text": "y", "own": nested(400)}]}, "documents.0"),
        ("prune", {"query": "x", "documents": [{"text": "y", "own": {"\ud800": 1}}]}, "documents.0"),
        ("prune", {"query": "x", "documents": ["y"], "pruner": "other"}, "pruner"),
    ],
)
def test_what_is_wrong_is_named(client: httpx.Client, path: str, body: Any, field: str) -> None:
    response = client.post(f"/v1/{path}", content=json.dumps(body), headers={"Content-Type": "application/json"})
    named, message = wrong(response)
    assert named == field
    assert message.startswith((field, "filter"))


@pytest.mark.parametrize(
    "body", [b"{", b"", b"\xff\xfe", b"[" * 20_000, b'{"query": NaN1}', b'{"query": "\xff"}', b'{"k": ' + b"9" * 5000 + b"}"]
)
def test_a_body_that_is_no_json(client: httpx.Client, body: bytes) -> None:
    response = client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert "JSON" in wrong(response, response.status_code)[1]


@pytest.mark.parametrize("body", ["[]", "null", '"x"', "5"])
def test_a_body_that_is_no_object(client: httpx.Client, body: str) -> None:
    response = client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert wrong(response) == ("body", "body: must be a JSON object, as /openapi.json describes it")


@pytest.mark.parametrize("kind", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json"])
def test_a_body_that_is_not_said_to_be_json(client: httpx.Client, kind: str | None) -> None:
    """What curl sends with -d and nothing else, say; a page of another origin can send no other without being asked first."""
    response = client.post("/v1/search", content='{"query": "x"}', headers={} if kind is None else {"Content-Type": kind})
    field, message = wrong(response, 415)
    assert field == "Content-Type"
    assert "`Content-Type: application/json`" in message


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON ; charset=utf-8", "application/vnd.api+json"])
def test_a_body_that_is_said_to_be_json(client: httpx.Client, kind: str) -> None:
    assert client.post("/v1/search", content='{"query": "x"}', headers={"Content-Type": kind}).status_code == 200
    wrong(client.post("/v1/search", content="[]", headers={"Content-Type": kind}), 422)


def test_another_method_and_another_path(client: httpx.Client) -> None:
    other = client.get("/v1/search")
    assert "POST" in wrong(other, 405)[1]
    assert other.headers["allow"] == "POST"
    for path in ("/v1/search/", "/v1", "/", "/docs"):  # and is not sent elsewhere, with its key, by way of http
        wrong(client.post(path, json={"query": "x"}), 404)


def test_many_unknown_fields_are_one_error(client: httpx.Client) -> None:
    """Each by itself, they would hold up the service for seconds."""
    body = {"query": "x", **{f"f{n}": 1 for n in range(2000)}}
    for path, known in (("search", "query, timeout_s, k, filter"), ("prune", "query, timeout_s, documents")):
        assert wrong(client.post(f"/v1/{path}", json=body)) == (
            "body",
            f"body: has fields that it does not take; it takes {known}",
        )


def test_the_name_of_a_field_is_not_sent_back_whatever_its_length(client: httpx.Client) -> None:
    field, message = wrong(client.post("/v1/search", json={"query": "x", "y" * 40_000: 1}))
    assert field is not None
    assert len(field) + len(message) < 1000


JSON: Any = st.recursive(
    st.none() | st.integers(0, 9) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=12,
)


def levels(value: Any, level: int = 1) -> list[tuple[Any, int]]:
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return [(value, level), *(found for part in inner for found in levels(part, level + 1))]


@given(JSON)
def test_the_parts_of_json(value: Any) -> None:
    assert [*parts(value)] == levels(value)


def test_a_body_that_is_too_large_is_not_read(client: httpx.Client) -> None:
    document = "y" * 60_000
    body = json.dumps({"query": "x", "documents": [document]}).encode()
    declared = client.post("/v1/rerank", content=body, headers={"Content-Type": "application/json"})
    assert "50000 bytes" in wrong(declared, 413)[1]
    chunks = (body[at : at + 1000] for at in range(0, len(body), 1000))
    chunked = client.post("/v1/rerank", content=chunks, headers={"Content-Type": "application/json"})
    wrong(chunked, 413)


def test_an_endless_body_is_cut_off(client: httpx.Client) -> None:
    """Without a length, and without an end: the answer comes while the caller is still sending."""
    with connection(client) as line:
        line.sendall(b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(60):
            line.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come(make_service: Any) -> None:
    with client_of(make_service(limits=Limits(body_s=0.05))) as client, connection(client) as line:
        line.sendall(b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        assert line.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_full_queue_is_answered_429(make_service: Any, gate: Gate) -> None:
    service = make_service(gate=gate, limits=Limits(waiting=1, drain_s=10))
    with client_of(service) as client, ThreadPoolExecutor(8) as pool:

        def rerank(query: str) -> httpx.Response:
            return client.post("/v1/rerank", json={"query": query, "documents": DOCUMENTS})

        blocked = pool.submit(rerank, "blocked")
        assert gate.entered.wait(20)
        waiting = pool.submit(rerank, "one")
        [batcher] = [one for one in service._batchers if len(one) or one._driver is not None]
        until(lambda: len(batcher))
        refused = rerank("two")
        assert wrong(refused, 429)[0] is None
        assert int(refused.headers["retry-after"]) >= 1
        gate.open.set()
        assert blocked.result().status_code == waiting.result().status_code == 200
        assert rerank("three").status_code == 200
    assert service.pipeline.stages[0].batches[-3:] == [["blocked"], ["one"], ["three"]]


def test_too_many_requests_at_once(make_service: Any, gate: Gate) -> None:
    with client_of(make_service(gate=gate, limits=Limits(in_flight=1, drain_s=10))) as client, ThreadPoolExecutor(1) as pool:
        body = {"query": "blocked", "documents": DOCUMENTS}
        blocked = pool.submit(client.post, "/v1/rerank", json=body)
        assert gate.entered.wait(20)
        wrong(client.post("/v1/search", json={"query": "x"}), 429)
        assert [client.get(path).status_code for path in ("/health", "/ready", "/metrics")] == [200, 200, 200]
        gate.open.set()
        assert blocked.result().status_code == 200
        assert client.post("/v1/search", json={"query": "x"}).status_code == 200


def test_a_question_that_fails_fails_alone(make_service: Any, gate: Gate) -> None:
    service = make_service(gate=gate)
    with client_of(service) as client, ThreadPoolExecutor(4) as pool:

        def rerank(query: str) -> int:
            return client.post("/v1/rerank", json={"query": query, "documents": DOCUMENTS}).status_code

        blocked = pool.submit(rerank, "blocked")
        assert gate.entered.wait(20)
        others = [pool.submit(rerank, query) for query in ("good", "poison", "fine")]
        batcher = service.pipeline.batchers[0]
        until(lambda: len(batcher) == 3)
        gate.open.set()
        assert [one.result() for one in (blocked, *others)] == [200, 200, 500, 200]
    assert sorted(service.pipeline.stages[0].batches[2]) == ["fine", "good", "poison"]


def test_deadlines(make_service: Any, gate: Gate) -> None:
    service = make_service(gate=gate)
    with client_of(service) as client, ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(client.post, "/v1/rerank", json={"query": "blocked", "documents": DOCUMENTS})
        assert gate.entered.wait(20)
        for in_body, header in ((0.05, None), (None, "0.05"), (30, "0.05"), (0.05, "30")):
            body = {"query": "late", "documents": DOCUMENTS, **({} if in_body is None else {"timeout_s": in_body})}
            late = client.post("/v1/rerank", json=body, headers={} if header is None else {"X-Timeout-S": header})
            # 504, or 429 at once: what runs has taken longer than that already
            assert (late.status_code, wrong(late, late.status_code)[0]) in {(504, "timeout_s"), (429, None)}
        gate.open.set()
        assert blocked.result().status_code == 200
        assert client.post("/v1/rerank", json={"query": "after", "documents": DOCUMENTS}).status_code == 200
    assert ["late"] not in service.pipeline.stages[0].batches


def test_the_service_has_the_last_word_on_deadlines(make_service: Any, gate: Gate) -> None:
    with client_of(make_service(gate=gate, limits=Limits(most_timeout_s=0.05))) as client:
        late = client.post("/v1/rerank", json={"query": "blocked", "documents": DOCUMENTS, "timeout_s": 1e9})
        assert "0.05 s" in wrong(late, 504)[1]
        gate.open.set()


def test_what_fails_before_a_stream_begins_has_a_status(make_service: Any, gate: Gate) -> None:
    """As without `stream`: whoever is to come again, or looks at statuses alone, sees it."""
    with client_of(make_service(gate=gate)) as client:

        def ask(query: str, **more: Any) -> httpx.Response:
            return client.post("/v1/ask", json={"query": query, "stream": True, **more})

        assert wrong(ask("swim", filter={"nobody": 1}))[0] == "filter"
        assert wrong(ask("poison swim"), 500)[0] is None
        assert wrong(ask("blocked otters", timeout_s=0.2), 504)[0] == "timeout_s"
        gate.open.set()
        assert ask("otters").headers["content-type"].startswith("text/event-stream")
        assert 'ragkit_requests_total{route="/v1/ask",status="504"} 1.0' in client.get("/metrics").text


def test_a_deadline_in_a_stream_is_its_last_event(make_service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ragkit.serving import app

    async def stuck(*_: Any) -> Any:
        yield "word"
        await asyncio.Event().wait()

    monkeypatch.setattr(app, "answering", stuck)
    with client_of(make_service()) as client:
        late = client.post("/v1/ask", json={"query": "otters", "stream": True, "timeout_s": 0.2})
    assert late.status_code == 200
    _, last, end = late.text.split("\n\n")
    name, data = last.split("\n")
    assert (name, end) == ("event: error", "")
    assert json.loads(data.removeprefix("data: "))["error"]["field"] == "timeout_s"


@pytest.mark.parametrize("header", ["0", "-1", "soon", "inf", "nan"])
def test_a_deadline_must_be_a_number(client: httpx.Client, header: str) -> None:
    assert wrong(client.post("/v1/search", json={"query": "x"}, headers={"X-Timeout-S": header}))[0] == "X-Timeout-S"


def test_work_for_a_caller_who_has_gone_never_begins(make_service: Any, gate: Gate) -> None:
    service = make_service(gate=gate)
    batcher = service.pipeline.batchers[0]
    with client_of(service) as client, ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(client.post, "/v1/rerank", json={"query": "blocked", "documents": DOCUMENTS})
        assert gate.entered.wait(20)
        body = json.dumps({"query": "gone", "documents": DOCUMENTS}).encode()
        fields = ("Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}")
        head = "\r\n".join(("POST /v1/rerank HTTP/1.1", *fields, "", ""))
        with connection(client) as line:
            line.sendall(head.encode() + body)
            until(lambda: len(batcher))
        until(lambda: not len(batcher))  # the closed connection takes the question out of the queue
        gate.open.set()
        assert blocked.result().status_code == 200
        assert 'ragkit_requests_total{route="/v1/rerank",status="499"} 1.0' in client.get("/metrics").text
    assert ["gone"] not in service.pipeline.stages[0].batches


def test_a_model_stops_when_its_reader_goes(make_service: Any) -> None:
    from langchain_core.runnables import RunnableGenerator

    stopped = threading.Event()

    async def write(prompts: Any) -> Any:
        async for _ in prompts:
            pass
        try:
            for n in range(10_000):
                yield f"Word {n}. "
                await asyncio.sleep(0.001)
        finally:
            stopped.set()

    with client_of(make_service(llm=RunnableGenerator(write))) as client:
        with client.stream("POST", "/v1/ask", json={"query": "Who swim in rivers?", "stream": True}) as response:
            for line in response.iter_lines():
                if line == "event: token":
                    break
        assert stopped.wait(20)


def test_what_would_be_late_is_told_so_at_once(make_service: Any, gate: Gate) -> None:
    service = make_service(gate=gate)
    with client_of(service) as client, ThreadPoolExecutor(4) as pool:

        def rerank(query: str, **more: Any) -> httpx.Response:
            return client.post("/v1/rerank", json={"query": query, "documents": DOCUMENTS, **more})

        assert rerank("first").status_code == 200
        [batcher] = [one for one in service._batchers if one._queue.pace.known]
        blocked = pool.submit(rerank, "blocked")
        assert gate.entered.wait(20)
        batcher._queue.pace.add(1, 1, 3600.0)
        late = rerank("late", timeout_s=20)
        assert "timeout_s" in wrong(late, 429)[1]
        assert late.headers["retry-after"] == "60"
        stream = client.post("/v1/ask", json={"query": "otters", "stream": True, "timeout_s": 20})
        assert "would not be done in time" in wrong(stream, 429)[1]
        assert stream.headers["retry-after"] == "60"
        gate.open.set()
        assert blocked.result().status_code == 200
        metrics = client.get("/metrics").text
        assert 'ragkit_refused_total{model="OverlapReranker",why="late"}' in metrics
        assert 'ragkit_expected_wait_seconds{model="OverlapReranker"} 0.0' in metrics
    assert ["late"] not in service.pipeline.stages[0].batches


async def test_a_stream_that_is_given_up_is_closed_at_once(make_service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when it is collected: what it holds would outlive the request."""
    from ragkit.serving import app

    closed: list[bool] = []

    async def endless(*_: Any) -> Any:
        try:
            while True:
                yield "word"
        finally:
            closed.append(True)

    made: list[Any] = []  # so that nothing is collected

    def remembered(*asked: Any) -> Any:
        made.append(endless(*asked))
        return made[-1]

    monkeypatch.setattr(app, "answering", remembered)
    trace = SimpleNamespace(stage=lambda *_: None)
    request: Any = SimpleNamespace(state=SimpleNamespace(trace=trace))
    events = app._events(make_service(), None, None, request)  # type: ignore[arg-type]
    assert (await anext(events)).name == "token"
    await events.aclose()
    assert closed == [True]


def test_only_this_machine_without_keys(make_service: Any) -> None:
    with running(make_service(), local_only=True) as url, httpx.Client(base_url=url) as client:
        assert client.post("/v1/search", json={"query": "x"}).status_code == 200
        rebound = client.post("/v1/search", json={"query": "x"}, headers={"Host": "attacker.example"})
        wrong(rebound, 403)
        for host in ("localhost", "127.0.0.1:80", "[::1]:9"):
            assert client.get("/health", headers={"Host": host}).status_code == 200
