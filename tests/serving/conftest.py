"""A service over a few texts, in the process or behind a real port."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import httpx
import numpy as np
import pytest
from langchain_core.documents import Document

from ragkit import ExtractivePruner, HybridRetriever, Store
from ragkit.compressor import Task
from ragkit.rerankers.base import Reranker
from ragkit.serving.joined import JoinedEncoder, JoinedPipeline
from ragkit.serving.limits import Limits
from ragkit.store.store import bm25_and_dense

if TYPE_CHECKING:
    from ragkit.serving.service import Service

TEXTS = [
    ("Otters swim in rivers. They eat fish.", "a"),
    ("Seals swim in the sea. Their fur is thick.", "a"),
    ("Boats float on water. Some boats sail.", "b"),
    ("Penguins swim well. They cannot fly.", "b"),
]
DOCUMENTS = [
    Document(id=f"d{n}", page_content=text, metadata={"tenant": tenant, "n": n}) for n, (text, tenant) in enumerate(TEXTS)
]


def words(text: str) -> set[str]:
    return set("".join(char if char.isalnum() else " " for char in text.lower()).split())


class OverlapReranker(Reranker):
    """The share of the question's words that a document has. Can be held up, and remembers the questions of each batch."""

    gate: Any = None
    batches: list[Any] = []

    def scores(self, tasks: Sequence[Task]) -> list[Any]:
        self.batches.append([task.query for task in tasks])
        if self.gate is not None and any("blocked" in task.query for task in tasks):
            self.gate.entered.set()
            assert self.gate.open.wait(20)
        if any("poison" in task.query for task in tasks):
            raise RuntimeError("secret detail of the inside")
        return [
            np.array(
                [len(words(task.query) & words(doc.page_content)) / max(1, len(words(task.query))) for doc in task.documents]
            )
            for task in tasks
        ]


class Gate:
    """Shut until it is opened; tells when somebody stands before it."""

    def __init__(self) -> None:
        self.open, self.entered = threading.Event(), threading.Event()


def until(condition: Callable[[], object]) -> None:
    """Wait for what is sure to come, or else fail after a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.001)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


Make = Callable[..., Any]


@pytest.fixture(scope="session")
def make_service(make_encoder: Any) -> Make:
    """A service over an in-memory or a given store, with a reranker by words and a pruner by BM25."""

    def make(
        documents: Sequence[Document] = DOCUMENTS,
        *,
        store: Callable[[Any], Store] | None = None,
        gate: Gate | None = None,
        stages: Sequence[Any] | None = None,
        retriever: Callable[[Store], Any] | None = None,
        k: int = 5,
        limits: Limits | None = None,
        keys: Path | None = None,
        llm: Any = None,
        aliases: Sequence[str] = (),
    ) -> Service:
        from ragkit.serving.metrics import Metrics
        from ragkit.serving.service import Service

        def open_(batcher: Any) -> tuple[Store, JoinedPipeline]:
            encoder = JoinedEncoder(make_encoder(), batcher)
            if store is None:
                opened = Store.memory(bm25_and_dense(encoder))
                opened.upsert(documents)
            else:
                opened = store(encoder)
            chosen = [OverlapReranker(gate=gate, batches=[]), ExtractivePruner(scorer="bm25")] if stages is None else stages
            first = HybridRetriever(store=opened, k=20) if retriever is None else retriever(opened)
            return opened, JoinedPipeline(retriever=first, stages=[*chosen], k=k)

        return Service(open_, limits=limits or Limits(drain_s=10), metrics=Metrics(), llm=llm, keys=keys, aliases=aliases)

    return make


@contextmanager
def running(service: Service, tracing: Any = None, *, local_only: bool = False) -> Iterator[str]:
    """The service behind a port of this machine, ready; yields its address."""
    from ragkit.serving.app import create_app
    from ragkit.serving.server import make_server

    server = make_server(create_app(service, tracing, local_only=local_only), service.limits, host="127.0.0.1", port=0)
    started = threading.Event()
    startup = server.startup

    async def told(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = told  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert started.wait(20)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        with httpx.Client(base_url=url) as client:
            until(lambda: client.get("/ready").status_code == 200)
        yield url
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@contextmanager
def client_of(service: Service, **options: Any) -> Iterator[httpx.Client]:
    """A client of the service behind a port."""
    with running(service) as url, httpx.Client(base_url=url, timeout=20, **options) as client:
        yield client


_apps: WeakKeyDictionary[Service, Any] = WeakKeyDictionary()


def call(service: Service, *asked: tuple[str, Any], key: str | None = None, tracing: Any = None) -> list[httpx.Response]:
    """Some requests, path and body, one after the other and without a port."""
    from ragkit.serving.app import create_app

    if service not in _apps:
        _apps[service] = create_app(service, tracing)

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=_apps[service])
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            return [await client.post(path, json=body) for path, body in asked]

    return asyncio.run(ask())
