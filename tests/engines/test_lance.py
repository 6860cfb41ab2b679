"""What is LanceDB's own: versions that readers hold, writers that die, approximate search, and how much is left lying about."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

pytest.importorskip("lancedb", reason="needs lancedb: pip install 'ragkit[lance]'")

from ragkit import InputError, StoreError
from ragkit.encoders.lexical import Analyzer
from ragkit.engines.lance import turns, upkeep
from ragkit.engines.lance.fields import value_of
from ragkit.engines.lance.place import Place
from ragkit.engines.lance.store import LanceStore
from ragkit.engines.lance.tables import PUBLISHED
from ragkit.engines.opening import create_store, open_store, store_exists
from ragkit.errors import MissingExtraError, StaleSnapshotError
from ragkit.indexes.dense import FaissIndex
from ragkit.retrievers.bm25 import BM25Retriever
from ragkit.retrievers.dense import DenseRetriever
from ragkit.store.sparse_index import SparseIndex
from ragkit.store.store import Store
from ragkit.store.text_index import DenseIndex, LexicalIndex

WORDS = [f"w{n}" for n in range(400)]
CHANCES = 1 / np.arange(1, 401) / (1 / np.arange(1, 401)).sum()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"lance://{tmp_path / 'db'}"


def words(*texts: str, first: int = 0) -> list[Document]:
    return [Document(id=f"d{n}", page_content=text) for n, text in enumerate(texts, first)]


def found(store: Any, query: str) -> list[str]:
    return sorted(str(document.id) for document in BM25Retriever(store=store, k=100).invoke(query))


def test_a_reader_stays_where_it_is_until_it_refreshes(url: str, make_encoder: Any) -> None:
    store = create_store(url, {"bm25": LexicalIndex(), "dense": DenseIndex(make_encoder())})
    store.upsert(words("red apple", "blue plum"))
    reader = open_store(url, encoder=make_encoder())
    snapshot = reader.snapshot
    store.delete(["d0"])
    store.upsert(words("red pear", first=2))
    assert found(reader, "red") == ["d0"]
    assert [document.id for document in snapshot.documents(snapshot.positions())] == ["d0", "d1"]
    assert len(snapshot.search("dense", ["red"], 10)[0].positions) == len(snapshot) == 2
    assert reader.refresh()
    assert not reader.refresh()
    assert found(reader, "red") == ["d2"]
    assert [document.id for document in snapshot.documents(snapshot.positions())] == ["d0", "d1"]


def test_what_is_cleaned_up_is_stale_and_reads_move_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_WRITES", 1)
    monkeypatch.setattr(upkeep, "_SLACK", 0.0)
    store = create_store(url, {"bm25": LexicalIndex()})
    store.upsert(words("red apple"))
    reader, late = open_store(url), open_store(url)
    snapshot = late.snapshot
    store.upsert(words("red pear", first=1))
    assert found(reader, "red") == ["d0"]  # the generation before is kept
    store.upsert(words("red plum", first=2))
    store.delete(["d0"])
    with pytest.raises(StaleSnapshotError, match="search again"):
        snapshot.search("bm25", ["red"], 10)
    assert found(late, "red") == ["d1", "d2"]


def test_readers_see_whole_generations_while_others_are_written(url: str, make_encoder: Any) -> None:
    """Every generation has its number in each passage; a reader never sees two."""
    store = create_store(url, {"bm25": LexicalIndex(), "dense": DenseIndex(make_encoder())})
    store.upsert(words(*["stone 0"] * 5))
    reader = open_store(url, encoder=make_encoder())
    seen: set[str] = set()
    errors: list[BaseException] = []
    done = threading.Event()

    def look(snapshot: Any) -> None:
        by_words, by_vectors = (snapshot.search(name, ["stone"], 10)[0].positions for name in ("bm25", "dense"))
        assert sorted(by_words) == sorted(by_vectors) == sorted(snapshot.positions())
        texts = {document.page_content for document in snapshot.documents(by_words)}
        assert len(texts) == 1
        seen.update(texts)

    def read() -> None:
        try:
            while not done.is_set():
                reader.read(look)
                reader.refresh()
            reader.refresh()
            reader.read(look)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for generation in range(1, 6):
        with store.write() as draft:
            draft.delete(["d0", "d1"])
            draft.upsert(words(*[f"stone {generation}"] * 5))
    done.set()
    thread.join()
    assert errors == []
    assert "stone 5" in seen


KILLED = """
import sys
from langchain_core.documents import Document
from ragkit.engines.opening import open_store

