"""Fast-Forward: the same top k as when every candidate is scored, with fewer vectors read."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from pydantic import ValidationError

from ragkit import BM25Retriever, DenseRetriever, InputError, provenance
from ragkit.indexes.base import Ranking
from ragkit.retrievers.fast_forward import FastForwardRetriever, interpolate
from ragkit.store.store import Store, bm25_and_dense

TEXTS = ["the cat sat on the mat", "dogs bark at the cat", "a fish swims", "cat and dog and fish", "nothing here", "cat cat fish"]


def problem(seed: int, count: int, steepness: float) -> tuple[Ranking, Any, Any]:
    """Candidates whose scores fall, their unit vectors by position, and a query vector."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count * 2, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.round(9 * np.exp(-steepness * np.arange(count)), 2)
    return Ranking(rng.permutation(count * 2)[:count], scores), vectors, rng.normal(size=6).astype(np.float32)


@given(st.integers(0, 10**6), st.integers(1, 60), st.floats(0, 0.5), st.floats(0, 1), st.integers(1, 12), st.integers(1, 20))
def test_stopping_early_loses_nothing(seed: int, count: int, steep: float, weight: float, k: int, chunk: int) -> None:
    candidates, vectors, query = problem(seed, count, steep)
    read: list[int] = []

    def look_up(positions: Any) -> Any:
        read.extend(positions.tolist())
        return vectors[positions]

    ranking, number = interpolate(candidates, query, look_up, weight, k, chunk)
    expected = []
    for position, score in zip(candidates.positions.tolist(), candidates.scores.tolist(), strict=True):
        dot = sum(float(a) * float(b) for a, b in zip(vectors[position], query, strict=True))
        expected.append((-(weight * score / candidates.scores[0] + (1 - weight) * dot), position))
    expected.sort()
    np.testing.assert_allclose(ranking.scores, [-score for score, _ in expected[:k]], atol=1e-9)
    assert ranking.positions.tolist() == [position for _, position in expected[:k]]
    assert read == candidates.positions[:number].tolist()  # in order, none twice


def test_no_more_is_read_than_can_matter() -> None:
    candidates, vectors, query = problem(1, 60, 0.2)
    query /= np.linalg.norm(query)
    assert interpolate(candidates, query, lambda p: vectors[p], 0.9, 3, 5).read < 20
    assert interpolate(candidates, query, lambda p: vectors[p], 0.0, 3, 5).read == 60  # scores say nothing, all may matter
    assert interpolate(candidates, query, lambda p: vectors[p], 1.0, 3, 1).read == 3  # the fourth scores lower
    assert interpolate(candidates, query, lambda p: vectors[p], 0.9, 60, 5).read == 60


def test_nothing_is_read_for_no_candidates_and_scores_below_zero_keep_their_order() -> None:
    def never(positions: Any) -> Any:
        raise AssertionError("there is nothing to read")

    nothing = Ranking(np.empty(0, np.int64), np.empty(0))
    assert interpolate(nothing, np.ones(2, np.float32), never, 0.5, 3).read == 0
    below = Ranking(np.array([4, 2]), np.array([-1.0, -2.0]))
    assert interpolate(below, np.zeros(2, np.float32), lambda p: np.zeros((len(p), 2)), 0.5, 3).ranking.positions.tolist() == [
        4,
        2,
    ]


@pytest.fixture
def store(make_encoder: Any) -> Store:
    store = Store.memory(bm25_and_dense(make_encoder()))
    store.upsert([Document(id=str(n), page_content=text, metadata={"n": n}) for n, text in enumerate(TEXTS)])
    return store


def test_scores_are_those_of_the_two_retrievers_interpolated(store: Store) -> None:
    query = "cat fish"
    sparse = {hit.id: hit.metadata["relevance_score"] for hit in BM25Retriever(store=store).invoke(query, k=9)}
    dense = {hit.id: hit.metadata["relevance_score"] for hit in DenseRetriever(store=store).invoke(query, k=9)}
    expected = {id_: 0.4 * score / max(sparse.values()) + 0.6 * dense[id_] for id_, score in sparse.items()}
    hits = FastForwardRetriever(store=store, weight=0.4, k=9).invoke(query)
    assert {hit.id: hit.metadata["relevance_score"] for hit in hits} == pytest.approx(expected)
    assert [hit.id for hit in hits] == sorted(expected, key=lambda id_: -expected[id_])
    assert [result.stage for result in provenance(hits[0]).stages] == ["bm25", "fast_forward"]


async def test_filters_k_and_every_way_to_ask(store: Store) -> None:
    retriever = FastForwardRetriever(store=store, k=2, filter={"n": {"$gte": 1}})
    queries = ["cat", "", "zebra", "fish swims"]
    answers = [[hit.id for hit in hits] for hits in retriever.batch(queries)]
    assert answers == [[hit.id for hit in hits] for hits in await retriever.abatch(queries)]
    assert list(map(len, answers)) == [2, 0, 0, 2]
    assert "0" not in answers[0]
    inner = BM25Retriever(store=store, filter={"n": {"$lt": 4}})
    assert {hit.id for hit in FastForwardRetriever(candidates=inner, k=9, filter={"n": {"$gte": 1}}).invoke("cat")} == {"1", "3"}


def test_its_parts_are_checked(store: Store, make_encoder: Any) -> None:
    other = Store.memory(bm25_and_dense(make_encoder()))
    with pytest.raises(ValidationError, match="same store"):
        FastForwardRetriever(store=other, candidates=BM25Retriever(store=store))
    with pytest.raises(ValidationError, match="candidates"):
        FastForwardRetriever(candidates="bm25")
    with pytest.raises(ValidationError, match="weight"):
        FastForwardRetriever(store=store, weight=1.5)
    with pytest.raises(InputError, match="'bm25' holds no dense vectors"):
        FastForwardRetriever(store=store, index_name="bm25").invoke("cat")
