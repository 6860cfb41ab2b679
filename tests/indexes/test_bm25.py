"""BM25 against rank_bm25, and against straight-line Python written from the papers."""

from __future__ import annotations

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from ragkit.errors import InputError
from ragkit.indexes.base import Ranking
from ragkit.indexes.bm25 import BM25Index
from ragkit.indexes.bm25_formulas import Variant
from ragkit.sparse_vectors import SparseVectors

VARIANTS = get_args(Variant)
documents = st.lists(st.lists(st.integers(0, 12), max_size=15), min_size=1, max_size=15)
queries = st.lists(st.integers(-2, 15), max_size=8)


def bags(*texts: list[int]) -> SparseVectors:
    return SparseVectors.count(texts)


def build(docs: list[list[int]] | dict[int, list[int]], **options: Any) -> BM25Index:
    docs = docs if isinstance(docs, dict) else dict(enumerate(docs))
    index = BM25Index(**options)
    index.add(np.array(list(docs), np.int64), bags(*docs.values()))
    return index


def reference(
    docs: dict[int, list[int]],
    query: list[int],
    variant: str,
    k1: float,
    b: float,
    allowed: set[int] | None = None,
) -> list[tuple[int, float]]:
    """Every hit, best first, one document and one term at a time."""
    n = len(docs)
    average = sum(map(len, docs.values())) / n
    df = Counter(term for doc in docs.values() for term in set(doc))
    okapi = {t: math.log(n - f + 0.5) - math.log(f + 0.5) for t, f in df.items()}
    floor = 0.25 * sum(okapi.values()) / max(len(okapi), 1)
    hits = []
    for position, doc in docs.items():
        if not set(doc) & set(query) or (allowed is not None and position not in allowed):
            continue
        score = 0.0
        for t in query:
            tf = doc.count(t)
            if not tf:
                continue
            length = 1 - b + b * len(doc) / average
            if variant == "lucene":
                score += math.log(1 + (n - df[t] + 0.5) / (df[t] + 0.5)) * tf / (tf + k1 * length)
            elif variant == "robertson":
                score += math.log((n - df[t] + 0.5) / (df[t] + 0.5)) * tf / (tf + k1 * length)
            elif variant == "atire":
                score += math.log(n / df[t]) * (k1 + 1) * tf / (k1 * length + tf)
            elif variant == "bm25l":
                c = tf / length
                score += math.log((n + 1) / (df[t] + 0.5)) * (k1 + 1) * (c + 0.5) / (k1 + c + 0.5)
            elif variant == "bm25+":
                score += math.log((n + 1) / df[t]) * (1.0 + (k1 + 1) * tf / (k1 * length + tf))
            else:
                score += (okapi[t] if okapi[t] >= 0 else floor) * (k1 + 1) * tf / (k1 * length + tf)
        hits.append((position, score))
    return sorted(hits, key=lambda hit: (-round(hit[1], 9), hit[0]))


def agrees(ranking: Ranking, expected: list[tuple[int, float]], k: int) -> None:
    """The same scores down the list, and each position with its own score: ties may differ by rounding only."""
    np.testing.assert_allclose(ranking.scores, [score for _, score in expected[:k]], atol=1e-8)
    scores = dict(expected)
    np.testing.assert_allclose([scores[int(p)] for p in ranking.positions], ranking.scores, atol=1e-8)
    assert len(set(ranking.positions.tolist())) == len(ranking.positions)


