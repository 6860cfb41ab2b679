"""MaxSim against loops over single numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit.indexes.maxsim import maxsim, maxsim_flat


def straight(query: np.ndarray, document: np.ndarray) -> float:
    total = 0.0
    for asked in query.tolist():
        total += max((sum(a * b for a, b in zip(asked, there, strict=True)) for there in document.tolist()), default=-np.inf)
    return total


@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(0, 7), min_size=1, max_size=12), asked=st.integers(1, 5))
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_any_documents_score_as_in_a_loop(precision: str, seed: int, sizes: list[int], asked: int) -> None:
    rng = np.random.default_rng(seed)
    query = rng.integers(-3, 4, (asked, 5)).astype(np.float32)
    documents = [rng.integers(-3, 4, (size, 5)).astype(precision) for size in sizes]
    expected = [straight(query, document) for document in documents]
    np.testing.assert_array_equal(maxsim(query, documents), expected)
    tokens, starts = np.concatenate(documents), np.concatenate([[0], np.cumsum(sizes)])
    np.testing.assert_array_equal(maxsim_flat(query, tokens, starts), expected)
    rows = rng.permutation(len(sizes))[: len(sizes) // 2 + 1]
    np.testing.assert_array_equal(maxsim_flat(query, tokens, starts, rows), np.array(expected)[rows])


def test_real_numbers_to_rounding_and_equal_documents_equally() -> None:
    rng = np.random.default_rng(0)
    query, document = rng.standard_normal((9, 48)).astype(np.float32), rng.standard_normal((31, 48)).astype(np.float32)
    others = [rng.standard_normal((size, 48)).astype(np.float32) for size in (1, 7, 300)]
    scores = maxsim(query, [document, *others, document.copy(), others[2], document[:30]])
    np.testing.assert_allclose(scores[0], (query.astype(np.float64) @ document.T.astype(np.float64)).max(1).sum(), rtol=1e-6)
    assert scores[0] == scores[4]
    assert scores[3] == scores[5]
    halved = maxsim(query, [document.astype(np.float16)])[0]
    assert halved != scores[0]
    np.testing.assert_allclose(halved, scores[0], rtol=2e-3)


def test_memory_mapped_tokens(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    tokens, starts = rng.standard_normal((20, 4)).astype(np.float16), np.array([0, 5, 6, 20])
    np.save(tmp_path / "tokens.npy", tokens)
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    query = tokens[:3]
    np.testing.assert_array_equal(maxsim_flat(query, mapped, starts), maxsim_flat(query, tokens, starts))


def test_nothing_to_score() -> None:
    query = np.ones((2, 3), np.float32)
    assert maxsim(query, []).shape == (0,)
    assert maxsim(query[:0], [query]).tolist() == [0.0]
    assert maxsim(query, [query[:0]]).tolist() == [-np.inf]


def test_not_a_number_is_seen() -> None:
    document = np.ones((3, 2), np.float32)
    document[1, 0] = np.nan
    assert np.isnan(maxsim(np.ones((1, 2)), [document])[0])