with open_store(sys.argv[1]).write() as draft:
    draft.upsert([Document(id="d1", page_content="red changed"), Document(id="d9", page_content="red half")])
    draft.delete(["d0"])
    print("half", flush=True)
    sys.stdin.read()
"""


def test_a_killed_writer_leaves_nothing_that_is_seen(url: str) -> None:
    store = create_store(url, {"bm25": LexicalIndex()})
    store.upsert(words("red apple", "red plum"))
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "half\n"
        with pytest.raises(StoreError, match="another process is writing"):
            store.delete(["d0"])
        writer.kill()
    assert found(open_store(url), "red half changed") == ["d0", "d1"]
    store.upsert(words("red pear", first=2))
    assert found(store, "red half changed") == ["d0", "d1", "d2"]
    assert len(store) == 3
    reference = Store.memory({"bm25": LexicalIndex()})
    reference.upsert(words("red apple", "red plum", "red pear"))
    ours, theirs = (one.snapshot.search("bm25", ["red pear"], 9)[0].scores for one in (store, reference))
    assert ours == pytest.approx(theirs)


def test_a_change_that_fails_is_undone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import lancedb

    store = create_store(url, {"bm25": LexicalIndex()})
    store.upsert(words("red apple", "red plum"))

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no space left on device")

    with store.write() as draft:
        with monkeypatch.context() as full:
            full.setattr(lancedb.table.LanceTable, "add", fail)
            with pytest.raises(StoreError, match="no space left"):
                draft.upsert(words("blue apple", "green apple", "red pear"))
        assert len(draft) == 2
        draft.upsert(words("red cherry", first=3))
    reference = Store.memory({"bm25": LexicalIndex()})
    reference.upsert([*words("red apple", "red plum"), *words("red cherry", first=3)])
    assert found(store, "red blue green apple") == ["d0", "d1", "d3"]
    ours, theirs = (one.snapshot.search("bm25", ["red apple cherry"], 9)[0].scores for one in (store, reference))
    assert ours == pytest.approx(theirs)


def test_what_is_published_is_no_error_if_cleaning_up_fails(
    url: str, objects: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import lancedb

    monkeypatch.setattr(upkeep, "_WRITES", 1)
    store = create_store(url, {"bm25": LexicalIndex()})
    optimize, update = lancedb.table.LanceTable.optimize, lancedb.table.LanceTable.update

    def slow_down(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.name == PUBLISHED:
            raise OSError("slow down")
        return optimize(self, *args, **kwargs)

    def slow_down_at_the_end(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("values") == {"writer": ""}:
            raise OSError("slow down")
        return update(self, *args, **kwargs)

    with monkeypatch.context() as busy:
        busy.setattr(lancedb.table.LanceTable, "optimize", slow_down)
        store.upsert(words("red apple"))
        busy.setattr(lancedb.table.LanceTable, "update", slow_down_at_the_end)
        store.upsert(words("red pear", first=1))
    assert found(store, "red") == found(open_store(url), "red") == ["d0", "d1"]
    assert [record.getMessage().partition(",")[0] for record in caplog.records if record.name.startswith("ragkit")] == [
        "published", "published", f"others cannot write for {turns.LEASE_SECONDS:g} s",
    ]  # fmt: skip


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is treated as object storage is: without locks."""
    parse = Place.parse
    monkeypatch.setattr(Place, "parse", classmethod(lambda cls, url: parse(url)._replace(path=None)))