@given(documents.filter(lambda docs: any(docs)), queries)
def test_okapi_equals_rank_bm25(docs: list[list[int]], query: list[int]) -> None:
    theirs = BM25Okapi(docs).get_scores(query)
    hits = {i for i, doc in enumerate(docs) if set(doc) & set(query)}
    (ours,) = build(docs, variant="okapi", k1=1.5).search(bags(query), len(docs))
    assert set(ours.positions.tolist()) == hits
    np.testing.assert_allclose(ours.scores, theirs[ours.positions], atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@given(docs=documents, query=queries, k=st.integers(1, 20), k1=st.floats(0, 3), b=st.floats(0, 1))
@settings(max_examples=60)
def test_variants_equal_the_papers(variant: str, docs: list[list[int]], query: list[int], k: int, k1: float, b: float) -> None:
    (ranking,) = build(docs, variant=variant, k1=k1, b=b).search(bags(query), k)
    agrees(ranking, reference(dict(enumerate(docs)), query, variant, k1, b), k)


@given(docs=documents, query=queries, allowed=st.sets(st.integers(0, 20)), k=st.integers(1, 5))
def test_allowed_restricts_before_the_cut(docs: list[list[int]], query: list[int], allowed: set[int], k: int) -> None:
    (ranking,) = build(docs).search(bags(query), k, np.array(sorted(allowed), np.int64))
    agrees(ranking, reference(dict(enumerate(docs)), query, "lucene", 1.2, 0.75, allowed), k)


batches = st.dictionaries(st.integers(0, 30), st.lists(st.integers(0, 9), max_size=10), max_size=6)


@pytest.mark.parametrize("variant", ["lucene", "okapi"])
@given(steps=st.lists(st.tuples(batches, st.sets(st.integers(0, 30), max_size=6)), max_size=6), query=queries)
@settings(max_examples=60)
def test_any_history_equals_a_fresh_build(
    variant: Variant, steps: list[tuple[dict[int, list[int]], set[int]]], query: list[int]
) -> None:
    index, state = BM25Index(variant), dict[int, list[int]]()
    for added, removed in steps:
        added = {p: doc for p, doc in added.items() if p not in state}
        index.add(np.array(list(added), np.int64), bags(*added.values()))
        state |= added
        index.search(bags(query), 3)
        index.remove(np.array(sorted(removed), np.int64))
        state = {p: doc for p, doc in state.items() if p not in removed}
    assert len(index) == len(state)
    (ranking,), (fresh,) = index.search(bags(query), 50), build(state, variant=variant).search(bags(query), 50)
    np.testing.assert_array_equal(ranking.positions, fresh.positions)
    np.testing.assert_array_equal(ranking.scores, fresh.scores)


def test_equal_documents_are_ordered_by_position_also_at_the_cut() -> None:
    index = build({p: [1, 2, 3] for p in (9, 4, 7, 1, 30, 2)})
    (ranking,) = index.search(bags([3, 1]), 3)
    assert ranking.positions.tolist() == [1, 2, 4]
    assert len(set(ranking.scores.tolist())) == 1


def test_hits_with_scores_of_zero_and_below_are_hits_and_strangers_are_not() -> None:
    index = build([[0], [0], [0, 1], [2]], variant="robertson")
    (ranking,) = index.search(bags([0]), 10)
    assert sorted(ranking.positions.tolist()) == [0, 1, 2]
    assert (ranking.scores < 0).all()


def test_nothing_to_find() -> None:
    index = build([[0, 1], [1]])
    for query in ([], [7], [-1]):
        assert len(index.search(bags(query), 5)[0].positions) == 0
    assert len(BM25Index().search(bags([1]), 5)[0].positions) == 0
    assert len(index.search(bags([1]), 5, np.empty(0, np.int64))[0].positions) == 0


@pytest.mark.parametrize("docs", [{}, {3: []}, {5: [1, 1, 2], 2: [2], 9: []}])
@pytest.mark.parametrize("writable", [True, False])
def test_saved_and_loaded_is_the_same(tmp_path: Any, docs: dict[int, list[int]], writable: bool) -> None:
    index = build(docs, variant="bm25+", k1=0.9, b=0.4, delta=0.7)
    index.save(tmp_path)
    loaded = BM25Index.load(tmp_path, writable=writable)
    for one in (index, loaded):
        one.add(np.array([1]), bags([2, 4]))
    assert len(loaded) == len(docs) + 1
    for ours, theirs in zip(loaded.search(bags([2]), 9), index.search(bags([2]), 9), strict=True):
        np.testing.assert_array_equal(ours.positions, theirs.positions)
        np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_threads_searching_a_fresh_index_agree() -> None:
    rng = np.random.default_rng(0)
    index = build([rng.integers(0, 50, 20).tolist() for _ in range(500)])
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: index.search(bags([1, 2, 3]), 10)[0].positions.tolist(), range(40)))
    assert all(positions == found[0] for positions in found)


@pytest.mark.parametrize(
    ("options", "field"),
    [({"variant": "bm26"}, "variant"), ({"k1": -1}, "k1"), ({"b": 1.5}, "b"), ({"k1": math.nan}, "k1")],
)
def test_wrong_parameters_are_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=rf"^{field}: "):
        BM25Index(**options)


def test_wrong_calls_are_named() -> None:
    index = build([[1], [2]])
    with pytest.raises(InputError, match=r"^k: "):
        index.search(bags([1]), 0)
    with pytest.raises(InputError, match="already taken"):
        index.add(np.array([5, 1]), bags([1], [1]))
    with pytest.raises(InputError, match="twice"):
        index.add(np.array([7, 7]), bags([1], [1]))
    with pytest.raises(InputError, match="negative"):
        index.add(np.array([8]), bags([-1]))
    assert len(index) == 2
