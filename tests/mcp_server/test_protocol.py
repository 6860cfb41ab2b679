"""The server as the official client sees it, in this process: schemas, results, errors, bounds."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from ragkit.chains.confidence import shipped
from ragkit.errors import InputError
from ragkit.mcp_server.inert import inert
from ragkit.mcp_server.tools import Tools

mcp = pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'ragkit[mcp]'")
build_server = pytest.importorskip("ragkit.mcp_server.protocol").build_server
anyio = pytest.importorskip("anyio")
validate = pytest.importorskip("jsonschema", reason="comes with the MCP SDK").validate

Make = Callable[..., Tools]
OIL = Document(
    id="oil", page_content="The pump needs oil [7]. It is blue.<|im_end|>", metadata={"source": "notes [1].md", "lang": "en"}
)
SAND = Document(id="sand", page_content="The mixer needs sand. It is red.", metadata={"lang": "de"})


async def call(tools: Tools, name: str, arguments: Any = None) -> Any:
    async with mcp.Client(build_server(tools)) as client:
        return await client.call_tool(name, arguments)


async def test_replies_fit_their_schemas(make_tools: Make) -> None:
    async with mcp.Client(build_server(make_tools([OIL, SAND]))) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert list(tools) == ["search", "ask", "read_source"]
        for name, arguments in (
            ("search", {"question": "pump"}),
            ("ask", {"question": "What does the pump need?", "k": 2}),
            ("read_source", {"id": "oil"}),
        ):
            validate(arguments, tools[name].input_schema)
            reply = await client.call_tool(name, arguments)
            assert not reply.is_error
            validate(reply.structured_content, tools[name].output_schema)
            assert json.loads(reply.content[0].text) == reply.structured_content
            assert tools[name].annotations.read_only_hint


async def test_search_finds_whole_passages(make_tools: Make) -> None:
    tools = make_tools([OIL, SAND])
    found = (await call(tools, "search", {"question": "pump oil sand", "k": 1})).structured_content
    assert [(p["id"], p["source"], p["text"]) for p in found["passages"]] == [("oil", "notes (1).md", inert(OIL.page_content))]
    assert found["passages"][0]["score"] > 0
    filtered = (await call(tools, "search", {"question": "needs", "filter": {"lang": "de"}})).structured_content
    assert [p["id"] for p in filtered["passages"]] == ["sand"]


async def test_a_source_is_a_filter_as_a_reply_has_it(make_tools: Make) -> None:
    tools = make_tools([Document(id="a", page_content="The pump needs oil.", metadata={"source": "/docs/a.md"}), SAND])
    found = (await call(tools, "search", {"question": "pump mixer needs"})).structured_content["passages"]
    assert len(found) == 2
    [source] = [passage["source"] for passage in found if passage["id"] == "a"]
    again = (await call(tools, "search", {"question": "needs", "filter": {"source": source}})).structured_content
    assert [passage["id"] for passage in again["passages"]] == ["a"]


async def test_ask_quotes_and_cites(make_tools: Make) -> None:
    answered = (await call(make_tools([OIL, SAND]), "ask", {"question": "What does the pump need?"})).structured_content
    first = answered["citations"][0]
    assert first["text"] == "The pump needs oil (7)."
    assert (first["start"], first["end"]) == (0, len("The pump needs oil [7]."))
    assert "The pump needs oil (7). [1]" in answered["answer"]
    assert not answered["abstained"]


async def test_ask_says_where_to_look_if_it_abstains(make_tools: Make) -> None:
    answered = (await call(make_tools([OIL]), "ask", {"question": "zebra"})).structured_content
    assert answered["abstained"]
    assert answered["citations"] == []


async def test_the_markers_of_who_abstains_are_explained(make_tools: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragkit.mcp_server.tools.calibration_for", lambda _: replace(shipped(), abstain_below=1.0))
    answered = (await call(make_tools([OIL, SAND]), "ask", {"question": "What does the pump need?"})).structured_content
    assert (answered["abstained"], answered["citations"]) == (True, [])
    markers = {int(n) for n in re.findall(r"\[(\d+)\]", answered["answer"])}
    assert len(markers) > 0
    assert {near["n"] for near in answered["nearest"]} - {None} == markers


async def test_what_an_answer_has_no_room_for_is_said(make_tools: Make) -> None:
    """Three sentences are cited at most; here there is room for one and a half."""
    sentences = [f"The pump needs oil of grade {n} to run." for n in range(3)]
    tools = make_tools([Document(id="oil", page_content=" ".join(sentences))], characters=len(sentences[0]) * 3 // 2)
    answered = (await call(tools, "ask", {"question": "What does the pump need to run?"})).structured_content
    assert [citation["truncated"] for citation in answered["citations"]] == [False, True]
    assert answered["citations"][0]["text"] == sentences[0]
    assert sentences[1].startswith(answered["citations"][1]["text"])
    assert answered["omitted"] == 1
    assert answered["truncated"]
    whole = make_tools([Document(id="oil", page_content=" ".join(sentences))])
    answered = (await call(whole, "ask", {"question": "What does the pump need to run?"})).structured_content
    assert [citation["truncated"] for citation in answered["citations"]] == [False] * 3
    assert (answered["omitted"], answered["truncated"]) == (0, False)


async def test_a_chat_model_words_the_answer(make_tools: Make) -> None:
    asked: list[str] = []

    def model(prompt: Any) -> AIMessage:
        asked.append(prompt.to_string())
        return AIMessage("The pump needs oil [1]. It likes sand [9].<|im_start|>")

    tools = make_tools([OIL, SAND], llm=RunnableLambda(model))
    question = {"question": "What does the pump need?", "k": 1, "filter": {"lang": "en"}}
    answered = (await call(tools, "ask", question)).structured_content
    assert "The pump needs oil [1]." in answered["answer"]
    assert "[9]" not in answered["answer"]
    assert "<|" not in answered["answer"]
    assert "cites passages that do not exist: 9" in answered["problems"]
    assert [citation["id"] for citation in answered["citations"]] == ["oil"]
    assert "needs sand" not in asked[0]


async def test_read_source_shows_what_stands_around_a_passage_by_its_id(make_tools: Make) -> None:
    tools = make_tools([OIL])
    read = (await call(tools, "read_source", {"id": "oil"})).structured_content
    assert read["text"] == inert(OIL.page_content)
    for other in ("notes [1].md", "/etc/passwd", "../../etc/passwd"):
        reply = await call(tools, "read_source", {"id": other})
        assert reply.is_error
        assert reply.content[0].text.startswith("id: there is no such passage now; ")


async def test_an_index_that_hides_passages_reads_none(make_tools: Make) -> None:
    tools = make_tools([OIL, SAND], filter={"lang": "en"})
    async with mcp.Client(build_server(tools)) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["search", "ask"]
        assert (await client.call_tool("read_source", {"id": "sand"})).is_error
        found = await client.call_tool("search", {"question": "sand", "filter": {"lang": "de"}})
        assert found.structured_content["passages"] == []


@pytest.mark.parametrize("kind", ["document-context", "hybrid", "multi-hop", "widening"])
def test_a_filter_deep_inside_hides_passages_too(make_tools: Make, kind: str) -> None:
    from ragkit.chains.adaptive import WideningPipeline
    from ragkit.chains.pipeline import Pipeline
    from ragkit.mcp_server.opening import Opened
    from ragkit.retrievers.bm25 import BM25Retriever
    from ragkit.retrievers.documents import DocumentContextRetriever
    from ragkit.retrievers.hybrid import HybridRetriever
    from ragkit.retrievers.multi_hop import MultiHopRetriever

    plain = BM25Retriever.from_documents([OIL, SAND])
    inner = BM25Retriever(store=plain.store, filter={"lang": "en"})
    pipeline = {
        "document-context": lambda: Pipeline(retriever=DocumentContextRetriever(retriever=inner)),
        "hybrid": lambda: Pipeline(retriever=HybridRetriever(retrievers=[inner])),
        "multi-hop": lambda: Pipeline(retriever=MultiHopRetriever(retriever=inner)),
        "widening": lambda: WideningPipeline(retriever=plain, wider=MultiHopRetriever(retriever=inner)),
    }[kind]()
    assert not Tools(Opened(pipeline, plain.store), 1000).reads
    assert Tools(Opened(Pipeline(retriever=MultiHopRetriever(retriever=plain)), plain.store), 1000).reads


async def test_an_index_that_hides_passages_does_not_name_their_fields(make_tools: Make) -> None:
    hidden = Document(id="h", page_content="The mixer is dear.", metadata={"salary_band": 7})
    for filter in ({"lang": "en"}, {"owner": "me"}):
        tools = make_tools([OIL, SAND, hidden], filter=filter)
        for name in ("search", "ask"):
            reply = await call(tools, name, {"question": "sand", "filter": {"nope": 1}})
            assert reply.is_error
            assert reply.content[0].text.startswith("filter: cannot be applied")
            # what is wrong with the request itself is still said
            reply = await call(tools, name, {"question": "sand", "filter": {"lang": {"$like": 1}}})
            assert reply.content[0].text.startswith("filter lang: unknown operator '$like'")
    assert "salary_band" in (await call(make_tools([hidden]), "search", {"question": "x", "filter": {"no": 1}})).content[0].text


async def test_how_a_model_fails_is_not_told(make_tools: Make, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Any) -> AIMessage:
        raise ConnectionError("401 from http://internal.example with key sk-1234")

    reply = await call(make_tools([OIL], llm=RunnableLambda(fail)), "ask", {"question": "What does the pump need?"})
    assert reply.structured_content["problems"] == ["the model failed, so this is extracted"]
    assert "sk-1234" not in reply.model_dump_json()
    assert "sk-1234" in caplog.text


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("find", {}, "name: there is no tool 'find'; use search, ask, read_source"),
        ("search", {"question": "x", "k": 51}, "k: input should be less than or equal to 50, not 51"),
        ("search", {"question": "x", "filter": {"color": 1}}, "filter: no passage has the metadata field 'color'"),
        ("search", {"question": "x", "filter": {"lang": {"$like": 1}}}, "filter lang: unknown operator '$like'"),
        ("ask", {"question": "x", "filter": {"$or": 1}}, "filter $or: expected a list of filters"),
    ],
)
async def test_errors_are_results_that_say_what_to_do(make_tools: Make, name: str, arguments: Any, said: str) -> None:
    reply = await call(make_tools([OIL]), name, arguments)
    assert reply.is_error
    assert reply.content[0].text.startswith(said)
    assert reply.structured_content is None


async def test_what_fails_inside_stays_inside(make_tools: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret /path/of/this/machine")

    tools = make_tools([OIL])
    monkeypatch.setattr(tools, "search", fail)
    reply = await call(tools, "search", {"question": "x"})
    assert reply.is_error
    assert reply.content[0].text == "search failed inside the server, whose log says why; the same call may fail again"


async def test_replies_are_bounded(make_tools: Make) -> None:
    documents = [Document(id=str(n), page_content=f"oil {'x' * 5000} {n}") for n in range(9)]
    tools = make_tools(documents, characters=12_000)
    found = (await call(tools, "search", {"question": "oil", "k": 9})).structured_content
    assert [p["truncated"] for p in found["passages"]] == [False, False, True]
    assert sum(len(p["text"]) for p in found["passages"]) == 12_000
    assert found["omitted"] == 6
    [document] = [document for document in documents if document.id == found["passages"][2]["id"]]
    assert document.page_content.startswith(found["passages"][2]["text"])
    tools = make_tools([Document(id="long", page_content="oil " + "sand" * 50_000)], characters=1000)
    read = (await call(tools, "read_source", {"id": "long"})).structured_content
    assert (len(read["text"]), read["truncated"]) == (1000, True)
    answered = (await call(tools, "ask", {"question": "oil"})).structured_content
    assert len(answered["answer"]) <= 1000
    assert sum(len(citation["text"]) for citation in answered["citations"]) <= 1000


def limiter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The one that the next server will use."""
    made = anyio.CapacityLimiter(4)
    monkeypatch.setattr("ragkit.mcp_server.protocol.CapacityLimiter", lambda most: made if most == 4 else None)
    return made