def test_writers_without_locks_take_turns_by_lease(url: str, objects: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not store_exists(url)
    first = create_store(url, {"bm25": LexicalIndex()})
    assert store_exists(url)
    first.upsert(words("red apple"))
    second = open_store(url)
    with first.write() as draft:
        with pytest.raises(StoreError, match="another process is writing"):
            second.upsert(words("red pear", first=1))
        draft.upsert(words("red plum", first=2))
    second.upsert(words("red pear", first=1))
    assert found(second, "red") == ["d0", "d1", "d2"]

    def silent() -> None:
        with first.write() as draft:
            draft.upsert(words("red half", first=8))
            with monkeypatch.context() as later:
                now = turns.time.time()
                later.setattr(turns.time, "time", lambda: now + turns.LEASE_SECONDS + 1)
                second.upsert(words("red late", first=3))
            draft.upsert(words("red half", first=9))

    with pytest.raises(StoreError, match="another process is writing"):
        silent()
    assert found(open_store(url), "red") == ["d0", "d1", "d2", "d3"]
    second.upsert(words("red end", first=4))
    assert found(second, "red half") == ["d0", "d1", "d2", "d3", "d4"]


class Directions:
    """Vectors by number: 60 clusters, with noise as wide as they are apart."""

    dimension = 32
    tokenizer = None
    fingerprint: Mapping[str, Any] = {"kind": "test", "model": "directions", "dimension": 32}

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        vectors = random.normal(size=(60, 32))[random.integers(0, 60, 4_000)] + 0.7 * random.normal(size=(4_000, 32))
        self.vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def encode_documents(self, texts: Any, progress: Any = None) -> Any:
        return self.vectors[[int(text) for text in texts]]

    encode_queries = encode_documents

    async def aencode_queries(self, texts: Any) -> Any:
        return self.encode_documents(texts)


class Letters(Directions):
    """A stand-in for a learned sparse encoder."""

    vocabulary = 30

    def terms(self, ids: Any) -> list[str]:
        return list(map(str, ids))


def test_recall_of_the_vector_index(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least 0.95 of the true ten, for passages that the index knows and those that came later, with and without a filter."""
    monkeypatch.setattr(upkeep, "_CHANGED", 1_000)
    encoder = Directions()
    store = create_store(url, {"dense": DenseIndex(encoder, FaissIndex(32, "ivf", codes_from=1_000))})
    documents = [Document(id=str(n), page_content=str(n), metadata={"third": n % 3 == 0}) for n in range(3_500)]
    store.upsert(documents[:3_000])
    assert isinstance(store, LanceStore)
    assert store.snapshot.state.indexed == {"vector_0": 3_000}
    store.upsert(documents[3_000:])
    store.delete([str(n) for n in range(0, 3_500, 7)])
    live = np.array([n for n in range(3_500) if n % 7])
    questions = encoder.vectors[3_500:3_540]
    for filter, allowed in ((None, live), ({"third": True}, live[live % 3 == 0])):
        scores = questions @ encoder.vectors[allowed].T
        best = allowed[np.argsort(-scores, axis=1)[:, :10]]
        hits = store.snapshot.search_vectors("dense", questions, 10, filter)
        ours = [[int(d.id or "") for d in store.snapshot.documents(hit.positions)] for hit in hits]
        assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(ours, best.tolist(), strict=True)]) >= 0.95
        for row, (ids, hit) in enumerate(zip(ours, hits, strict=True)):
            assert hit.scores == pytest.approx(encoder.vectors[ids] @ questions[row], rel=1e-5, abs=1e-6)
    few = store.snapshot.search_vectors("dense", questions[:1], 5_000)[0]  # more than there are: all of them
    assert len(few.positions) == len(live)


def test_what_the_full_text_index_proposes_is_what_is_best(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same scores as in memory, and at least 0.98 of the same ten, where the proposals are a part of what matches."""
    monkeypatch.setattr(upkeep, "_CHANGED", 500)
    monkeypatch.setattr(upkeep, "WORDS_FROM", 1_000)
    monkeypatch.setattr(upkeep, "LOOKUP_FROM", 1_000)
    monkeypatch.setattr("ragkit.engines.lance.search._LEAST", 100)
    random = np.random.default_rng(0)
    documents = [
        Document(id=str(n), page_content=" ".join(random.choice(WORDS, random.integers(5, 40), p=CHANCES)), metadata={"n": n})
        for n in range(1_500)
    ]
    stores = [
        make({"bm25": LexicalIndex(Analyzer("english"), title_weight=3.0)})
        for make in (lambda indexes: create_store(url, indexes), Store.memory)
    ]
    for one in stores:
        one.upsert(documents[:1_200])
        one.upsert(documents[1_200:])
        one.delete([str(n) for n in range(0, 1_500, 5)])
    assert "words_0" in stores[0].snapshot.state.indexed  # type: ignore[attr-defined]
    questions = [" ".join(random.choice(WORDS, 4, p=CHANCES)) for _ in range(30)]
    for filter in (None, {"n": {"$lt": 600}}):
        answers, expected = (BM25Retriever(store=one, k=10).batch(questions, filter=filter) for one in stores)
        same = total = 0
        for ours, theirs in zip(answers, expected, strict=True):
            known = {d.id: d.metadata["relevance_score"] for d in theirs}
            assert len(ours) == len(theirs)
            for document in ours:
                if document.id in known:
                    assert document.metadata["relevance_score"] == pytest.approx(known[document.id], rel=1e-5)
            same, total = same + len({d.id for d in ours} & known.keys()), total + len(known)
        assert same / total >= 0.98
    assert stores[0].snapshot.search("bm25", ["unknown"], 3)[0].positions.tolist() == []


def files(url: str) -> int:
    return sum(path.is_file() for path in Path(url.removeprefix("lance://")).rglob("*"))


def test_what_is_replaced_does_not_pile_up(url: str, make_encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_WRITES", 4)
    monkeypatch.setattr(upkeep, "_SLACK", 0.0)
    monkeypatch.setattr(upkeep, "ROW_SECONDS", 0.0)
    store = create_store(url, {"bm25": LexicalIndex(), "dense": DenseIndex(make_encoder())})
    counts = []
    for write in range(16):
        store.upsert(words(*[f"stone {write} {n}" for n in range(3)]))
        counts.append(files(url))
    assert max(counts[12:]) <= max(counts[8:12])
    assert found(store, "stone 15") == ["d0", "d1", "d2"]
    reference = Store.memory({"bm25": LexicalIndex()})
    reference.upsert(words(*[f"stone 15 {n}" for n in range(3)]))
    ours, theirs = (one.snapshot.search("bm25", ["stone 15 2 14"], 9)[0].scores for one in (store, reference))
    assert ours == pytest.approx(theirs)  # what terms occur in is still known
    assert len(DenseRetriever(store=store, k=10).invoke("stone")) == 3


numbers = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 2.0**62, 2**62 + 1, 5e-324, -5e-324, 1.7976931348623157e308, 0.1, 1]),
)  # fmt: skip


