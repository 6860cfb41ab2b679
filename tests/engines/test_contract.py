"""What every store promises, on every engine: the same data gives the same hits as in memory."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit import InputError, Pipeline, StoreError, index_paths
from ragkit.corpus.changes import SourceText
from ragkit.corpus.patterns import Pattern
from ragkit.documents.provenance import KEY
from ragkit.encoders.lexical import Analyzer
from ragkit.errors import StaleSnapshotError
from ragkit.indexes.bm25 import BM25Index
from ragkit.indexes.bm25_formulas import Variant
from ragkit.retrievers.bm25 import BM25Retriever
from ragkit.retrievers.dense import DenseRetriever
from ragkit.retrievers.documents import DocumentRetriever
from ragkit.retrievers.exact import ExactRetriever
from ragkit.retrievers.fast_forward import FastForwardRetriever
from ragkit.retrievers.feedback import RM3Retriever, RocchioRetriever
from ragkit.retrievers.hybrid import HybridRetriever
from ragkit.retrievers.long_units import LongUnitRetriever
from ragkit.retrievers.sparse import SparseRetriever
from ragkit.retrievers.units import UnitRetriever
from ragkit.sparse_vectors import SparseVectors
from ragkit.store.base import BaseStore
from ragkit.store.passages import passages
from ragkit.store.sparse_index import SparseIndex
from ragkit.store.store import Store
from ragkit.store.text_index import DenseIndex, LexicalIndex, TextIndex
from ragkit.store.unit_index import UnitIndex

WORDS = [
    "red", "green", "blue", "apple", "pear", "plum", "tree", "garden", "winter", "summer", "river", "stone", "bread", "water",
    "running", "houses", "Äpfel", "日本語", "день",
]  # fmt: skip
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.nested_given], max_examples=6)


class WordWeights:
    """A stand-in for a learned sparse encoder: words weigh the more the longer they are."""

    vocabulary = 5_000
    tokenizer = None
    fingerprint: Mapping[str, Any] = {"kind": "test", "model": "words"}

    def encode_queries(self, texts: Sequence[str]) -> SparseVectors:
        rows = []
        for text in texts:
            weights: dict[int, float] = {}
            for word in text.lower().split():
                place = sum(map(ord, word)) % self.vocabulary
                weights[place] = weights.get(place, 0.0) + 1 / (1 + len(word))
            rows.append((list(weights), list(weights.values())))
        return SparseVectors.of(rows)

    async def aencode_queries(self, texts: Sequence[str]) -> SparseVectors:
        return self.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str], progress: Any = None) -> SparseVectors:
        return self.encode_queries(texts)

    def terms(self, ids: Sequence[int]) -> list[str]:
        return [str(id_) for id_ in ids]


def three(encoder: Any) -> dict[str, TextIndex]:
    lexical = LexicalIndex(heading_weight=2.5, title_weight=0.3)
    return {"bm25": lexical, "dense": DenseIndex(encoder, "flat"), "sparse": SparseIndex(WordWeights())}


def corpus(count: int = 60, seed: int = 0) -> list[Document]:
    """With repeated texts, titles, and metadata of several types."""
    random = np.random.default_rng(seed)
    documents = []
    for n in range(count):
        text = " ".join(random.choice(WORDS, random.integers(1, 25)))
        metadata: dict[str, Any] = {"n": n, "even": n % 2 == 0, "lang": ["en", "de", "fr"][n % 3]}
        if n % 4 == 0:
            metadata["title"] = "winter garden"
        if n % 5 == 0:
            metadata["score"] = n / 10
        documents.append(Document(id=f"d{n}", page_content=text, metadata=metadata))
    return documents + [Document(id=f"same{n}", page_content="blue stone river", metadata={"lang": "en"}) for n in range(5)]


RETRIEVERS: dict[str, Any] = {
    "bm25": BM25Retriever,
    "dense": DenseRetriever,
    "sparse": SparseRetriever,
    "hybrid": HybridRetriever,
    "rrf": lambda store: HybridRetriever(
        store=store, retrievers=[BM25Retriever(store=store), SparseRetriever(store=store)], fusion="rrf"
    ),
    "fast-forward": FastForwardRetriever,
    "rocchio": lambda store: RocchioRetriever(store=store, index_name="dense"),
    "rm3": lambda store: RM3Retriever(store=store, index_name="sparse"),
    "exact": ExactRetriever,
    "documents": DocumentRetriever,
}
PLAIN = {"bm25", "dense", "sparse"}
FILTERS: list[Any] = [
    None,
    {"lang": "de"},
    {"n": {"$gte": 10, "$lt": 40}, "even": True},
    {"$or": [{"score": {"$gt": 2.5}}, {"lang": {"$in": ["fr"]}}]},
    {"$not": {"even": True}},
    {"score": {"$ne": 1.5}},
    {"n": {"$nin": list(range(0, 60, 2))}},
    {"score": {"$gte": np.float64(2.5)}, "n": {"$lt": IntEnum("Limit", {"FIFTY": 50})["FIFTY"]}},
]
QUERIES = ["blue stone", "winter garden apples", "Äpfel 日本語", "running river water red green plum", "unknownword", " "]


def same_hits(found: Sequence[Document], everything: Sequence[Document]) -> None:
    """`found` are the best of `everything`, a complete ranking: the same scores, and the same passages but for equal scores."""
    known = {document.id: document.metadata["relevance_score"] for document in everything}
    scores = [document.metadata["relevance_score"] for document in found]
    assert scores == pytest.approx([d.metadata["relevance_score"] for d in everything][: len(found)], rel=1e-5, abs=1e-7)
    assert [known[d.id] for d in found] == pytest.approx(scores, rel=1e-5, abs=1e-7)
    assert len({d.id for d in found}) == len(found)
    place = {document.id: n for n, document in enumerate(everything)}
    texts: dict[str, list[int]] = {}
    for document in found:
        texts.setdefault(document.page_content + str(document.metadata.get("title")), []).append(place[document.id])
    for places in texts.values():  # equal texts are in the order of their positions, and the first of them are there
        assert places == sorted(places)


def compare(store: BaseStore, reference: BaseStore, make: Any, queries: Sequence[str], ks: Sequence[int], filter: Any) -> None:
    ours, theirs = make(store=store), make(store=reference)
    everything = theirs.batch(list(queries), k=10_000, filter=filter)
    for k in ks:
        for found, all_ in zip(ours.batch(list(queries), k=k, filter=filter), everything, strict=True):
            assert len(found) == min(k, len(all_))
            same_hits(found, all_)


@pytest.fixture
def filled(engine: Any, make_encoder: Any) -> tuple[BaseStore, BaseStore]:
    """A store of the engine and one in memory, with the same passages after the same changes."""
    store, reference = engine.create(three(make_encoder())), Store.memory(three(make_encoder()))
    for one in (store, reference):
        one.upsert(corpus())
        one.upsert([Document(id="d3", page_content="plum bread", metadata={"lang": "en", "n": 3}), *corpus(70)[60:70]])
        one.delete(["d7", "d8", "absent"])
    return store, reference


def test_the_same_hits(filled: Any) -> None:
    for filter in FILTERS:
        for name in PLAIN:
            compare(*filled, RETRIEVERS[name], QUERIES, [500] if filter else [1, 10, 500], filter)


def test_more_hits_than_any_store_has(filled: Any) -> None:
    for store in filled:
        for name in ("bm25", "dense", "sparse"):
            [ranking] = store.snapshot.search(name, ["blue stone"], sys.maxsize)
            assert len(ranking.positions) == len(store.snapshot.search(name, ["blue stone"], 1_000)[0].positions) > 0


def test_the_same_hits_of_what_is_built_on_them(filled: Any) -> None:
    for name in RETRIEVERS.keys() - PLAIN:
        ours, theirs = (RETRIEVERS[name](store=store) for store in filled)
        for k, filter in ((1, None), (5, FILTERS[1]), (300, None)):
            answers = ours.batch(QUERIES, k=k, filter=filter), theirs.batch(QUERIES, k=k, filter=filter)
            for found, expected in zip(*answers, strict=True):
                scores = [document.metadata["relevance_score"] for document in expected]
                its = [document.metadata["relevance_score"] for document in found]
                assert its == pytest.approx(scores, rel=1e-5, abs=1e-6), name
                if len(set(np.round(scores, 5))) == len(scores):
                    assert [document.id for document in found] == [document.id for document in expected], name


async def test_asynchronous_search_finds_the_same(filled: Any) -> None:
    store, _ = filled
    for make in (BM25Retriever, DenseRetriever, SparseRetriever, HybridRetriever):
        retriever = make(store=store, k=7, filter={"lang": "en"})
        found = await retriever.abatch(QUERIES)
        assert [[d.id for d in answer] for answer in found] == [[d.id for d in answer] for answer in retriever.batch(QUERIES)]


def test_every_variant_of_bm25(engine: Any) -> None:
    def indexes() -> dict[str, TextIndex]:
        return {variant: LexicalIndex(Analyzer("german"), BM25Index(variant, k1=0.9, b=0.4)) for variant in get_args(Variant)}

    store, reference = engine.create(indexes()), Store.memory(indexes())
    for one in (store, reference):
        one.upsert(corpus())
        one.delete([f"d{n}" for n in range(20, 30)])
    for variant in get_args(Variant):
        compare(store, reference, partial(BM25Retriever, index_name=variant), QUERIES, [5, 100], None)


def test_half_precision(engine: Any, make_encoder: Any) -> None:
    from ragkit.indexes.dense import FaissIndex

    store, reference = (
        make({"dense": DenseIndex(make_encoder(), FaissIndex(64, "flat", precision="float16"))})
        for make in (engine.create, Store.memory)
    )
    for one in (store, reference):
        one.upsert(corpus())
        one.upsert([Document(id="twin", page_content="blue stone river")])
    for found, expected in zip(*(DenseRetriever(store=one, k=20).batch(QUERIES) for one in (store, reference)), strict=True):
        scores = [[document.metadata["relevance_score"] for document in answer] for answer in (found, expected)]
        assert scores[0] == pytest.approx(scores[1], abs=2e-3)


texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.dictionaries(st.integers(0, 12), texts, min_size=1, max_size=5).map(dict.items)),
        st.tuples(st.just("delete"), st.lists(st.integers(0, 12), max_size=4)),
    ),
    min_size=1,
    max_size=4,
)


def test_whatever_is_changed_the_hits_stay_the_same(engine: Any, make_encoder: Any) -> None:
    """The stores live on from one example to the next, so histories are long."""
    store, reference = engine.create(three(make_encoder())), Store.memory(three(make_encoder()))

    @shared
    @given(changes, texts, st.integers(1, 20))
    def check(steps: Any, query: str, k: int) -> None:
        for one in (store, reference):
            for kind, items in steps:
                if kind == "upsert":
                    one.upsert([Document(id=f"h{n}", page_content=text, metadata={"n": n}) for n, text in items])
                else:
                    one.delete([f"h{n}" for n in items])
        assert len(store) == len(reference)
        for make in (BM25Retriever, DenseRetriever, SparseRetriever):
            compare(store, reference, make, [query], [k], None)

    check()


# no floats beside integers that they nearly equal: beyond 64 bits SQLite compares as floats, others exactly
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3),
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, -0.0, 0.5, 1.0, 2.0, 1e300]), st.text(max_size=3),
    st.sampled_from(["1", "true", "null", "a", "b", "é", "e\u0301", "'", '"', "%s"]),
)  # fmt: skip
fields = st.sampled_from(["a", "b", "%s", "it's", 'a"b', "ключ", "a.b", "$x y".strip("$")])
ordered = scalars.filter(lambda value: value is not None and not isinstance(value, bool))
conditions = st.one_of(
    scalars,
    st.dictionaries(st.sampled_from(["$eq", "$ne"]), scalars, min_size=1),
    st.dictionaries(st.sampled_from(["$in", "$nin"]), st.lists(scalars, max_size=20), min_size=1),
    st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), ordered, min_size=1),
)
filters = st.recursive(
    st.dictionaries(fields, conditions, max_size=2),
    lambda inner: st.one_of(
        st.builds(lambda parts: {"$and": parts}, st.lists(inner, max_size=3)),
        st.builds(lambda parts: {"$or": parts}, st.lists(inner, max_size=3)),
        st.builds(lambda part: {"$not": part}, inner),
    ),
    max_leaves=4,
)
metadatas = st.dictionaries(fields, st.one_of(scalars, st.lists(scalars, max_size=2)), max_size=4)


def test_filters_mean_the_same(engine: Any) -> None:
    store, reference = engine.create({"bm25": LexicalIndex()}), Store.memory({"bm25": LexicalIndex()})
    everything = {"a": 0, "b": 0, "%s": 0, "it's": 0, 'a"b': 0, "ключ": 0, "a.b": 0, "x y": 0}
    for one in (store, reference):
        one.upsert([Document(id="all", page_content="stone", metadata=everything)])

    @shared
    @given(st.lists(metadatas, min_size=1, max_size=6), st.lists(filters, min_size=1, max_size=6))
    def check(metadata: Any, some: Any) -> None:
        for one in (store, reference):
            one.upsert([Document(id=f"m{n}", page_content="stone", metadata=its) for n, its in enumerate(metadata)])
        for filter in some:
            found, expected = (BM25Retriever(store=one, k=50).invoke("stone", filter=filter) for one in (store, reference))
            assert [document.id for document in found] == [document.id for document in expected], filter

    check()


def test_a_field_that_no_passage_has_is_told(filled: Any) -> None:
    store, _ = filled
    for filter in ({"lnag": "en"}, {"$not": {"lnag": {"$gt": 1}}}):
        with pytest.raises(InputError, match="no passage has the metadata field 'lnag'; known fields: even, lang, n, sco"):
            BM25Retriever(store=store).invoke("stone", filter=filter)
    with pytest.raises(InputError, match="unknown operator"):
        DenseRetriever(store=store).invoke("stone", filter={"lang": {"$regex": "e"}})
    store.read(lambda snapshot: snapshot.check_field("lang"))
    with pytest.raises(InputError, match=r"^by: no passage"):
        store.read(lambda snapshot: snapshot.check_field("x", "by"))


def test_an_empty_store(engine: Any, make_encoder: Any) -> None:
    store = engine.create(three(make_encoder()))
    assert len(store) == 0
    for make in (BM25Retriever, DenseRetriever, SparseRetriever, HybridRetriever, ExactRetriever):
        assert make(store=store).invoke("stone") == []
        assert make(store=store).invoke("stone", filter={"any": 1}) == []
    assert store.upsert([]) == []
    assert store.delete(["absent"]) == []
    assert BM25Retriever(store=store).get(["absent"]) == []
    assert (store.snapshot.sources(), store.snapshot.source_text("absent"), len(store.snapshot.positions())) == ([], None, 0)
    assert passages(store) == []


def test_different_documents_with_one_id_are_refused(engine: Any, make_encoder: Any) -> None:
    store = engine.create(three(make_encoder()))
    with pytest.raises(InputError, match="the id 'x'"):
        store.upsert([Document(id="x", page_content="red apple"), Document(id="x", page_content="blue plum")])
    assert len(store) == 0


def test_upsert_replaces_and_metadata_alone_may_change(engine: Any, make_encoder: Any) -> None:
    encoder = make_encoder()
    store = engine.create(three(encoder))
    retriever = HybridRetriever(store=store, k=10)
    first = [Document(id="a", page_content="red apple", metadata={"n": 1}), Document(id="b", page_content="pear")]
    assert store.upsert(first) == ["a", "b"]
    before, encoded = store.snapshot.positions().tolist(), encoder.encoded
    store.upsert([Document(id="a", page_content="red apple", metadata={"n": 2})])
    assert (store.snapshot.positions().tolist(), encoder.encoded) == (before, encoded)
    assert retriever.get(["a", "zz", "a"])[0].metadata == {"n": 2}
    store.upsert([Document(id="c", page_content="red apple")])
    assert encoder.encoded == encoded  # its vector is known
    store.upsert([Document(id="a", page_content="blue plum"), Document(id="a", page_content="blue plum")])
    assert [d.id for d in BM25Retriever(store=store).invoke("red apple plum")] == ["c", "a"]
    assert store.snapshot.positions().tolist()[:2] == [before[1], before[1] + 1]
    assert store.delete(["c", "absent", "c"]) == ["c"]
    assert BM25Retriever(store=store).invoke("red") == []
    assert len(store) == 2
    with pytest.raises(StaleSnapshotError if not isinstance(store, Store) else StoreError):
        store.snapshot.documents([before[0]])
    # positions are not given again
    store.upsert([Document(id="e", page_content="last")])
    assert store.snapshot.positions()[-1] > before[1] + 1


AWKWARD = [
    "nul \0 inside, \1 and \1\1 too", "astral 🧊 and combining e\u0301", "right \u200fto\u200e left",
    "\t\r\n\x0b\x0c\x1c\x85\u2028", "'; DROP TABLE x; --", "%s %(a)s {} $1 \\ \\x00", "\x7f\x80\uffff\U0010ffff", "",
    "stone " * 20_000, "x" * 50_000, " ".join(map(str, range(20_000))),
]  # fmt: skip


def test_whatever_text_there_is_comes_back(engine: Any, make_encoder: Any) -> None:
    encoder = make_encoder()
    stores = [engine.create(three(encoder)), Store.memory(three(encoder))]
    store = stores[0]
    deep = {"float": 1.0, "deep": [{"k\0": None}]}
    documents = [
        Document(id=f"{n} {text[:3000]}", page_content=text, metadata={text[:50] or "empty": text[:99], **deep})
        for n, text in enumerate(AWKWARD)
    ]
    for one in stores:
        one.upsert(documents)
        one.upsert(documents)
        assert len(one) == len(documents)
    assert BM25Retriever(store=store).get([str(document.id) for document in documents]) == documents
    back = BM25Retriever(store=store).get([str(documents[0].id)])[0]
    assert repr(back.metadata) == repr(documents[0].metadata)  # 1.0 is not 1, and keys keep their order
    for text in AWKWARD[:7]:
        if "\0" in text and isinstance(store, Store):
            continue  # to SQLite, the name of a field ends there
        filter = {text[:50]: text[:99]}
        assert [d.page_content for d in DenseRetriever(store=store, k=20).invoke("nul", filter=filter)] == [text]
    compare(*stores, BM25Retriever, ["stone", "19999 inside", "x" * 50_000, "x" * 49_999, AWKWARD[-1]], [3], None)
    literal = ExactRetriever(store=store).invoke("nul \0 ")
    assert [document.page_content for document in literal] == [AWKWARD[0]]


@settings(shared, max_examples=5)
@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=40), st.text(max_size=10)), min_size=1, max_size=4))
def test_any_unicode(unicode_store: BaseStore, given_: Any) -> None:
    documents = {id_ or "-": Document(id=id_ or "-", page_content=text, metadata={"key": value}) for id_, text, value in given_}
    unicode_store.upsert(list(documents.values()))
    unicode_store.upsert([Document(id="x", page_content="x")])
    assert BM25Retriever(store=unicode_store).get(list(documents)) == list(documents.values()) or "x" in documents
    for document in documents.values():
        found = DenseRetriever(store=unicode_store, k=1000).invoke("x", filter={"key": document.metadata["key"]})
        assert document.id in {hit.id for hit in found} or document.id == "x"


@pytest.fixture
def unicode_store(engine: Any, make_encoder: Any) -> BaseStore:
    store: BaseStore = engine.create({"dense": DenseIndex(make_encoder())})
    return store


def test_what_is_written_is_there_after_opening_again(engine: Any, make_encoder: Any) -> None:
    store = engine.create({"bm25": LexicalIndex(Analyzer("german")), "dense": DenseIndex(make_encoder())})
    with store.write() as draft:
        draft.upsert(corpus())
        draft.split_with({"size": 7})
        draft.replace_sources({"/f": [SourceText("/f", "digest", "text\0\r\n")]})
    again = engine.reopen(store, make_encoder())
    assert (again.language, again.encoder.dimension, len(again)) == ("de", 64, 65)
    assert again.snapshot.settings == store.snapshot.settings
    compare(again, store, HybridRetriever, QUERIES, [5], {"lang": "en"})
    assert again.snapshot.source_text("/f") == "text\0\r\n"
    with again.write() as draft:
        assert (draft.split, draft.file_digests(), len(draft)) == ({"size": 7}, {"/f": "digest"}, 65)
    assert "password" not in again.name


def test_another_encoder_is_refused(engine: Any, make_encoder: Any) -> None:
    store = engine.create({"bm25": LexicalIndex(), "dense": DenseIndex(make_encoder())})
    store.upsert([Document(id="a", page_content="pear")])
    other = engine.reopen(store, make_encoder(dimension=32, name="other"))
    with pytest.raises(StoreError, match=r"built with encoder 'hash', not 'other' \(different: dimension, model\)"):
        DenseRetriever(store=other).invoke("pear")
    with pytest.raises(StoreError, match="built with encoder"):
        other.upsert([Document(page_content="x")])
    assert [d.id for d in BM25Retriever(store=other).invoke("pear")] == ["a"]


def test_a_write_is_seen_whole_or_not_at_all(engine: Any, make_encoder: Any) -> None:
    store = engine.create(three(make_encoder()))
    store.upsert([Document(id="a", page_content="red apple")])
    reader = engine.reopen(store, {"dense": make_encoder(), "sparse": WordWeights()})
    with store.write() as draft:
        draft.upsert([Document(id="b", page_content="red pear")])
        draft.delete(["a"])
        assert len(draft) == 1
        assert [d.id for d in HybridRetriever(store=reader).invoke("red")] == ["a"]
    reader.refresh()
    assert [d.id for d in HybridRetriever(store=reader).invoke("red")] == ["b"]

    def half() -> None:
        with store.write() as draft:
            draft.upsert([Document(id="c", page_content="red plum")])
            draft.delete(["b"])
            draft.replace_sources({"/f": [SourceText("/f", "digest", "text")]})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    for one in (store, reader):
        one.refresh()
        assert [d.id for d in HybridRetriever(store=one).invoke("red")] == ["b"]
        assert one.snapshot.sources() == []
    compare(reader, store, BM25Retriever, ["red pear"], [5], None)


def test_a_failing_encoder_changes_nothing(engine: Any, make_encoder: Any) -> None:
    encoder = make_encoder()
    store = engine.create(three(encoder))
    store.upsert([Document(id="a", page_content="red apple")])

    def fail(texts: Any, progress: Any = None) -> Any:
        raise RuntimeError("out of memory")

    works, encoder.encode_documents = encoder.encode_documents, fail
    with store.write() as draft:
        with pytest.raises(RuntimeError, match="out of memory"):
            draft.upsert([Document(id="a", page_content="changed"), Document(id="b", page_content="pear")])
        encoder.encode_documents = works
        draft.upsert([Document(id="c", page_content="plum")])
    assert {d.id for d in BM25Retriever(store=store).invoke("red changed pear plum", k=9)} == {"a", "c"}
    assert len(store) == 2


def test_one_write_at_a_time_in_a_thread(engine: Any) -> None:
    store = engine.create({"bm25": LexicalIndex()})
    with store.write(), pytest.raises(StoreError, match="already open in this thread"), store.write():
        pass


def test_writers_do_not_lose_what_others_write(engine: Any, make_encoder: Any) -> None:
    """Each waits until the other is done, or is refused and tries again."""
    first = engine.create({"bm25": LexicalIndex(), "dense": DenseIndex(make_encoder())})
    stores = [first, engine.reopen(first, make_encoder())]
    errors: list[BaseException] = []

    def write(store: BaseStore, who: int) -> None:
        for n in range(4):
            while True:
                try:
                    own = Document(id=f"w{who}-{n}", page_content=f"stone {who} {n}")
                    store.upsert([own, Document(id=f"both{n}", page_content=f"x{who}")])
                    break
                except StoreError as error:
                    if "another process is writing" not in str(error):
                        errors.append(error)
                        return

    threads = [threading.Thread(target=write, args=(store, who)) for who, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    last = engine.reopen(first, make_encoder())
    assert len(last) == 12
    assert {d.id for d in BM25Retriever(store=last, k=50).invoke("stone")} == {f"w{who}-{n}" for who in (0, 1) for n in range(4)}
    assert len(DenseRetriever(store=last, k=50).invoke("stone")) == 12
    reference = Store.memory({"bm25": LexicalIndex(), "dense": DenseIndex(make_encoder())})
    reference.upsert(last.read(lambda snapshot: snapshot.documents(snapshot.positions())))
    compare(last, reference, BM25Retriever, ["stone 1 x0", "stone 3"], [5, 50], None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fruit.md").write_text("# Fruit\n\nApples are red. Bananas are yellow.\n\n## Storage\n\nKeep bananas warm.\n")
    (tmp_path / "cars.txt").write_text("Cars have four wheels. Some cars are electric. " * 30)
    (tmp_path / "facts.jsonl").write_text('{"id": "f1", "text": "The moon orbits the earth.", "topic": "space", "year": 1969}\n')
    return tmp_path


def test_folders_are_indexed_step_by_step(engine: Any, make_encoder: Any, folder: Path) -> None:
    encoder = make_encoder()
    store, reference = engine.create(three(encoder)), Store.memory(three(make_encoder()))
    for one in (store, reference):
        report = index_paths(one, [folder], size=50)
        assert (report.files, report.updated, report.deleted) == (3, 0, 0)
        assert report.added == report.passages == len(one)
    encoded = encoder.encoded
    report = index_paths(store, [folder])
    assert (report.added, report.updated, report.deleted, encoder.encoded) == (0, 0, 0, encoded)
    (folder / "fruit.md").write_text("# Fruit\n\nPlums are blue.\n")
    (folder / "facts.jsonl").unlink()
    (folder / "new.txt").write_text("Rivers run.")
    reports = [index_paths(one, [folder]) for one in (store, reference)]
    assert [(r.files, r.added, r.updated, r.deleted, r.passages) for r in reports[:1]] == [
        (r.files, r.added, r.updated, r.deleted, r.passages) for r in reports[1:]
    ]
    assert encoder.encoded < encoded + 5
    assert store.snapshot.sources() == reference.snapshot.sources() == sorted(map(str, folder.iterdir()))
    for source in store.snapshot.sources():
        assert store.snapshot.source_text(source) == reference.snapshot.source_text(source) == Path(source).read_text()
        assert store.snapshot.runs(source) == reference.snapshot.runs(source)
        run = store.snapshot.documents(store.snapshot.runs(source)[0])
        assert [d.metadata[KEY]["start"] for d in run] == sorted(d.metadata[KEY]["start"] for d in run)
    assert passages(store) == passages(reference)
    compare(store, reference, BM25Retriever, ["blue plums fruit", "electric cars"], [1, 9], None)


def test_runs_end_where_a_filter_does(engine: Any, make_encoder: Any) -> None:
    store, reference = engine.create({"bm25": LexicalIndex()}), Store.memory({"bm25": LexicalIndex()})
    for one in (store, reference):
        for n in range(8):
            metadata = {"even": n % 3 != 1, KEY: {"source": "s", "start": 100 - n}}
            one.upsert([Document(id=str(n), page_content=f"text {n}", metadata=metadata)])
    for filter in (None, {"even": True}, {"even": False}):
        assert store.snapshot.runs("s", filter) == reference.snapshot.runs("s", filter) != []
    assert store.snapshot.runs("absent") == []


def test_exact_search(filled: Any) -> None:
    for pattern in (Pattern("stone r"), Pattern("STONE", ignore_case=True), Pattern("b.ue|äpfel", ignore_case=True, regex=True)):
        for filter in (None, {"lang": "en"}):
            found, expected = (
                {str(one.documents([position])[0].id): spans for position, spans in one.find(pattern, filter)}
                for one in (store.snapshot for store in filled)
            )
            assert found == expected != {}
    assert list(filled[0].snapshot.find(Pattern("stone \udce9"))) == []
    with pytest.raises(InputError, match="took longer than"):
        list(filled[0].snapshot.find(Pattern("stone"), seconds=-1.0))


def test_a_pipeline_grounds_the_same(engine: Any, make_encoder: Any, folder: Path) -> None:
    answers = []
    for store in (engine.create(three(make_encoder())), Store.memory(three(make_encoder()))):
        index_paths(store, [folder], size=50)
        retrievers: list[Any] = [HybridRetriever(store=store), LongUnitRetriever(store=store, size=100)]
        pipelines = [Pipeline(retriever=retriever, k=3) for retriever in retrievers]
        answers.append([pipeline.ground("Which cars are electric?").text for pipeline in pipelines])
    assert answers[0] == answers[1]
    assert "electric" in str(answers[0])


def test_what_an_engine_has_not_it_says(engine: Any, make_encoder: Any) -> None:
    store = engine.create(three(make_encoder()))
    store.upsert(corpus())
    with pytest.raises(InputError, match="this store has no 'late' index; it has: bm25, dense, sparse"):
        store.snapshot.search("late", ["x"], 1)
    with pytest.raises(InputError, match="k: must be at least 1"):
        store.snapshot.search("dense", ["x"], 0)
    if isinstance(store, Store):
        return
    with pytest.raises(InputError, match="only a store in a directory"), store.write() as draft:
        draft.index_trigrams()
    with pytest.raises(InputError, match="index into a directory"):
        RM3Retriever(store=store).invoke("stone")
    with pytest.raises(InputError, match=r"search_units: .* index into a directory"):
        UnitRetriever(store=store, index_name="dense").invoke("stone")
    with pytest.raises(InputError, match=r"kind units; an engine has lexical, dense, sparse"):
        engine.create({"units": UnitIndex(make_encoder())})
    with pytest.raises(InputError, match="hold"):
        store.snapshot.encode("bm25", ["x"])
    with pytest.raises(InputError, match="the index takes"):
        store.snapshot.search_vectors("dense", np.zeros((1, 3), np.float32), 1)