async def test_calls_that_are_given_up_keep_their_turn(make_tools: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many callers go away, no more than four threads are at work."""
    tools, gate, busy = make_tools([OIL]), threading.Event(), limiter(monkeypatch)
    entered: list[Any] = []

    def wait(request: Any) -> Any:
        entered.append(request)
        gate.wait(10)
        raise InputError("question: gone")

    monkeypatch.setattr(tools, "search", wait)
    call_tool = build_server(tools).get_request_handler("tools/call").handler
    asked = mcp.types.CallToolRequestParams(name="search", arguments={"question": "oil"})
    async with anyio.create_task_group() as calls:
        for _ in range(8):
            calls.start_soon(call_tool, None, asked)
        while len(entered) < 4 or busy.statistics().tasks_waiting < 4:
            await asyncio.sleep(0.001)
        calls.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            while busy.statistics().tasks_waiting:
                await asyncio.sleep(0.001)
            assert (len(entered), busy.borrowed_tokens) == (4, 4)
            gate.set()
    assert busy.borrowed_tokens == 0


async def test_calls_beyond_those_that_may_wait_are_told_so(make_tools: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    tools, gate, busy = make_tools([OIL]), threading.Event(), limiter(monkeypatch)
    search = tools.search

    def wait(request: Any) -> Any:
        gate.wait(10)
        return search(request)

    monkeypatch.setattr(tools, "search", wait)
    async with mcp.Client(build_server(tools)) as client:
        calls = [asyncio.create_task(client.call_tool("search", {"question": "oil"})) for _ in range(4 + 32)]
        while busy.statistics().tasks_waiting < 32:
            await asyncio.sleep(0.001)
        refused = await client.call_tool("search", {"question": "oil"})
        gate.set()
        assert not any(reply.is_error for reply in await asyncio.gather(*calls))
    assert refused.is_error
    assert "busy" in refused.content[0].text
