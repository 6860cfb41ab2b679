"""The server as the official client sees it, in this process: schemas, results, errors, bounds."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from ragkit.mcp_server.inert import inert
from ragkit.mcp_server.tools import Tools

mcp = pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'ragkit[mcp]'")
build_server = pytest.importorskip("ragkit.mcp_server.protocol").build_server
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


async def test_calls_beyond_those_that_may_wait_are_told_so(make_tools: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    tools, gate = make_tools([OIL]), threading.Event()
    search = tools.search

    def wait(request: Any) -> Any:
        gate.wait(10)
        return search(request)

    monkeypatch.setattr(tools, "search", wait)
    async with mcp.Client(build_server(tools)) as client:
        calls = [asyncio.create_task(client.call_tool("search", {"question": "oil"})) for _ in range(4 + 32)]
        await asyncio.sleep(0.2)
        refused = await client.call_tool("search", {"question": "oil"})
        gate.set()
        assert not any(reply.is_error for reply in await asyncio.gather(*calls))
    assert refused.is_error
    assert "busy" in refused.content[0].text
