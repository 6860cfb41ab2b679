"""What PostgreSQL alone promises: approximate search, many writers and readers, errors that say what to do."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit import InputError, StoreError
from ragkit.engines.base import Indexes
from ragkit.engines.opening import create_store, open_or_create, open_store, store_exists
from ragkit.engines.postgres.address import Address
from ragkit.engines.postgres.characters import read, written
from ragkit.engines.postgres.filters import to_sql
from ragkit.engines.postgres.search import search_graph, vector_text
from ragkit.engines.postgres.store import PostgresStore
from ragkit.errors import MissingExtraError
from ragkit.indexes.bm25 import BM25Index
from ragkit.indexes.dense import FaissIndex
from ragkit.retrievers.bm25 import BM25Retriever
from ragkit.retrievers.dense import DenseRetriever
from ragkit.retrievers.hybrid import HybridRetriever
from ragkit.store.store import bm25_and_dense
from ragkit.store.text_index import DenseIndex, LexicalIndex

pytest.importorskip("psycopg_pool", reason="needs psycopg: pip install 'ragkit[postgres]'")


@given(st.lists(st.text(st.characters(codec="utf-8") | st.sampled_from("\0\1\2"))))
def test_characters_come_back_and_keep_their_order(texts: list[str]) -> None:
    assert [read(written(text)) for text in texts] == texts
    assert not any("\0" in written(text) for text in texts)
    assert sorted(texts) == sorted(texts, key=written)


class Gaussian:
    """Vectors that depend on the text alone; clustered, as those of texts are."""

    dimension = 16
    tokenizer = None
    fingerprint = {"kind": "test", "model": "gaussian"}

    def encode_queries(self, texts: Any) -> Any:
        centres = np.random.default_rng(7).normal(size=(20, 16))
        rows = [centres[int(text) % 20] + 0.7 * np.random.default_rng(int(text)).normal(size=16) for text in texts]
        vectors = np.array(rows, np.float32).reshape(-1, 16)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    async def aencode_queries(self, texts: Any) -> Any:
        return self.encode_queries(texts)

    def encode_documents(self, texts: Any, progress: Any = None) -> Any:
        return self.encode_queries(texts)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_graph_finds_nearly_all(engine: Any, precision: Any) -> None:
    """Recall at 10 of HNSW against exact search, over 1,200 vectors: at least 0.95, also under a filter that leaves a tenth."""
    indexes = [
        DenseIndex(Gaussian(), FaissIndex(16, kind, precision=precision, codes_from=500))  # type: ignore[arg-type]
        for kind in ("hnsw", "flat")
    ]
    graph, exact = (engine.create({"dense": index}) for index in indexes)
    documents = [Document(id=str(n), page_content=str(n), metadata={"tenth": n % 10}) for n in range(1_200)]
    queries = [str(n) for n in range(5_000, 5_030)]
    for store in (graph, exact):
        store.upsert(documents[:450])
        assert not _has_graph(store)
        store.upsert(documents[450:])
    assert (_has_graph(graph), _has_graph(exact)) == (True, False)
    kind = "halfvec" if precision == "float16" else "vector"
    vectors = Gaussian().encode_queries(queries)
    for filter in (None, {"tenth": 3}):
        expected = exact.snapshot.search("dense", queries, 10, filter)
        with graph.snapshot._connection() as connection:
            # so few vectors would rather be read one by one
            connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off")
            condition = None if filter is None else to_sql(filter)
            found = search_graph(connection, 0, kind, vectors, 10, condition)
            order = f"vector <#> '{vector_text(vectors[0])}'::{kind}, position"
            plan = connection.execute(f"EXPLAIN SELECT position FROM ragkit_index_0 ORDER BY {order} LIMIT 42").fetchall()
        assert "Index Scan using ragkit_index_0_vector_idx" in str(plan)
        hits = [len(set(ours.positions) & set(theirs.positions)) for ours, theirs in zip(found, expected, strict=True)]
        assert sum(hits) / (10 * len(queries)) >= 0.95
        assert {len(ranking.positions) for ranking in found} == {10}
    # more than the graph would look at
    assert len(DenseRetriever(store=graph, k=1_190).invoke("5000")) == 1_190


def _has_graph(store: Any) -> bool:
    with store.snapshot._connection() as connection:
        return bool(connection.execute("SELECT bool_or(hnsw) FROM ragkit_indexes").fetchone()[0])


@pytest.fixture
def engine(engines: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[Any]:
    made = engines["postgresql"](request)
    yield made
    made.finish()


@pytest.fixture
def url(engine: Any) -> str:
    place: str = engine.place()
    return place


def test_a_read_sees_one_state_from_its_first_to_its_last_step(engine: Any, url: str, make_encoder: Any) -> None:
    store = engine.create(bm25_and_dense(make_encoder()))
    other = engine.reopen(store, make_encoder())
    store.upsert([Document(id="a", page_content="red apple"), Document(id="b", page_content="red pear")])

    def use(snapshot: Any) -> Any:
        [first] = snapshot.search("bm25", ["red"], 10)
        other.delete(["a"])
        other.upsert([Document(id="c", page_content="red red red")])
        [second] = snapshot.search("dense", ["red"], 10)
        return [document.id for document in snapshot.documents([*first.positions, *second.positions])], len(snapshot)

    assert store.read(use) == (["a", "b", "a", "b"], 2)
    assert [document.id for document in BM25Retriever(store=store).invoke("red")] == ["c", "b"]


def test_readers_of_many_threads_never_see_half_a_write(engine: Any, url: str, make_encoder: Any) -> None:
    """The writer replaces all three passages at once; whoever finds one finds all three of the same round."""
    store = engine.create(bm25_and_dense(make_encoder()))
    store.upsert([Document(id=str(n), page_content="stone round", metadata={"round": 0}) for n in range(3)])
    seen: list[set[int]] = []
    stop = threading.Event()

    def read_on() -> None:
        retriever = HybridRetriever(store=store, k=10)
        while not stop.is_set():
            found = retriever.invoke("stone")
            seen.append({document.metadata["round"] for document in found} if len(found) == 3 else {-1})

    threads = [threading.Thread(target=read_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 5):
        store.upsert([Document(id=str(n), page_content=f"stone round {number}", metadata={"round": number}) for n in range(3)])
    stop.set()
    for thread in threads:
        thread.join()
    assert {len(rounds) for rounds in seen} == {1}
    assert -1 not in set.union(*seen)


async def test_more_reads_at_a_time_than_connections(engine: Any, make_encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragkit.engines.postgres.connections._SECONDS", 5.0)
    retriever = BM25Retriever(store=engine.create(bm25_and_dense(make_encoder())))
    retriever.store.upsert([Document(id="a", page_content="stone")])
    asked = [retriever.ainvoke("stone") for _ in range(40)] + [asyncio.to_thread(retriever.invoke, "stone") for _ in range(20)]
    assert {found[0].id for found in await asyncio.gather(*asked)} == {"a"}


def test_event_loops_that_are_gone_are_forgotten(engine: Any) -> None:
    store = engine.create({"bm25": LexicalIndex()})
    retriever = BM25Retriever(store=store)
    for _ in range(3):
        assert asyncio.run(retriever.ainvoke("stone")) == []
    assert len(store._turns) == 1


async def test_a_read_that_is_cancelled_takes_no_connection_any_more(engine: Any) -> None:
    store = engine.create({"bm25": LexicalIndex()})
    begun, gone = asyncio.Event(), threading.Event()
    results: list[Any] = []
    threads: list[threading.Thread] = []

    def late(snapshot: Any) -> None:
        gone.wait()
        try:
            results.append(len(snapshot))
        except StoreError as error:
            results.append(str(error))

    async def use(snapshot: Any) -> None:
        threads.append(threading.Thread(target=late, args=[snapshot]))
        threads[0].start()
        begun.set()
        await asyncio.Event().wait()

    reading = asyncio.create_task(store.aread(use))
    await begun.wait()
    reading.cancel()
    await asyncio.wait([reading])
    gone.set()
    threads[0].join()
    assert str(results[0]).endswith("this read has ended")
    assert store._pool.get_stats().get("requests_num", 0) == 0


async def test_a_read_that_is_cancelled_does_not_wait_for_its_statement(engine: Any) -> None:
    store = engine.create({"bm25": LexicalIndex()})
    begun, ended = threading.Event(), threading.Event()
    results: list[Any] = []

    def slow(snapshot: Any) -> None:
        try:
            with snapshot._connection() as connection:
                begun.set()
                results.append(connection.execute("SELECT pg_sleep(20)").fetchall())
        except StoreError as error:
            results.append(str(error))
        ended.set()

    reading = asyncio.create_task(store.aread(lambda snapshot: asyncio.to_thread(slow, snapshot)))
    await asyncio.to_thread(begun.wait)
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    ended.wait()
    assert "canceling statement due to user request" in results[0]
    stats = store._pool.get_stats()
    assert stats["pool_available"] == stats["pool_size"] == 1
    assert len(store) == 0


def test_whose_error_it_is(engine: Any, postgres: str) -> None:
    """What happens to the store is a `StoreError`; what happens to the caller's own database is left as it is."""
    import psycopg

    store = engine.create({"bm25": LexicalIndex()})

    def fail() -> None:
        with store.write() as draft:
            draft.upsert([Document(id="a", page_content="stone")])
            raise psycopg.OperationalError("theirs")

    with pytest.raises(psycopg.OperationalError, match="theirs"):
        fail()

    def lose(do: Any) -> None:
        with store.write() as draft:
            pid = draft._connection.info.backend_pid
            with psycopg.connect(postgres, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            do(draft)

    for do in (len, lambda draft: draft.upsert([Document(id="a", page_content="stone")]), lambda draft: None):
        with pytest.raises(StoreError, match=r"postgresql://.*: "):
            lose(do)
    assert len(store) == 0


def test_passages_are_counted_as_they_are_written(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    store = engine.create({"bm25": LexicalIndex()})
    store.upsert([Document(id=str(n), page_content=f"stone {n}") for n in range(5)])
    store.upsert([Document(id="0", page_content="changed"), Document(id="1", page_content="stone 1", metadata={"n": 1})])
    store.delete(["2", "2", "absent"])

    def half() -> None:
        with store.write() as draft:
            draft.delete(["3"])
            assert len(draft) == 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    with store.write() as draft:
        with monkeypatch.context() as broken:
            broken.setattr(type(draft), "_write_rows", None)  # after the old passage was removed
            with pytest.raises(TypeError):
                draft.upsert([Document(id="0", page_content="lost")])
        assert len(draft) == 4
    asked: list[str] = []
    execute = psycopg.Connection.execute

    def noted(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(str(query))
        return execute(self, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Connection, "execute", noted)
    assert len(store) == 4
    assert [query for query in asked if "ragkit_" in query and "ragkit_store" not in query] == []
    assert len(store.snapshot.positions()) == 4


def test_words_that_no_passage_has_any_more_are_forgotten(engine: Any) -> None:
    store = engine.create({"bm25": LexicalIndex()})
    for n in range(3):
        store.upsert([Document(id=str(one), page_content=f"stone once{n}x{one}") for one in range(4)])
    store.delete(["0", "absent"])
    with store.snapshot._connection() as connection:
        rows = dict(connection.execute("SELECT term, documents FROM ragkit_terms_0").fetchall())
    assert rows == {"stone": 3, "once2x1": 1, "once2x2": 1, "once2x3": 1}


_WRITER = """
import sys
from langchain_core.documents import Document
from ragkit.engines.opening import open_store
url, who = sys.argv[1:]
with open_store(url) as store:
    for n in range(3):
        with store.write() as draft:
            draft.upsert([Document(id=f"{who}{n}", page_content=f"stone {who} {n}")])
            draft.upsert([Document(id="shared", page_content=f"shared {who} {n}")])
"""


def test_writers_of_several_processes_wait_for_each_other(engine: Any, url: str) -> None:
    with create_store(url, {"bm25": LexicalIndex()}) as store:
        arguments = [[sys.executable, "-c", _WRITER, url, who] for who in ("a", "b")]
        assert [process.wait() for process in [subprocess.Popen(argument) for argument in arguments]] == [0, 0]
        assert len(store) == 7
        found = BM25Retriever(store=store, k=50).invoke("stone")
        assert {document.id for document in found} == {f"{who}{n}" for who in "ab" for n in range(3)}
        # what the statistics count is what is there
        fresh = engine.create({"bm25": LexicalIndex()})
        fresh.upsert(store.read(lambda snapshot: snapshot.documents(snapshot.positions())))
        scores = [
            [d.metadata["relevance_score"] for d in BM25Retriever(store=one, k=50).invoke("stone b 2 shared")]
            for one in (store, fresh)
        ]
        assert scores[0] == pytest.approx(scores[1])
        store.discard()


def test_one_database_holds_several_stores(engine: Any, url: str) -> None:
    awkward = url.replace("schema=", "schema=A%22%3B%20%C3%A9%20")
    assert not store_exists(awkward)
    with (
        open_or_create(awkward, lambda: {"a \"%s' b": LexicalIndex()}) as store,
        open_or_create(url, lambda: {"bm25": LexicalIndex()}) as plain,
    ):
        store.upsert([Document(id="'; DROP SCHEMA x", page_content="stone %s {}", metadata={"%s'": 1})])
        assert (len(store), len(plain)) == (1, 0)
        [found] = BM25Retriever(store=store, index_name="a \"%s' b").invoke("stone", filter={"%s'": 1})
        assert found.id == "'; DROP SCHEMA x"
        with pytest.raises(InputError, match="already an index at"):
            create_store(awkward, {"bm25": LexicalIndex()})
        with open_or_create(awkward, lambda: pytest.fail("it is there")) as again:
            assert len(again) == 1
        for one in (store, plain):
            one.discard()
    assert not store_exists(awkward)


def test_a_store_that_is_gone_is_not_mistaken_for_another(engine: Any, url: str, postgres: str, make_encoder: Any) -> None:
    """Neither for one that took its place, nor for one in the schema of pgvector, where names are looked for, too."""
    import psycopg

    def refused(held: Any) -> None:
        uses = [
            lambda: DenseRetriever(store=held).invoke("stone"),
            lambda: asyncio.run(BM25Retriever(store=held).ainvoke("stone")),
            lambda: held.upsert([Document(id="lost", page_content="stone")]),
            held.discard,
        ]
        for use in uses:
            with pytest.raises(StoreError, match=r"was deleted, or made anew, after it was opened; open it again$"):
                use()

    schema = url.partition("schema=")[2]
    first = create_store(url, bm25_and_dense(make_encoder()))
    first.upsert([Document(id="mine", page_content="my stone")])
    held = [open_store(url, encoder=make_encoder()) for _ in range(2)]
    with psycopg.connect(postgres, autocommit=True) as admin:
        query = "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
        (beside,) = admin.execute(query).fetchone() or ("",)
    with create_store(url.replace(schema, quote(beside)), bm25_and_dense(make_encoder())) as other:
        other.upsert([Document(id="secret", page_content="secret stone")])
        assert [[d.id for d in BM25Retriever(store=one).invoke("stone")] for one in held] == [["mine"], ["mine"]]
        first.discard()
        refused(held[0])
        with create_store(url, bm25_and_dense(make_encoder(name="other"))) as anew:
            refused(held[1])
            assert (len(anew), len(other)) == (0, 1)
            anew.discard()
        other.discard()


def test_errors_say_what_to_do_and_no_password(engine: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        StoreError, match=r"no index at postgresql://.*\?schema=test_.*; build one with: ragkit index PATH --store URL"
    ):
        open_store(url)
    for place in ("postgresql://me:hunter2@127.0.0.1:1/db", "postgresql://me:hunter2@127.0.0.1:1/db?schema=x&application_name=y"):
        with pytest.raises(StoreError, match=r"postgresql://me@127\.0\.0\.1:1/db\?schema=") as raised:
            open_store(place)
        assert "hunter2" not in str(raised.value)
        assert raised.value.__cause__ is None
    for place in ("postgresql://me:hun%ter2@:x/?y=z", "postgresql://me:hunter2@host:port/db"):
        with pytest.raises((InputError, StoreError)) as broken:
            open_store(place)
        assert "hun" not in str(broken.value)
    for schema in ("", "pg_catalog", "x" * 64):
        with pytest.raises(InputError, match="is no name of a schema"):
            open_store(f"postgresql://h/d?schema={schema}")
    with pytest.raises(InputError, match=r"there is no engine for mysql://; use a directory, or .*postgresql://"):
        open_store("mysql://h/d")
    monkeypatch.setitem(sys.modules, "psycopg_pool", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ragkit\[postgres\]'"):
        open_store(url)


def test_readers_are_told_why_there_is_no_connection(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragkit.engines.postgres.connections._SECONDS", 0.5)
    down = PostgresStore(Address.parse("postgresql://me:hunter2@127.0.0.1:1/db"), Indexes({}), None)
    with pytest.raises(StoreError, match=r"^postgresql://me@127\.0\.0\.1:1/db\?schema=ragkit: .*refused") as raised:
        len(down)
    assert "hunter2" not in str(raised.value)
    down.close()
    monkeypatch.setattr("ragkit.engines.postgres.connections._READERS", 1)
    store = engine.create({"bm25": LexicalIndex()})
    with store.snapshot._connection(), pytest.raises(StoreError, match="gave no connection within"):
        len(store)
    store.close()
    with pytest.raises(StoreError, match=r"^postgresql://.* is closed; open it again$"):
        len(store)
    engine.reopen(store)  # to be cleaned up


def test_settings_that_cannot_be_had_are_refused(engine: Any, url: str, make_encoder: Any) -> None:
    for index, message in (
        (LexicalIndex(index=BM25Index(budget=5)), "has a budget"),
        (DenseIndex(make_encoder(), "ivfpq"), "PostgreSQL has auto, flat and hnsw"),
        (DenseIndex(make_encoder(dimension=17_000)), "takes up to 16000"),
    ):
        with pytest.raises(InputError, match=message):
            create_store(url, {"index": index})
    assert not store_exists(url)


@pytest.fixture
def own_server(postgres: str) -> Any:
    """Gives the URL of the server that the tests have started, with other parameters."""
    from psycopg.conninfo import conninfo_to_dict

    if "RAGKIT_POSTGRES" in os.environ:
        pytest.skip("makes databases and roles, which somebody's own server should not get")
    return lambda **changes: "postgresql:///?" + urlencode({**conninfo_to_dict(postgres), **changes}, quote_via=quote)


def test_an_extension_that_another_makes_at_the_same_time(own_server: Any, make_encoder: Any) -> None:
    import psycopg

    with psycopg.connect(own_server(), autocommit=True) as admin, ThreadPoolExecutor() as thread:
        admin.execute("CREATE DATABASE fresh")
        with psycopg.connect(own_server(dbname="fresh")) as other:
            other.execute("CREATE EXTENSION vector")
            created = thread.submit(create_store, own_server(dbname="fresh"), bm25_and_dense(make_encoder()))
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE EXTENSION%'"
            while not created.done() and admin.execute(waits).fetchone() is None:
                pass
            other.commit()
        with created.result() as store:
            store.upsert([Document(id="a", page_content="stone")])
            assert len(DenseRetriever(store=store).invoke("stone")) == 1


def test_without_pgvector_words_alone_can_be_indexed(own_server: Any, make_encoder: Any) -> None:
    import psycopg

    with psycopg.connect(own_server(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE bare")
        admin.execute("CREATE ROLE weak LOGIN")
    with psycopg.connect(own_server(dbname="bare"), autocommit=True) as owner:
        owner.execute("CREATE SCHEMA ragkit AUTHORIZATION weak")
    bare = own_server(dbname="bare", user="weak")
    with pytest.raises(StoreError, match=r"the database has no pgvector \(.*\); install it on the server"):
        create_store(bare, bm25_and_dense(make_encoder()))
    assert not store_exists(bare)
    with create_store(bare, {"bm25": LexicalIndex()}) as store:
        store.upsert([Document(id="a", page_content="stone")])
        assert [document.id for document in BM25Retriever(store=store).invoke("stones")] == ["a"]


def test_from_texts_at_a_url(engine: Any, url: str, make_encoder: Any) -> None:
    retriever = HybridRetriever.from_texts(["red apple", "green pear"], ids=["a", "b"], path=url, encoder=make_encoder(), k=1)
    try:
        assert [d.id for d in HybridRetriever.load(url, encoder=make_encoder(), k=1).invoke("pear")] == ["b"]
        with pytest.raises(InputError, match="already an index"):
            HybridRetriever.from_texts(["x"], path=url, encoder=make_encoder())
    finally:
        retriever.store.discard()
