"""Documents by their passages, against straight code over the passages' own scores."""

from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from pydantic import ValidationError

from ragkit import BM25Retriever, DenseRetriever, HybridRetriever, InputError, Store, bm25_and_dense, provenance
from ragkit.documents.provenance import Provenance, with_provenance
from ragkit.indexes.base import Ranking
from ragkit.retrievers.documents import DocumentContextRetriever, DocumentRetriever
from ragkit.retrievers.grouping import aggregate, grouped

RNG = np.random.default_rng(11)
WORDS = [f"w{n}" for n in range(25)]
TEXTS = [" ".join(RNG.choice(WORDS, size=RNG.integers(3, 12))) for _ in range(60)]
BOOK = [int(RNG.integers(0, 12)) for _ in TEXTS]
QUERIES = ["w1 w2", "w3 w9", "w4 w4 w5 unheard", "w24 w0 w7"]


@pytest.fixture
def store(make_encoder: Any) -> Store:
    store = Store.memory(bm25_and_dense(make_encoder()))
    store.upsert([Document(id=str(n), page_content=text, metadata={"book": BOOK[n], "n": n}) for n, text in enumerate(TEXTS)])
    return store


def hits(found: list[Document]) -> list[tuple[int, float]]:
    return [(int(d.id or -1), d.metadata["relevance_score"]) for d in found]


def by_hand(found: list[tuple[int, float]], how: str, best: int) -> dict[int, float]:
    passages = defaultdict(list)
    for n, score in found:
        passages[BOOK[n]].append((n, score))
    ways = {
        "max": lambda its: max(s for _, s in its),
        "first": lambda its: min(its)[1],
        "sum": lambda its: sum(s for _, s in its),
        "mean": lambda its: np.mean(sorted((s for _, s in its), reverse=True)[:best]),
    }
    return {book: float(ways[how](its)) for book, its in passages.items()}


@pytest.mark.parametrize("how", ["max", "first", "sum", "mean"])
async def test_documents_by_their_passages(how: Any, store: Store) -> None:
    inner = BM25Retriever(store=store)
    options = {"retriever": inner, "field": "book", "aggregation": how, "best": 2, "depth": 30}
    for query in QUERIES:
        found = hits(inner.invoke(query, k=30))
        scores = by_hand(found, how, 2)
        retriever = DocumentRetriever(**options, k=5)
        for documents in (retriever.invoke(query), await retriever.ainvoke(query)):
            np.testing.assert_allclose([s for _, s in hits(documents)], sorted(scores.values(), reverse=True)[:5])
            for document in documents:
                assert document.metadata["relevance_score"] == pytest.approx(scores[document.metadata["book"]])
                own = next(n for n, _ in found if BOOK[n] == document.metadata["book"])  # its best passage
                assert document.id == str(own)
                assert [result.stage for result in provenance(document).stages] == ["bm25", "documents"]
            assert len({document.metadata["book"] for document in documents}) == len(documents)
        several = DocumentRetriever(**options, passages=3, k=7).invoke(query)
        books = [document.metadata["book"] for document in several]
        assert len(several) == min(7, len(found))
        assert all(books.count(book) <= 3 for book in books)
        assert books == sorted(books, key=books.index)  # side by side
        order = [n for n, _ in found]
        assert all(
            order.index(int(a.id or -1)) < order.index(int(b.id or -1))
            for a, b in pairwise(several)
            if a.metadata["book"] == b.metadata["book"]
        )


async def test_passages_with_a_share_of_their_documents_score(store: Store) -> None:
    inner = DenseRetriever(store=store)
    retriever = DocumentContextRetriever(retriever=inner, field="book", weight=0.7, aggregation="sum", depth=25, k=6)
    for query in QUERIES:
        found = hits(inner.invoke(query, k=25))
        document = by_hand(found, "sum", 0)
        expected = {n: score + 0.7 * document[BOOK[n]] for n, score in found}
        for documents in (retriever.invoke(query), await retriever.ainvoke(query)):
            np.testing.assert_allclose([s for _, s in hits(documents)], sorted(expected.values(), reverse=True)[:6])
            for n, score in hits(documents):
                assert score == pytest.approx(expected[n])
            stages = {result.stage: result.score for result in provenance(documents[0]).stages}
            assert stages["document"] == pytest.approx(document[BOOK[hits(documents)[0][0]]])
    unmixed = DocumentContextRetriever(retriever=inner, field="book", weight=0, k=6)
    assert [hits(each) for each in unmixed.batch(QUERIES)] == [hits(inner.invoke(query, k=6)) for query in QUERIES]


