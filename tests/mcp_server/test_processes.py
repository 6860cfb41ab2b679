"""`ragkit mcp` as a process of its own, asked by the official client over both transports."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ragkit.cli import main
from ragkit.encoders.lexical import Analyzer
from ragkit.errors import InputError, StoreError
from ragkit.mcp_server.opening import open_index
from ragkit.store.indexer import index_paths
from ragkit.store.store import Store
from ragkit.store.text_index import LexicalIndex

mcp = pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'ragkit[mcp]'")

PIPELINE = "retriever: {type: bm25}\n"


@pytest.fixture
def index(tmp_path: Path, folder: Path) -> Path:
    """A directory with an index of the folder, for BM25 alone, and a pipeline file."""
    with Store.create(tmp_path / "index", {"bm25": LexicalIndex(Analyzer())}) as store:
        index_paths(store, [folder])
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    return tmp_path / "index"


def command(index: Path, *options: str) -> list[str]:
    return ["-m", "ragkit", "mcp", str(index), "--config", str(index.parent / "pipeline.yaml"), *options]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


async def converse(client: Any, folder: Path, index: Path) -> None:
    """Search, ask and read; then the folder changes, and so do the replies."""
    assert [tool.name for tool in (await client.list_tools()).tools] == ["search", "ask", "read_source"]
    found = (await client.call_tool("search", {"question": "which oil does the pump need", "k": 3})).structured_content
    [passage] = found["passages"]
    assert (passage["source"], passage["first_line"], passage["last_line"]) == (str(folder / "guide.md"), 1, 7)
    assert "oil of grade 40" in passage["text"]
    assert "[7]" not in passage["text"]
    assert "<|" not in passage["text"]
    read = (await client.call_tool("read_source", {"id": passage["id"], "around": 10})).structured_content
    assert passage["text"] in read["text"]
    answered = (await client.call_tool("ask", {"question": "Which oil does the pump need?"})).structured_content
    assert answered["answer"].startswith("The pump needs oil of grade 40. [1] ")
    assert [citation["line"] for citation in answered["citations"]] == [3, 3, 3]
    refused = await client.call_tool("search", {"question": "oil", "k": 1000})
    assert refused.is_error
    assert refused.content[0].text == "k: input should be less than or equal to 50, not 1000"

    (folder / "mixer.md").write_text("The mixer needs sand.")
    (folder / "guide.md").unlink()
    for _ in range(3):  # two generations on, what the server had opened is gone
        with Store.open(index) as store:
            index_paths(store, [folder])
        (folder / "mixer.md").write_text((folder / "mixer.md").read_text() + " Really.")
    found = (await client.call_tool("search", {"question": "pump mixer", "k": 3})).structured_content
    assert [passage["source"] for passage in found["passages"]] == [str(folder / "mixer.md")]
    gone = await client.call_tool("read_source", {"id": passage["id"]})
    assert gone.is_error


@pytest.mark.skipif(sys.platform == "win32", reason="a shell listens in")
async def test_over_standard_streams(index: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On stdout is nothing but the protocol, and the process ends by itself when its client goes."""
    monkeypatch.setattr("mcp.client.stdio.PROCESS_TERMINATION_TIMEOUT", 30.0)  # else it is killed if the machine is busy
    said, status = tmp_path / "said", tmp_path / "status"
    line = shlex.join([sys.executable, *command(index)])
    listening = f"{{ {line}; echo $? > {shlex.quote(str(status))}; }} | tee {shlex.quote(str(said))}"
    server = mcp.StdioServerParameters(command="sh", args=["-c", listening], env=environment())
    async with mcp.Client(server) as client:
        await converse(client, folder, index)
    messages = [json.loads(message) for message in said.read_text().splitlines()]
    assert {message["jsonrpc"] for message in messages} == {"2.0"}
    assert status.read_text() == "0\n"


async def test_over_http(index: Path, folder: Path) -> None:
    with serving(index) as url:
        async with mcp.Client(url) as client:
            await converse(client, folder, index)
        async with mcp.Client(url, mode="legacy") as client:
            found = await client.call_tool("search", {"question": "mixer"})
            assert len(found.structured_content["passages"]) == 1
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        # a web page whose name has come to mean this machine, and one that sends more than a question
        assert httpx.post(url, json=ping, headers={**headers, "Host": "evil.example"}).status_code == 421
        assert httpx.post(url, json=ping, headers={**headers, "Origin": "http://evil.example"}).status_code == 403
        assert httpx.post(url, content=b"x" * 100_000, headers=headers).status_code == 413


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere this machine has one address of these")
async def test_over_http_at_another_address_of_this_machine(index: Path) -> None:
    """What it says at its start is a URL that it answers."""
    with serving(index, "127.0.0.2") as url:
        async with mcp.Client(url) as client:
            assert (await client.call_tool("search", {"question": "oil"})).structured_content["passages"]


def test_a_mistake_ends_the_process_with_one_line(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ragkit", *command(index, "--http", "0.0.0.0:0")[2:]])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    assert re.fullmatch(r"ragkit: --http: 0\.0\.0\.0 can be reached from other machines, .*--expose.*\n", said.err)


def test_the_file_of_a_pipeline_may_name_the_index(index: Path, tmp_path: Path) -> None:
    file = tmp_path / "whole.yaml"
    file.write_text(f"store: {index}\n{PIPELINE}")
    assert open_index(None, file).pipeline().invoke("oil")
    with pytest.raises(StoreError):  # what the command line names counts first
        open_index(tmp_path / "nothing", file)
    with pytest.raises(InputError, match="store is missing"):
        open_index(None, tmp_path / "pipeline.yaml")


@contextmanager
def serving(index: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """A server on a free port; it must end when it is told to."""
    server = subprocess.Popen(
        [sys.executable, *command(index, "--http", f"{host}:0")], stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert server.stderr
        announced = re.search(rf"http://{re.escape(host)}:\d+/mcp", server.stderr.readline())
        assert announced
        yield announced[0]
    finally:
        server.terminate()
        with server:
            server.wait(30)
