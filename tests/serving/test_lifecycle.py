"""Starting, following an index that somebody else writes, and stopping."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableGenerator

from ragkit import BM25Retriever, Store
from ragkit.serving.keys import add_key
from ragkit.serving.limits import Limits
from ragkit.store.store import bm25_and_dense
from tests.serving.conftest import DOCUMENTS, Gate, client_of, running, until

pytest.importorskip("fastapi", reason="needs ragkit[serve]")
pytest.importorskip("prometheus_client", reason="needs ragkit[serve]")


def test_what_another_process_indexes_is_found(make_service: Any, make_encoder: Any, tmp_path: Path) -> None:
    with Store.create(tmp_path / "index", bm25_and_dense(make_encoder())) as store:
        store.upsert(DOCUMENTS)
    opened = lambda encoder: Store.open(tmp_path / "index", encoder={"dense": encoder})  # noqa: E731
    with client_of(make_service(store=opened, limits=Limits(refresh_s=0.01, drain_s=10))) as client:

        def ids() -> list[str]:
            found = client.post("/v1/search", json={"query": "zebras gallop"}).json()["hits"]
            return [hit["id"] for hit in found]

        assert "new" not in ids()
        with Store.open(tmp_path / "index", encoder=make_encoder()) as writer:
            for n in range(3):  # more generations than a reader may be behind
                writer.upsert([Document(id="new", page_content=f"Zebras gallop. {n}")])
            until(lambda: ids()[0] == "new")
            writer.delete(["new"])
        until(lambda: "new" not in ids())
        until(lambda: "ragkit_passages 4.0" in client.get("/metrics").text)


def test_an_index_that_is_damaged_later_is_served_as_it_was(make_service: Any, make_encoder: Any, tmp_path: Path) -> None:
    with Store.create(tmp_path / "index", bm25_and_dense(make_encoder())) as store:
        store.upsert(DOCUMENTS)
    opened = lambda encoder: Store.open(tmp_path / "index", encoder={"dense": encoder})  # noqa: E731
    service = make_service(store=opened)
    with client_of(service) as client:
        (tmp_path / "index" / "manifest.json").write_text("{")
        asyncio.run(service.refresh())
        assert len(client.post("/v1/search", json={"query": "boats"}).json()["hits"]) == len(DOCUMENTS)
        assert client.get("/ready").status_code == 200


async def test_whatever_breaks_inside_the_keys_are_looked_at(
    make_service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither models that cannot be loaded nor a store that fails lets a withdrawn key go on."""
    add_key(tmp_path / "keys", "old")
    for broken in ("_warm", "refresh"):
        service = make_service(keys=tmp_path / "keys", limits=Limits(refresh_s=0.001, drain_s=10))
        tries: list[int] = []

        def fail(tries: list[int] = tries) -> None:
            tries.append(1)
            raise RuntimeError("CUDA out of memory")

        monkeypatch.setattr(service if broken == "_warm" else service.store, broken, fail)
        await service.start()
        while len(tries) < 2:
            await asyncio.sleep(0.001)
        name = f"after {broken}"
        add_key(tmp_path / "keys", name)
        while all(key.name != name for key in service.keys):
            assert not service._tasks[0].done()
            await asyncio.sleep(0.001)
        assert service.ready is (broken == "refresh")
        await service.stop()