def test_filters_of_all_three_apply(store: Store) -> None:
    inner = BM25Retriever(store=store, filter={"n": {"$lt": 40}})
    retriever = DocumentRetriever(retriever=inner, field="book", filter={"n": {"$gte": 10}}, k=50)
    found = retriever.invoke("w1 w2 w3 w4", filter={"book": {"$in": [1, 2, 3]}})
    assert found
    assert all(10 <= document.metadata["n"] < 40 and document.metadata["book"] in (1, 2, 3) for document in found)


def test_sources_are_documents(make_encoder: Any) -> None:
    store = Store.memory(bm25_and_dense(make_encoder()))
    places = [("a.md", 50), ("a.md", 0), ("b.md", 0), (None, 0), (None, 0)]
    texts = ["one fish two", "fish", "a fish that swims in the sea", "no fish", "fish fish"]
    documents = [
        with_provenance(Document(id=str(n), page_content=text), Provenance(source=source, start=start, end=start + len(text)))
        for n, (text, (source, start)) in enumerate(zip(texts, places, strict=True))
    ]
    store.upsert(documents)
    inner = BM25Retriever(store=store)
    own = {document.id: document.metadata["relevance_score"] for document in inner.invoke("fish")}
    found = DocumentRetriever(retriever=inner, aggregation="first").invoke("fish")
    assert {document.metadata["relevance_score"] for document in found} == {own[id_] for id_ in "1234"}


def test_the_default_is_hybrid_and_blank_questions_find_nothing(store: Store, make_encoder: Any) -> None:
    retriever = DocumentRetriever(store=store, field="book", k=3)
    assert isinstance(retriever.retriever, HybridRetriever)
    assert [len(found) for found in retriever.batch(["w1", " ", "w2"])] == [3, 0, 3]
    texts = DocumentRetriever.from_texts(["w1 a", "w1 b"], [{"book": 1}, {"book": 1}], encoder=make_encoder(), field="book")
    assert len(texts.invoke("w1")) == 1


def test_a_question_whose_hits_lack_the_field_is_answered() -> None:
    bm25 = BM25Retriever.from_texts(["pump one", "pump two", "door"], [{"book": 1}, {"book": 1}, {}], ids=["a", "b", "c"])
    retriever = DocumentRetriever(retriever=bm25, field="book")
    assert [[d.id for d in found] for found in retriever.batch(["pump", "door"])] == [["a"], ["c"]]
    assert [d.id for d in retriever.invoke("door")] == ["c"]


def test_what_is_refused(store: Store, make_encoder: Any) -> None:
    with pytest.raises(InputError, match="field: no passage"):
        DocumentRetriever(store=store, field="chapter").invoke("w1")
    with pytest.raises(ValidationError, match="aggregation"):
        DocumentRetriever(store=store, aggregation="median")
    with pytest.raises(ValidationError, match="same store"):
        DocumentRetriever(store=store, retriever=BM25Retriever(store=Store.memory(bm25_and_dense(make_encoder()))))
    with pytest.raises(InputError, match="aggregation: 'median'"):
        aggregate(np.ones(1), [(0, 0)], "median", 1)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3), st.integers(0, 9)), max_size=20))
def test_groups_of_any_ranking(rows: list[tuple[int, int, int]]) -> None:
    rows = sorted(rows, key=lambda row: -row[1])
    ranking = Ranking(np.arange(len(rows)), np.array([score for _, score, _ in rows], np.float64))
    groups = grouped(ranking, [key for key, _, _ in rows], [(place, 0) for _, _, place in rows], "mean", 99)
    assert sorted(hit for group in groups for hit in group.hits.tolist()) == list(range(len(rows)))
    for group in groups:
        assert len({rows[hit][0] for hit in group.hits}) == 1
        assert group.score == pytest.approx(np.mean([rows[hit][1] for hit in group.hits]))
        assert group.hits.tolist() == sorted(group.hits.tolist())
    assert [group.score for group in groups] == sorted((group.score for group in groups), reverse=True)


def test_the_mean_of_all_is_the_score_of_the_mean_vector() -> None:
    vectors, query = RNG.normal(size=(5, 8)), RNG.normal(size=8)
    scores = np.sort(vectors @ query)[::-1]
    assert aggregate(scores, [(0, n) for n in range(5)], "mean", 5) == pytest.approx(vectors.mean(0) @ query)
