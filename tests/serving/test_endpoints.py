"""What each endpoint answers, over a real port; and that clients of Cohere and Jina find what they expect."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda

from ragkit.chains.confidence import shipped
from ragkit.rerankers.duplicates import DuplicateReranker
from ragkit.serving.logs import NamesRequest
from tests.serving.conftest import TEXTS, OverlapReranker, call, client_of, running, words

pytest.importorskip("fastapi", reason="needs ragkit[serve]")
pytest.importorskip("prometheus_client", reason="needs ragkit[serve]")


@pytest.fixture(scope="module")
def url(make_service: Any) -> Iterator[str]:
    with running(make_service(aliases=["rerank-v3.5"])) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client


def by_overlap(query: str, documents: list[str]) -> list[tuple[int, float]]:
    """Straight on: the share of the question's words, ties in order."""
    scores = [len(words(query) & words(text)) / len(words(query)) for text in documents]
    return sorted(enumerate(scores), key=lambda pair: -pair[1])


QUERY, TEXT = "Which animals swim in the sea?", [text for text, _ in TEXTS]


def test_cohere_client_v2(url: str) -> None:
    cohere = pytest.importorskip("cohere")
    with httpx.Client() as http:
        client = cohere.ClientV2("any", base_url=url, httpx_client=http)
        found = client.rerank(model="ragkit", query=QUERY, documents=TEXT, top_n=3)
    assert [(one.index, one.relevance_score) for one in found.results] == by_overlap(QUERY, TEXT)[:3]
    assert found.id
    assert found.meta.api_version.version == "2"


def test_cohere_client_v1(url: str) -> None:
    cohere = pytest.importorskip("cohere")
    with httpx.Client() as http:
        client = cohere.Client("any", base_url=url, httpx_client=http)
        objects = [{"text": text, "colour": "grey"} for text in TEXT]
        found = client.rerank(model="rerank-v3.5", query=QUERY, documents=objects, return_documents=True)
        bare = client.rerank(query=QUERY, documents=TEXT, return_documents=False)
        with pytest.raises(cohere.UnprocessableEntityError) as refused:
            client.rerank(model="../../etc/passwd", query=QUERY, documents=TEXT)
    assert [(one.index, one.relevance_score) for one in found.results] == by_overlap(QUERY, TEXT)
    assert [one.document.text for one in found.results] == [TEXT[n] for n, _ in by_overlap(QUERY, TEXT)]
    assert found.results[0].document.colour == "grey"
    assert all(one.document is None for one in bare.results)
    assert refused.value.body["error"]["field"] == "model"