@given(numbers, numbers)
def test_bytes_are_in_the_order_of_numbers(a: float, b: float) -> None:
    for holds in ("__lt__", "__eq__", "__gt__"):
        assert getattr(value_of(a), holds)(value_of(b)) == getattr(Fraction(a), holds)(Fraction(b))


def test_numbers_beyond_64_bits_are_floats() -> None:
    assert value_of(2**70) == value_of(float(2**70))
    assert value_of(10**400) > value_of(1.7e308) > value_of(-(10**400))


def test_where_a_store_is() -> None:
    assert Place.parse("lance:///a/b%20c") == Place("/a/b c", {}, "lance:///a/b c", Path("/a/b c"))
    assert Place.parse("lance://a/b").path == Path("a/b").absolute()
    there = Place.parse("LANCE+S3://bucket/a?region=eu&secret_access_key=x%2Fy")
    assert there == Place("s3://bucket/a", {"region": "eu", "secret_access_key": "x/y"}, "lance+s3://bucket/a", None)
    for url, message in (("lance://", "names no place"), ("lance:///", "names no place"), ("lance://a?b=c", "takes no options")):
        with pytest.raises(InputError, match=message):
            Place.parse(url)


def test_why_object_storage_cannot_be_reached() -> None:
    where = "endpoint=http://127.0.0.1:1&allow_http=true&region=eu&client_max_retries=0"
    with pytest.raises(StoreError, match=r"^lance\+s3://bucket/store: .*Connection refused") as raised:
        open_store(f"lance+s3://bucket/store?{where}&aws_access_key_id=AKIA7&aws_secret_access_key=hunter2")
    assert "hunter2" not in str(raised.value)
    assert len(str(raised.value)) < 700


