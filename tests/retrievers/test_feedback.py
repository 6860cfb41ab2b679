"""Feedback against straight-line code over dictionaries and plain vectors."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from pydantic import ValidationError

from ragkit import BM25Retriever, DenseRetriever, HybridRetriever, InputError, provenance
from ragkit.documents.provenance import Provenance, with_provenance
from ragkit.retrievers.feedback import RM3Retriever, RocchioRetriever
from ragkit.retrievers.refinement import rm3
from ragkit.sparse_vectors import SparseVectors
from ragkit.store.store import Store, bm25_and_dense

RNG = np.random.default_rng(3)
WORDS = [f"w{n}" for n in range(40)]
TEXTS = [" ".join(RNG.choice(WORDS, size=RNG.integers(3, 15))) for _ in range(60)]
QUERIES = ["w1 w2", "w3", "w4 w4 w5 unheard", "w39 w0 w7"]


@pytest.fixture
def store(make_encoder: Any, tmp_path: Any, request: Any) -> Store:
    store = Store.memory(bm25_and_dense(make_encoder()))
    store.upsert([Document(id=str(n), page_content=text, metadata={"n": n}) for n, text in enumerate(TEXTS)])
    return store


def hits(found: list[Document]) -> list[tuple[int, float]]:
    return [(int(d.id or -1), d.metadata["relevance_score"]) for d in found]


def same(found: list[Document], expected: list[tuple[int, float]]) -> None:
    np.testing.assert_allclose([s for _, s in hits(found)], [s for _, s in expected], rtol=1e-5)
    assert {id_ for id_, s in hits(found) if s > expected[-1][1] + 1e-5} == {i for i, s in expected if s > expected[-1][1] + 1e-5}


def best(scores: dict[int, float], k: int) -> list[tuple[int, float]]:
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k]


@pytest.mark.parametrize("method", ["rocchio", "average"])
@pytest.mark.parametrize("first", ["dense", "hybrid"])
async def test_dense_feedback(method: Any, first: str, store: Store, make_encoder: Any) -> None:
    documents = make_encoder().encode_documents(TEXTS).astype(np.float64)
    feedback = HybridRetriever(store=store) if first == "hybrid" else None
    retriever = RocchioRetriever(store=store, method=method, passages=4, feedback=feedback, k=7)
    for query in QUERIES:
        vector = make_encoder().encode_queries([query])[0].astype(np.float64)
        learnt = [int(d.id or -1) for d in (feedback or DenseRetriever(store=store)).invoke(query, k=4)]
        if method == "rocchio":
            moved = 0.4 * vector + 0.6 * sum(documents[n] for n in learnt) / 4
        else:
            moved = (vector + sum(documents[n] for n in learnt)) / 5
        expected = best(dict(enumerate(documents @ moved)), 7)
        same(retriever.invoke(query), expected)
        same(await retriever.ainvoke(query), expected)
    assert list(map(hits, retriever.batch(QUERIES))) == [hits(retriever.invoke(query)) for query in QUERIES]


def straight_rm3(query: str, store: Store, original: float = 0.5, terms: int = 10, docs: int = 10) -> dict[str, float]:
    """The refined question as terms and weights; terms are words here."""
    model: Counter[str] = Counter()
    for document in BM25Retriever(store=store).invoke(query, k=docs):
        words = document.page_content.split()
        for word in words:
            model[word] += document.metadata["relevance_score"] / len(words)
    top = dict(sorted(model.items(), key=lambda item: -item[1])[:terms])
    own = Counter(word for word in query.split() if word in WORDS)
    weights = {word: original * count / own.total() for word, count in own.items()}
    for word, weight in top.items():
        weights[word] = weights.get(word, 0) + (1 - original) * weight / sum(top.values())
    return weights


async def test_rm3(store: Store) -> None:
    retriever = RM3Retriever(store=store, k=8)
    for query in QUERIES:
        scores: dict[int, float] = {}
        for word, weight in straight_rm3(query, store).items():  # BM25 is a sum over terms
            for document in BM25Retriever(store=store).invoke(word, k=100):
                at = int(document.id or -1)
                scores[at] = scores.get(at, 0.0) + weight * document.metadata["relevance_score"]
        same(retriever.invoke(query), best(scores, 8))
        same(await retriever.ainvoke(query), best(scores, 8))
    assert list(map(hits, retriever.batch(QUERIES))) == [hits(retriever.invoke(query)) for query in QUERIES]


def test_original_weight_one_is_the_plain_ranking(store: Store) -> None:
    for query in QUERIES:
        plain = BM25Retriever(store=store, k=60).invoke(query)
        again = RM3Retriever(store=store, original=1, k=60).invoke(query)
        assert [d.id for d in again] == [d.id for d in plain]


def test_titles_and_headings_are_learnt_from() -> None:
    documents = [
        with_provenance(Document(page_content="pumps are old", metadata={"title": "Boilers"}), Provenance(headings=("Care",))),
        Document(page_content="boilers explode"),
        Document(page_content="care matters"),
        Document(page_content="nothing else"),
    ]
    found = RM3Retriever.from_documents(documents).invoke("pumps")
    assert {d.page_content for d in found} == {"pumps are old", "boilers explode", "care matters"}


def test_relevance_model_by_hand() -> None:
    query = SparseVectors.of([([-1, 1], [5, 2])])
    passages = SparseVectors.of([([1, 2], [1, 3]), ([2, 3], [1, 1]), ([], [])])
    refined = rm3(query, passages, [2.0, 1.0, 7.0], 2, 0.5)
    # 1: 2 * 1/4; 2: 2 * 3/4 + 1/2; 3: 1/2, which the tie by id leaves out
    terms, weights = refined.row(0)
    assert terms.tolist() == [1, 2]
    np.testing.assert_allclose(weights, [0.5 + 0.5 * 0.5 / 2.5, 0.5 * 2 / 2.5])


def test_both_sides_before_and_after(store: Store) -> None:
    first = HybridRetriever(store=store)
    both = HybridRetriever(retrievers=[RM3Retriever(store=store, feedback=first), RocchioRetriever(store=store, feedback=first)])
    [found, *_] = both.invoke("w1 w2")
    names = [result.stage for result in provenance(found).stages]
    assert {"bm25-feedback", "dense-feedback", "hybrid"} <= set(names)


@pytest.mark.parametrize("kind", [RM3Retriever, RocchioRetriever])
def test_filters_hold_for_the_passages_learnt_from(kind: Any, store: Store) -> None:
    kept = [Document(id=str(n), page_content=text, metadata={"n": n}) for n, text in enumerate(TEXTS) if n < 20]
    alone = Store.memory(bm25_and_dense(store.snapshot.index("dense").encoder))  # type: ignore[attr-defined]
    alone.upsert(kept)
    filtered = kind(store=store, k=30).invoke("w1 w2", filter={"n": {"$lt": 20}})
    assert {d.metadata["n"] for d in filtered} <= set(range(20))
    if kind is RocchioRetriever:  # BM25 counts terms in all passages
        same(filtered, hits(kind(store=alone, k=30).invoke("w1 w2")))


@pytest.mark.parametrize("kind", [RM3Retriever, RocchioRetriever])
def test_edges(kind: Any, store: Store, make_encoder: Any, tmp_path: Any) -> None:
    assert kind(store=store).invoke("  ") == []
    assert kind(store=Store.memory(bm25_and_dense(make_encoder()))).invoke("w1") == []
    assert kind(store=store, passages=1000).invoke("w1", k=1000)
    with pytest.raises(ValidationError, match="same store"):
        kind(store=store, feedback=BM25Retriever.from_texts(["a"]))
    other = {RM3Retriever: "dense", RocchioRetriever: "bm25"}[kind]
    with pytest.raises(InputError, match=r"^index_name: "):
        kind(store=store, index_name=other).invoke("w1")
    options = {"encoder": make_encoder()} if kind is RocchioRetriever else {}
    kind.from_texts(TEXTS, path=tmp_path / "index", **options)
    loaded = kind.load(tmp_path / "index", **options)
    assert sorted(s for _, s in [(d.id, d.metadata["relevance_score"]) for d in loaded.invoke("w1 w2")]) == pytest.approx(
        sorted(s for _, s in hits(kind(store=store).invoke("w1 w2")))
    )
    assert RM3Retriever(store=store).invoke("unheard") == []


def test_no_passage_is_encoded_again_for_dense_feedback(make_encoder: Any) -> None:
    encoder = make_encoder()
    retriever = RocchioRetriever.from_texts(TEXTS, encoder=encoder)
    before = encoder.encoded
    retriever.batch(QUERIES)
    assert encoder.encoded == before