def test_jina_client(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("langchain_community.document_compressors.jina_rerank")
    monkeypatch.setattr(module, "JINA_API_URL", f"{url}/v1/rerank")
    client = module.JinaRerank(jina_api_key="any", model="ragkit", top_n=2)
    try:
        found = client.rerank(TEXT, QUERY)
    finally:
        client.session.close()
    assert [(one["index"], one["relevance_score"]) for one in found] == by_overlap(QUERY, TEXT)[:2]


def test_rerank_as_jina_documents_it(client: httpx.Client) -> None:
    found = client.post("/v1/rerank", json={"model": "ragkit", "query": "boats", "documents": TEXT, "truncation": True}).json()
    assert found["results"][0] == {"index": 2, "relevance_score": 1.0, "document": {"text": TEXT[2]}}
    assert found["model"] == "ragkit"
    assert found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"] > 0
    # the same document twice is two documents
    twice = client.post("/v2/rerank", json={"query": "boats", "documents": [TEXT[0], TEXT[2], TEXT[2]]}).json()
    assert [one["index"] for one in twice["results"]] == [1, 2, 0]


def test_rerank_is_of_a_stage_that_scores(make_service: Any) -> None:
    """What moves duplicates behind the rest, as ragkit's default pipeline does for any language, is no reranker for callers."""
    asked = ("/v1/rerank", {"query": QUERY, "documents": TEXT})
    [found] = call(make_service(stages=[DuplicateReranker(), OverlapReranker(batches=[])]), asked)
    ranked = [(one["index"], one["relevance_score"]) for one in found.json()["results"]]
    assert ranked == by_overlap(QUERY, TEXT)
    [absent] = call(make_service(stages=[DuplicateReranker()]), asked)
    assert absent.status_code == 404


def test_search(client: httpx.Client) -> None:
    found = client.post("/v1/search", json={"query": "boats float", "k": 2}).json()
    assert found["hits"][0]["id"] == "d2"
    assert len(found["hits"]) == 2
    assert found["hits"][0]["metadata"] == {"tenant": "b", "n": 2}
    only = client.post("/v1/search", json={"query": "swim", "filter": {"tenant": "b"}}).json()
    assert {hit["id"] for hit in only["hits"]} == {"d2", "d3"}


def test_prune_gives_exact_slices(client: httpx.Client) -> None:
    texts = ["Otters swim in rivers. Lamps are bright.", "Nothing of the kind.", "Who swims? Otters swim."]
    found = client.post("/v1/prune", json={"query": "Otters swim", "documents": texts}).json()["results"]
    assert [one["index"] for one in found] == [0, 1, 2]
    for one, text in zip(found, texts, strict=True):
        assert "".join(text[start:end] for start, end in one["spans"]) == one["text"]
        assert " ".join(text[s["start"] : s["end"]] for s in one["sentences"]) == text
        assert " ".join(text[s["start"] : s["end"]] for s in one["sentences"] if s["kept"]) == one["text"]
    assert found[0]["text"] == "Otters swim in rivers."
    assert found[1]["text"] == ""


def test_ground(client: httpx.Client) -> None:
    asked = {"query": "Who swim in rivers?", "k": 2}
    plain = client.post("/v1/ground", json=asked).json()
    assert plain["passages"][0]["id"] == "d0"
    assert plain["text"].startswith("[1] ")
    assert plain["candidates"] is None
    assert [stage["stage"] for stage in plain["trace"]] == ["hybrid", "rerank", "prune"]
    assert {one["text"] for one in plain["citations"]} <= {s for t in TEXT for s in (t.split(". ")[0] + ".", t.split(". ")[1])}
    shown = client.post("/v1/ground", json={**asked, "explain": True, "max_tokens": 10}).json()
    assert {one["id"] for one in shown["candidates"]} == {"d0", "d1", "d2", "d3"}
    assert shown["tokens"]["kept"] <= 10


def test_ask_without_a_model(client: httpx.Client) -> None:
    found = client.post("/v1/ask", json={"query": "Who swim in rivers?"}).json()
    assert found["answer"].startswith("Otters swim in rivers. [1]")
    assert found["citations"][0]["text"] == "Otters swim in rivers."
    assert not found["abstained"]


def test_the_markers_of_who_abstains_are_explained(make_service: Any) -> None:
    """Nothing is cited, as nothing bears an answer out: what [n] is stands with the passages to look at."""
    service = make_service()
    service.calibration = shipped()
    asked = {"query": "Who swim in rivers?", "abstain_below": 1}
    [response, scant, answered] = call(
        service, ("/v1/ask", asked), ("/v1/ask", {**asked, "max_tokens": 1}), ("/v1/ask", {**asked, "abstain_below": 0})
    )
    found = response.json()
    assert found["abstained"]
    markers = [int(n) for n in re.findall(r"\[(\d+)\]", found["answer"])]
    named = {near["n"]: near for near in found["nearest"] if near["n"] is not None}
    assert len(markers) > 0
    assert {*named} == {*markers}
    for passage in found["passages"]:
        assert named[passage["n"]]["id"] == passage["id"]
        assert passage["text"] in named[passage["n"]]["text"]
    # and where no passage is shown at all there still is where to look
    assert (scant.json()["abstained"], scant.json()["passages"]) == (True, [])
    assert [near["n"] for near in scant.json()["nearest"]] == [None] * 3
    assert (answered.json()["abstained"], answered.json()["nearest"]) == (False, [])


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    assert response.headers["content-type"].startswith("text/event-stream")
    parts = [part.split("\n") for part in response.text.strip("\n").split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]


def test_ask_as_events(client: httpx.Client) -> None:
    asked = {"query": "Who swim in rivers?"}
    found = events(client.post("/v1/ask", json={**asked, "stream": True}))
    assert [name for name, _ in found] == ["sources", "token", "answer"]
    assert found[-1][1] == client.post("/v1/ask", json=asked).json()
    assert found[0][1]["passages"] == found[-1][1]["passages"]


def test_a_model_writes_the_answer(make_service: Any) -> None:
    model = FakeListChatModel(responses=["Otters swim in rivers [1]. Moons are made of cheese [1]."])
    with client_of(make_service(llm=model)) as client:
        asked = {"query": "Who swim in rivers?"}
        whole = client.post("/v1/ask", json=asked).json()
        found = events(client.post("/v1/ask", json={**asked, "stream": True}))
    assert whole["answer"].startswith("Otters swim in rivers")
    assert whole["unsupported"] == ["Moons are made of cheese."]
    names = [name for name, _ in found]
    assert names == ["sources", *["token"] * (len(names) - 2), "answer"]
    assert len(names) > 4
    assert "".join(data["text"] for name, data in found if name == "token") == found[-1][1]["answer"] == whole["answer"]


def test_how_a_model_fails_is_not_told(make_service: Any) -> None:
    def fail(_: Any) -> str:
        raise ConnectionError("http://internal.example/?key=sk-1234")

    with client_of(make_service(llm=RunnableLambda(fail))) as client:
        asked = {"query": "Who swim in rivers?"}
        whole = client.post("/v1/ask", json=asked)
        streamed = client.post("/v1/ask", json={**asked, "stream": True})
    assert "sk-1234" not in whole.text + streamed.text
    assert whole.json()["problems"] == ["the model failed, so this is extracted"]
    assert whole.json()["answer"].startswith("Otters swim in rivers. [1]")
    assert events(streamed)[-1][0] == "answer"


def test_state_and_metrics(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "live"}
    assert client.get("/ready").json() == {"status": "ready"}
    client.post("/v1/rerank", json={"query": "q", "documents": ["q"]})
    client.get("/v1/../etc/passwd")
    from prometheus_client.parser import text_string_to_metric_families

    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }
    assert samples["ragkit_requests_total", "/v1/rerank", "200"] >= 1
    assert samples["ragkit_requests_total", "other", "404"] >= 1
    assert samples["ragkit_batch_items_count", "OverlapReranker"] >= 1
    assert samples["ragkit_stage_seconds_count", "OverlapReranker"] >= 1
    assert samples["ragkit_waiting", "encoder"] == 0
    assert samples["ragkit_passages",] == len(TEXTS)
    assert samples["process_resident_memory_bytes",] > 0


