"""The index of several vectors for a position against all inner products, computed straight away."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.errors import InputError
from ragkit.indexes.dense import FaissIndex
from ragkit.indexes.grouped import GroupedIndex


def straight(documents: dict[int, Any], query: Any, k: int) -> list[tuple[int, float]]:
    scores = {p: max(float(v.astype(np.float64) @ query.astype(np.float64)) for v in rows) for p, rows in documents.items()}
    return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))[:k]


def pairs(ranking: Any) -> list[tuple[int, float]]:
    return list(zip(ranking.positions.tolist(), ranking.scores.tolist(), strict=True))


@settings(max_examples=60)
@given(st.data())
def test_any_history_of_changes(data: Any) -> None:
    # small whole numbers: many ties, and sums that are exact in any order
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    index, documents, fresh = GroupedIndex(3), dict[int, Any](), 0
    for _ in range(data.draw(st.integers(1, 4))):
        positions = np.arange(fresh, fresh + data.draw(st.integers(0, 12)))[::-1].copy()
        fresh += len(positions) + 1
        matrices = [rng.integers(-2, 3, (rng.integers(1, 7), 3)).astype(np.float32) for _ in positions]
        index.add(positions, matrices)
        documents |= dict(zip(positions.tolist(), matrices, strict=True))
        gone = [p for p in documents if rng.random() < 0.2]
        index.remove(np.array([*gone, 999], np.int64))
        for p in gone:
            del documents[p]
    queries = rng.integers(-2, 3, (3, 3)).astype(np.float32)
    allowed = np.array(sorted(p for p in documents if rng.random() < 0.5), np.int64)
    k = data.draw(st.integers(1, 15))
    assert len(index) == len(documents)
    for query, free, within in zip(queries, index.search(queries, k), index.search(queries, k, allowed), strict=True):
        assert pairs(free) == straight(documents, query, k)
        assert pairs(within) == straight({p: documents[p] for p in allowed.tolist()}, query, k)


@pytest.fixture
def filled() -> tuple[GroupedIndex, dict[int, Any]]:
    rng = np.random.default_rng(0)
    documents = {p * 3: rng.normal(size=(rng.integers(1, 9), 8)).astype(np.float32) for p in range(50)}
    index = GroupedIndex(8)
    index.add(np.array(list(documents)), list(documents.values()))
    return index, documents


def test_scores_and_vectors_of_positions(filled: Any) -> None:
    index, documents = filled
    query = np.ones(8, np.float32)
    for position, matrix, scores in zip([9, 0], index.vectors(np.array([9, 0])), index.scores(query, [9, 0]), strict=True):
        np.testing.assert_array_equal(matrix, documents[position])
        np.testing.assert_allclose(scores, documents[position].sum(1), rtol=1e-5)
    with pytest.raises(InputError, match="positions"):
        index.vectors(np.array([1]))
    assert index.vectors(np.array([], np.int64)) == []


def test_one_document_with_nearly_all_near_vectors() -> None:
    index = GroupedIndex(2)
    index.add(np.array([0, 1, 2]), [np.ones((500, 2)), np.full((1, 2), 0.5), np.full((1, 2), 0.1)])
    (ranking,) = index.search(np.ones((1, 2), np.float32), 2)
    assert pairs(ranking) == [(0, 2.0), (1, 1.0)]


def test_saved_loaded_and_changed(filled: Any, tmp_path: Path) -> None:
    index, documents = filled
    index.remove(np.array([3]))
    del documents[3]
    (tmp_path / "a").mkdir()
    index.save(tmp_path / "a")
    again = GroupedIndex.load(tmp_path / "a", writable=True)
    again.add(np.array([1]), [np.full((2, 8), 9, np.float32)])
    documents[1] = np.full((2, 8), 9, np.float32)
    query = np.random.default_rng(1).normal(size=(1, 8)).astype(np.float32)
    (ranking,) = again.search(query, 7)
    expected = straight(documents, query[0], 7)
    assert ranking.positions.tolist() == [p for p, _ in expected]
    assert again.settings == index.settings
    read_only = GroupedIndex.load(tmp_path / "a")
    with pytest.raises(InputError, match="writable"):
        read_only.add(np.array([1]), [np.ones((1, 8), np.float32)])


def test_what_is_refused(filled: Any) -> None:
    index, _ = filled
    row = np.ones((1, 8), np.float32)
    for positions, matrices in [
        ([0], [row]),
        ([1, 1], [row, row]),
        ([1], [row[0]]),
        ([1], [row[:0]]),
        ([1], [row, row]),
        ([1], [row[:, :5]]),
    ]:
        with pytest.raises(InputError):
            index.add(np.array(positions), matrices)
    with pytest.raises(InputError, match="k:"):
        index.search(row, 0)
    with pytest.raises(InputError, match="dimension"):
        GroupedIndex(3, FaissIndex(4))
    assert len(index) == 50