def test_what_cannot_be_had_is_refused(url: str, make_encoder: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"no index at {url}; build one with"):
        open_store(url)
    assert not (tmp_path / "db").exists()
    for index, message in (
        (DenseIndex(make_encoder(), FaissIndex(64, "hnsw")), "LanceDB has auto, flat and ivf"),
        (SparseIndex(Letters(), ceiling=3.0), "has a ceiling"),
    ):
        with pytest.raises(InputError, match=message):
            create_store(url, {"x": index})
    store = create_store(url, {"bm25": LexicalIndex()})
    with pytest.raises(InputError, match="already an index at"):
        create_store(url, {"bm25": LexicalIndex()})
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.upsert(words("x"))
    assert len(open_store(url)) == 0


def test_a_store_whose_creation_was_interrupted_is_none(url: str, tmp_path: Path) -> None:
    import lancedb

    lancedb.connect(tmp_path / "db").create_table("ragkit_passages", [{"a": 1}])
    (tmp_path / "db/ragkit_published.lance/data").mkdir(parents=True)
    assert not store_exists(url)
    with pytest.raises(StoreError, match="no index at"):
        open_store(url)
    store = create_store(url, {"bm25": LexicalIndex()})
    store.upsert(words("red"))
    assert found(store, "red") == ["d0"]


def test_a_store_that_is_made_anew(url: str, make_encoder: Any) -> None:
    """Whoever had opened it moves on to one with the same indexes, whatever its generation, and leaves others alone."""
    old = create_store(url, {"dense": DenseIndex(make_encoder())})
    old.upsert(words("red apple"))
    held = [open_store(url, encoder=make_encoder()) for _ in range(2)]
    old.discard()
    same = create_store(url, {"dense": DenseIndex(make_encoder())})
    same.upsert(words("blue plum", first=7))
    assert [document.id for document in DenseRetriever(store=held[0]).invoke("red")] == ["d7"]
    same.discard()
    other = create_store(url, {"dense": DenseIndex(make_encoder(name="other"))})
    other.upsert(words("green pear", first=8))
    with pytest.raises(StoreError, match=r"was made anew, with other indexes, .*; open it again"):
        DenseRetriever(store=held[1]).invoke("red")
    with pytest.raises(StoreError, match="was made anew"):
        held[0].upsert(words("red cherry", first=9))
    assert [document.id for document in DenseRetriever(store=other).invoke("red")] == ["d8"]


def test_tables_of_others_stay(url: str, tmp_path: Path) -> None:
    import lancedb

    other = lancedb.connect(tmp_path / "db").create_table("passages", [{"a": 1}])
    store = create_store(url, {"bm25": LexicalIndex()})
    store.upsert(words("red"))
    store.discard()
    assert not store_exists(url)
    assert other.count_rows() == 1
    create_store(url, {"bm25": LexicalIndex()}).upsert(words("red"))


def test_without_the_package_the_extra_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    for use in (store_exists, open_store, lambda place: create_store(place, {})):
        with pytest.raises(MissingExtraError, match=r"ragkit\[lance\]"):
            use(url)
