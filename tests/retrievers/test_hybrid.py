"""The default fusion: against the formula over the two retrievers' own scores, and what it promises."""

import asyncio
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from pydantic import ValidationError

from ragkit import (
    BM25Retriever,
    DenseRetriever,
    ExactRetriever,
    HybridRetriever,
    RocchioRetriever,
    WrappedRetriever,
    provenance,
)
from ragkit.indexes.base import Ranking
from ragkit.retrievers.trust import dense_weight
from ragkit.store.store import Store, bm25_and_dense

TEXTS = ["the cat sat on the mat", "dogs bark at the cat", "a fish swims", "cat and dog and fish", "nothing here", "cat cat fish"]


@pytest.fixture
def store(make_encoder: Any) -> Store:
    store = Store.memory(bm25_and_dense(make_encoder()))
    store.upsert([Document(id=str(n), page_content=text) for n, text in enumerate(TEXTS)])
    return store


def scores(hits: list[Document]) -> dict[str, float]:
    return {str(hit.id): hit.metadata["relevance_score"] for hit in hits}


@pytest.mark.parametrize("depth", [2, 4, 14, 100])
def test_default_is_the_weighted_sum_on_theoretical_scales(make_encoder: Any, depth: int) -> None:
    """BM25 from 0 and cosines from -1 to the best of the question; a full list leaves out nothing above its end."""
    store = Store.memory(bm25_and_dense(make_encoder()))
    texts = [f"{text} {n} {'more words' * (n % 4)}" for n, text in enumerate(TEXTS * 4)]
    store.upsert([Document(id=str(n), page_content=text) for n, text in enumerate(texts)])
    query = "cat fish mat"
    bm25 = scores(BM25Retriever(store=store).invoke(query, k=depth))
    dense = scores(DenseRetriever(store=store).invoke(query, k=depth))
    best, nearest = max(bm25.values()), max(dense.values()) + 1
    no_bm25 = min(bm25.values()) if len(bm25) == depth else 0.0
    no_dense = min(dense.values()) if len(dense) == depth else -1.0
    bm25_ranking = Ranking(np.array([int(i) for i in bm25]), np.array(list(bm25.values())))
    dense_ranking = Ranking(np.array([int(i) for i in dense]), np.array(list(dense.values())))
    weight = dense_weight(bm25_ranking, dense_ranking, depth)
    assert (weight == 2.5) == (depth < 14)
    expected = {
        id_: (bm25.get(id_, no_bm25) / best + weight * (dense.get(id_, no_dense) + 1) / nearest) / (1 + weight)
        for id_ in bm25.keys() | dense
    }
    retriever = HybridRetriever(store=store, depth=depth, k=depth)
    hits = retriever.invoke(query)
    top = sorted(expected, key=lambda id_: (-round(expected[id_], 12), int(id_)))[:depth]
    assert [hit.id for hit in hits] == top
    assert scores(hits) == pytest.approx({id_: expected[id_] for id_ in top})
    assert retriever.batch(["dogs", query, "nothing cat"])[1] == hits
    assert asyncio.run(retriever.abatch(["dogs", query]))[1] == hits
    swapped = [DenseRetriever(store=store), BM25Retriever(store=store)]
    assert scores(HybridRetriever(retrievers=swapped, depth=depth, k=depth).invoke(query)) == pytest.approx(scores(hits))


def test_given_weights_are_taken_as_they_are(store: Store) -> None:
    only_bm25 = HybridRetriever(store=store, weights=[1.0, 0.0], k=3).invoke("cat fish")
    expected = scores(BM25Retriever(store=store, k=3).invoke("cat fish"))
    assert [hit.id for hit in only_bm25] == list(expected)
    for fusion in ({"fusion": "rrf"}, {"normaliser": "dbsf"}, {"normaliser": "min-max"}, {"normaliser": "z-score"}):
        usual = scores(HybridRetriever(store=store, **fusion).invoke("cat fish"))
        equal = scores(HybridRetriever(store=store, weights=[1.0, 1.0], **fusion).invoke("cat fish"))
        assert usual == pytest.approx(equal)


def test_another_retriever_beside_the_two_has_the_usual_weights(store: Store) -> None:
    two = [BM25Retriever(store=store), DenseRetriever(store=store)]
    for retrievers, weights in (([*two, ExactRetriever(store=store)], [1.0, 2.5, 1.0]), (two[1:], [2.5]), (two[:1], [1.0])):
        usual = HybridRetriever(retrievers=retrievers).invoke("cat fish mat")
        assert usual == HybridRetriever(retrievers=retrievers, weights=weights).invoke("cat fish mat")


class Undecided:
    """An encoder to which all passages look nearly alike; the order it gives is the reverse of that of their numbers."""

    dimension = 2
    fingerprint = {"kind": "undecided", "model": "undecided", "dimension": 2}

    def encode_queries(self, texts: Any) -> Any:
        return np.tile(np.array([1, 0], np.float32), (len(texts), 1))

    async def aencode_queries(self, texts: Any) -> Any:
        return self.encode_queries(texts)

    def encode_documents(self, texts: Any, progress: Any = None) -> Any:
        angles = 1 - 0.001 * np.arange(len(texts))
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_who_cannot_tell_passages_apart_has_little_say() -> None:
    """Stretched to a full scale, differences in the third decimal overturn what BM25 is sure of."""
    store = Store.memory(bm25_and_dense(Undecided()))
    store.upsert([Document(id=str(n), page_content=text) for n, text in enumerate(["rare cat", "a cat", "a dog", "dogs", "end"])])
    assert HybridRetriever(store=store, k=1).invoke("rare cat")[0].id == "0"
    stretched = HybridRetriever(store=store, normaliser="min-max", weights=[1.0, 2.5], k=1)
    assert stretched.invoke("rare cat")[0].id == "4"


def test_options_go_to_the_index_they_are_for(make_encoder: Any) -> None:
    indexes = HybridRetriever.indexes(encoder=make_encoder(32), language="german", k1=0.9, index_kind="flat")
    assert indexes["dense"].settings["encoder"]["dimension"] == 32
    assert indexes["bm25"].settings["analyzer"]["language"] == "german"
    assert indexes["bm25"].settings["bm25"]["k1"] == 0.9
    with pytest.raises(ValidationError, match="normaliser"):
        HybridRetriever(store=Store.memory(indexes), normaliser="softmax")


@pytest.mark.parametrize("turned", [False, True])
def test_each_retrievers_own_ranking_is_recorded_whoever_else_asks_its_index(store: Store, turned: bool) -> None:
    bm25 = BM25Retriever(store=store)
    parts = [bm25, RocchioRetriever(store=store, feedback=BM25Retriever(store=store), passages=1)]
    found = HybridRetriever(retrievers=parts[::-1] if turned else parts).invoke("cat")
    ranks = {stage.rank for document in found for stage in provenance(document).stages if stage.stage == "bm25"}
    assert ranks == set(range(1, len(bm25.invoke("cat")) + 1))


def test_bad_parts_are_named(store: Store) -> None:
    foreign = WrappedRetriever(retriever=BM25Retriever(store=store))
    for wrong in ([foreign], [], "bm25"):
        with pytest.raises(ValidationError, match="store"):
            HybridRetriever(retrievers=wrong)
    for weights in ([1.0, float("nan")], [float("inf"), 1.0]):
        with pytest.raises(ValidationError, match="weights must be finite"):
            HybridRetriever(store=store, weights=weights)
