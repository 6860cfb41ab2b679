"""rank_bm25 behind the contract of an index, against Okapi written out."""

from __future__ import annotations

import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.errors import InputError, MissingExtraError
from ragkit.indexes.base import Ranking
from ragkit.indexes.rank_bm25 import RankBM25Index
from ragkit.sparse_vectors import SparseVectors

pytest.importorskip("rank_bm25")

texts = st.lists(st.integers(0, 9), max_size=12)
corpora = st.dictionaries(st.integers(0, 60), texts, max_size=12)
queries = st.lists(st.lists(st.integers(-2, 12), max_size=6), min_size=1, max_size=3)
parameters = st.sampled_from([{}, {"k1": 0.9, "b": 0.4}, {"k1": 2.0, "b": 0.0, "epsilon": 0.1}, {"b": 1.0}])


def okapi(
    docs: dict[int, list[int]], query: list[int], k1: float = 1.5, b: float = 0.75, epsilon: float = 0.25
) -> dict[int, float]:
    """The score of every document that shares a term with the query."""
    n = len(docs)
    df = Counter(term for doc in docs.values() for term in set(doc))
    idf = {term: math.log(n - f + 0.5) - math.log(f + 0.5) for term, f in df.items()}
    average = sum(idf.values()) / max(len(idf), 1)
    length = sum(map(len, docs.values())) / max(n, 1)
    scores = {}
    for position, doc in docs.items():
        if set(doc) & set(query):
            scores[position] = 0.0
            for term in query:
                tf = doc.count(term)
                if tf:
                    weight = epsilon * average if idf[term] < 0 else idf[term]
                    scores[position] += weight * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(doc) / length))
    return scores


def add(index: RankBM25Index, docs: dict[int, list[int]]) -> None:
    index.add(np.array(list(docs), np.int64), SparseVectors.count(docs.values()))


def assert_ranked(ranking: Ranking, scores: dict[int, float], k: int) -> None:
    positions = ranking.positions.tolist()
    assert len(positions) == len(set(positions)) == min(k, len(scores))
    assert ranking.scores == pytest.approx([scores[position] for position in positions])
    assert ranking.scores == pytest.approx(sorted(scores.values(), reverse=True)[:k])
    pairs = list(zip((-ranking.scores).tolist(), positions, strict=True))
    assert pairs == sorted(pairs)


@given(
    corpora,
    corpora,
    st.sets(st.integers(0, 60)),
    queries,
    parameters,
    st.integers(1, 15),
    st.none() | st.sets(st.integers(0, 70)),
)
@settings(max_examples=80, deadline=None)
def test_scores_are_okapis_after_any_change(
    first: dict[int, list[int]],
    then: dict[int, list[int]],
    gone: set[int],
    asked: list[list[int]],
    parameters: Any,
    k: int,
    allowed: set[int] | None,
) -> None:
    index = RankBM25Index(**parameters)
    add(index, first)
    index.search(SparseVectors.count(asked), k)  # builds what the changes below must undo
    index.remove(np.array(sorted(gone | then.keys()), np.int64))
    add(index, then)
    docs = {position: doc for position, doc in first.items() if position not in gone} | then
    assert len(index) == len(docs)
    chosen = None if allowed is None else np.array(sorted(allowed), np.int64)
    for query, ranking in zip(asked, index.search(SparseVectors.count(asked), k, chosen), strict=True):
        scores = okapi(docs, query, **parameters)
        assert_ranked(ranking, {p: s for p, s in scores.items() if allowed is None or p in allowed}, k)


def test_ties_go_by_position() -> None:
    index = RankBM25Index()
    add(index, {9: [1], 2: [1], 5: [1], 7: [2], 8: [3], 11: [3], 12: [4]})
    [ranking] = index.search(SparseVectors.count([[1]]), 2)
    assert ranking.positions.tolist() == [2, 5]


def test_saved_and_loaded(tmp_path: Path) -> None:
    index = RankBM25Index(k1=0.9, b=0.4)
    add(index, {3: [1, 1, 2], 1: [], 8: [2, 5], 9: [7], 10: [7]})
    index.save(tmp_path)
    loaded = RankBM25Index.load(tmp_path)
    assert (loaded.settings, len(loaded)) == (index.settings, 5)
    query = SparseVectors.count([[2, 1, 2], [99]])
    for a, b in zip(index.search(query, 9), loaded.search(query, 9), strict=True):
        assert a.positions.tolist() == b.positions.tolist()
        assert a.scores.tolist() == b.scores.tolist()
    add(loaded, {0: [1]})
    assert loaded.search(query, 9)[0].positions.tolist() != index.search(query, 9)[0].positions.tolist()


def test_wrong_input_is_named() -> None:
    index = RankBM25Index()
    add(index, {1: [1]})
    with pytest.raises(InputError, match="positions: a position is given twice or taken"):
        add(index, {1: [2]})
    with pytest.raises(InputError, match="positions: 1 positions for 2 vectors"):
        index.add(np.array([4]), SparseVectors.count([[1], [2]]))
    with pytest.raises(InputError, match="must not be negative"):
        add(index, {4: [-1]})
    with pytest.raises(InputError, match="must not be negative"):
        add(index, {-4: [1]})
    with pytest.raises(InputError, match=r"vectors: .*whole numbers"):
        index.add(np.array([4]), SparseVectors.of([([1], [0.5])]))
    with pytest.raises(InputError, match=r"queries: .*whole numbers"):
        index.search(SparseVectors.of([([1], [0.5])]), 1)
    with pytest.raises(InputError, match="k: must be at least 1"):
        index.search(SparseVectors.count([[1]]), 0)
    assert len(index) == 1


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rank_bm25", None)
    with pytest.raises(MissingExtraError, match=r"RankBM25Index needs .* 'ragkit\[rank-bm25\]'"):
        RankBM25Index()