def test_not_ready_before_the_models_are(make_service: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service()
    warm = service._warm

    def slowly() -> None:
        gate.entered.set()
        assert gate.open.wait(20)
        warm()

    monkeypatch.setattr(service, "_warm", slowly)

    async def run() -> None:
        from ragkit.serving.app import create_app

        transport = httpx.ASGITransport(app=create_app(service))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await service.start()
            assert await asyncio.to_thread(gate.entered.wait, 20)
            assert (await client.get("/health")).status_code == 200
            early = await client.get("/ready")
            assert (early.status_code, early.headers["retry-after"]) == (503, "1")
            gate.open.set()
            while (await client.get("/ready")).status_code != 200:
                await asyncio.sleep(0.001)
            await service.stop()
            assert (await client.get("/ready")).status_code == 503
            assert (await client.post("/v1/rerank", json={"query": "x", "documents": ["y"]})).status_code == 503

    asyncio.run(run())


def test_a_request_that_runs_is_finished_at_a_shutdown(make_service: Any, gate: Gate) -> None:
    """The server stops listening at once, and answers what it has begun."""
    service = make_service(gate=gate)
    with httpx.Client(timeout=20) as client, ThreadPoolExecutor(1) as pool, running(service) as url:
        blocked = pool.submit(client.post, f"{url}/v1/rerank", json={"query": "blocked", "documents": ["x"]})
        assert gate.entered.wait(20)
        address = (httpx.URL(url).host, httpx.URL(url).port)

        def refused() -> bool:
            try:
                socket.create_connection(address, timeout=1).close()
            except OSError:
                return True
            return False

        def release() -> None:
            until(refused)
            gate.open.set()

        threading.Thread(target=release).start()
    assert blocked.result().status_code == 200


def test_a_request_that_takes_too_long_is_told_so_at_a_shutdown(make_service: Any, gate: Gate) -> None:
    service = make_service(gate=gate, limits=Limits(drain_s=0.1))
    with httpx.Client(timeout=20) as client, ThreadPoolExecutor(1) as pool, running(service) as url:
        blocked = pool.submit(client.post, f"{url}/v1/rerank", json={"query": "blocked", "documents": ["x"]})
        assert gate.entered.wait(20)
    assert blocked.result().status_code == 503
    assert "stopping" in blocked.result().json()["error"]["message"]


def test_a_stream_that_takes_too_long_is_told_so_at_a_shutdown(make_service: Any) -> None:
    begun = threading.Event()

    async def write(prompts: Any) -> Any:
        async for _ in prompts:
            pass
        while True:
            yield "Otters swim. "
            begun.set()
            await asyncio.sleep(0.001)

    def ask(url: str) -> list[str]:
        with httpx.Client(timeout=20) as client:
            return client.post(f"{url}/v1/ask", json={"query": "Who swim in rivers?", "stream": True}).text.split("\n\n")

    service = make_service(llm=RunnableGenerator(write), limits=Limits(drain_s=0.1))
    with ThreadPoolExecutor(1) as pool, running(service) as url:
        asked = pool.submit(ask, url)
        assert begun.wait(20)
    *_, last, end = asked.result()
    assert end == ""
    assert last.startswith("event: error\ndata: ")
    assert "stopping" in last


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_command(tmp_path: Path) -> None:
    """From the command line: the server, an answer, SIGTERM."""
    with Store.create(tmp_path / "index", BM25Retriever.indexes()) as store:
        store.upsert(DOCUMENTS)
    (tmp_path / "ragkit.yaml").write_text("retriever: {type: bm25}\nstages: [{type: extractive, scorer: bm25}]\n")
    program = "import typer; from ragkit.serving.command import serve; app = typer.Typer(); app.command()(serve); app()"
    key = add_key(tmp_path / "keys", "me")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--config", str(tmp_path / "ragkit.yaml"), "--keys", str(tmp_path / "keys"), "--port", str(port)]
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "console", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "index"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as server:
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=30
            ) as client:

                def ready() -> bool:
                    assert server.poll() is None, server.communicate()[0]
                    try:
                        return client.get("/ready").status_code == 200
                    except httpx.TransportError:
                        return False

                until(ready)
                assert client.post("/v1/ask", json={"query": "What do otters eat?"}).json()["answer"].endswith("[1]")
                assert client.post("/v1/ask", json={"query": "x"}, headers={"Authorization": "Bearer no"}).status_code == 401
                # there is no reranker in this pipeline, and so no such endpoint
                assert client.post("/v1/rerank", json={"query": "x", "documents": ["x"]}).status_code == 404
            server.send_signal(signal.SIGTERM)
            said = server.communicate(timeout=60)[0]
        finally:
            server.kill()
    assert server.returncode in (0, -signal.SIGTERM)
    assert "Application shutdown complete" in said
    assert '"name": "POST /v1/ask"' in said  # the exporter that the environment names
    assert key not in said


def test_a_host_that_others_reach_needs_keys(tmp_path: Path) -> None:
    from ragkit import InputError
    from ragkit.serving.command import serve

    for host in ("0.0.0.0", "::", "example.org"):
        with pytest.raises(InputError, match="--keys"):
            serve(str(tmp_path), host=host, keys=None, no_auth=False)
    with pytest.raises(InputError, match="leave one"):
        serve(str(tmp_path), host="127.0.0.1", keys=tmp_path / "keys", no_auth=True)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_limit_is_a_number_greater_than_0(value: float) -> None:
    from ragkit import InputError

    with pytest.raises(InputError, match=r"^drain_s: must be a number"):
        Limits(drain_s=value)
    if value:
        with pytest.raises(InputError, match=r"^batch_wait_s: "):
            Limits(batch_wait_s=value)
    else:
        assert Limits(batch_wait_s=value).batch_wait_s == 0


def test_a_limit_that_is_none_is_named_as_it_was_given() -> None:
    import typer
    from typer.testing import CliRunner

    from ragkit.serving.command import serve

    app = typer.Typer()
    app.command()(serve)
    for option in ("--queue", "--in-flight", "--batch", "--batch-tokens", "--body-bytes"):
        refused = CliRunner().invoke(app, ["index", option, "0"])
        assert refused.exit_code == 2
        assert option in refused.output


def test_filters_of_keys_are_strings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ragkit import InputError
    from ragkit.serving.command import serve_key

    path = tmp_path / "keys"
    serve_key(path, "a", filter=["tenant=1", "lang=en"], filter_field=["year"])
    [entry] = json.loads(path.read_text())["keys"]
    assert entry["filter"] == {"tenant": "1", "lang": "en"}
    assert capsys.readouterr().out.startswith("ragkit_")
    for wrong in (["tenant"], ["=a"], ["$or=a"], ["tenant=a", "tenant=b"]):
        with pytest.raises(InputError, match="--filter"):
            serve_key(path, "b", filter=wrong)