def test_every_answer_has_a_request_id(client: httpx.Client) -> None:
    given = client.post("/v1/rerank", json={"query": "q", "documents": ["q"]}, headers={"X-Request-Id": "mine-1"})
    assert given.headers["x-request-id"] == given.json()["id"] == "mine-1"
    for response in (client.get("/nothing"), client.post("/v1/ask"), client.get("/health")):
        assert len(response.headers["x-request-id"]) == 16
    forged = client.get("/health", headers={"X-Request-Id": "a b" * 100})
    assert len(forged.headers["x-request-id"]) == 16


def test_no_trace_of_the_inside_gets_out(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    response = client.post("/v1/rerank", json={"query": "poison", "documents": ["a"]})
    assert response.status_code == 500
    assert response.json()["error"]["field"] is None
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert "secret detail" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/rerank", {"query": "poison", "documents": ["a"]}),
        ("POST", "/v1/ask", {"query": "Who swim in rivers?"}),
        ("GET", "/metrics", None),
    ],
)
def test_the_log_names_the_request(
    make_service: Any, caplog: pytest.LogCaptureFixture, method: str, path: str, body: Any
) -> None:
    """By which whoever runs the service finds what a caller complains of; also how a model failed."""
    caplog.handler.addFilter(NamesRequest())
    service = make_service(llm=RunnableLambda(lambda _: 1 / 0))
    service.metrics.text = lambda: 1 / 0
    with client_of(service, headers={"X-Request-Id": "mine-2"}) as client:
        client.request(method, path, json=body)
    said = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert {record.request for record in said} == {"mine-2"}  # type: ignore[attr-defined]


def test_a_failure_leaves_the_connection_open(make_service: Any) -> None:
    """Nothing said that it would be closed: a client would send the next request into nowhere."""
    service = make_service()
    service.metrics.text = lambda: 1 / 0
    with client_of(service) as client:
        address = client.base_url.host, client.base_url.port or 0
        with socket.create_connection(address, timeout=20) as line, line.makefile("rb") as answers:
            for path, status in (("/metrics", b"500"), ("/health", b"200")):
                line.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                assert answers.readline().split()[1] == status
                length = 0
                while (header := answers.readline().strip()) != b"":
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                assert b"{" in answers.read(length)
