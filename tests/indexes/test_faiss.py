"""The dense index against brute force in numpy, on integers, where float arithmetic is exact and ties abound."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.errors import InputError
from ragkit.indexes.base import Ranking
from ragkit.indexes.dense import FaissIndex, Kind

EVERY_LIST = 10_000


def integers(rng: np.random.Generator, count: int, dimension: int = 4) -> np.ndarray:
    return rng.integers(-2, 3, (count, dimension)).astype(np.float32)


def brute_force(state: dict[int, np.ndarray], query: np.ndarray, k: int, allowed: Any = None) -> list[tuple[int, float]]:
    hits = [(p, float(v.astype(np.float64) @ query)) for p, v in state.items() if allowed is None or p in allowed]
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:k]


def pairs(ranking: Ranking) -> list[tuple[int, float]]:
    return list(zip(ranking.positions.tolist(), ranking.scores.tolist(), strict=True))


@pytest.mark.parametrize("kind", ["flat", "ivf"])
@given(seed=st.integers(0, 2**32), k=st.integers(1, 40), filtered=st.booleans())
@settings(max_examples=15, deadline=None)
def test_any_history_equals_brute_force(kind: Kind, seed: int, k: int, filtered: bool) -> None:
    rng = np.random.default_rng(seed)
    index, state = FaissIndex(4, kind, probes=EVERY_LIST), dict[int, np.ndarray]()
    for _ in range(3):
        positions = np.setdiff1d(rng.permutation(200)[:60], list(state))
        vectors = integers(rng, len(positions))
        index.add(positions, vectors)
        state |= dict(zip(positions.tolist(), vectors, strict=True))
        removed = rng.permutation(200)[:40]
        index.remove(np.sort(removed))
        state = {p: v for p, v in state.items() if p not in removed}
    assert len(index) == len(state)
    allowed = np.sort(rng.permutation(200)[:50]) if filtered else None
    queries = integers(rng, 25)
    for query, ranking in zip(queries, index.search(queries, k, allowed), strict=True):
        assert pairs(ranking) == brute_force(state, query, k, allowed)
    some = np.array(list(state)[:10], np.int64)
    np.testing.assert_array_equal(index.reconstruct(some), [state[p] for p in some.tolist()])


@pytest.mark.parametrize("kind", ["flat", "ivf"])
@pytest.mark.parametrize("queries", [1, 30])
def test_identical_vectors_are_ordered_by_position(kind: Kind, queries: int) -> None:
    rng = np.random.default_rng(1)
    same, other = rng.normal(size=(2, 384)).astype(np.float32)
    same /= np.linalg.norm(same)
    other = -same + 0.01 * other
    positions = rng.permutation(3000)
    index = FaissIndex(384, kind, probes=EVERY_LIST)
    index.add(positions, np.where((positions % 2 == 0)[:, None], same, other).astype(np.float32))
    for ranking in index.search(np.tile(same, (queries, 1)), 10):
        assert ranking.positions.tolist() == list(range(0, 20, 2))
        assert len(set(ranking.scores.tolist())) == 1


def test_few_probes_find_fewer_and_never_strangers() -> None:
    rng = np.random.default_rng(2)
    index = FaissIndex(8, "ivf", lists=20, probes=1)
    vectors = rng.normal(size=(1000, 8)).astype(np.float32)
    index.add(np.arange(1000), vectors)
    for query, ranking in zip(vectors[:50], index.search(vectors[:50], 900), strict=True):
        assert 0 < len(ranking.positions) < 900
        np.testing.assert_allclose(ranking.scores, vectors[ranking.positions].astype(np.float64) @ query)
        assert (np.diff(ranking.scores) <= 0).all()


@pytest.mark.parametrize("kind", ["flat", "ivf"])
@pytest.mark.parametrize("count", [0, 1, 500])
def test_saved_and_loaded_is_the_same(tmp_path: Path, kind: Kind, count: int) -> None:
    rng = np.random.default_rng(3)
    vectors, queries = integers(rng, count), integers(rng, 5)
    index = FaissIndex(4, kind, probes=EVERY_LIST)
    index.add(np.arange(count) * 3, vectors)
    index.save(tmp_path)
    state = dict(enumerate(vectors))
    state = {p * 3: v for p, v in state.items()}
    mapped, writable = FaissIndex.load(tmp_path), FaissIndex.load(tmp_path, writable=True)
    with pytest.raises(InputError, match="writable"):
        mapped.add(np.array([1]), vectors[:1])
    for loaded in (mapped, writable):
        assert len(loaded) == count
        assert [pairs(r) for r in loaded.search(queries, 7)] == [brute_force(state, q, 7) for q in queries]
    writable.remove(np.array([0]))
    writable.add(np.array([1]), queries[:1])
    state = {p: v for p, v in state.items() if p} | {1: queries[0]}
    assert [pairs(r) for r in writable.search(queries, 7)] == [brute_force(state, q, 7) for q in queries]


def test_threads_agree() -> None:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(2000, 16)).astype(np.float32)
    index = FaissIndex(16, "ivf")
    index.add(np.arange(2000), vectors)
    alone = [pairs(r) for r in index.search(vectors[:64], 5)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: pairs(index.search(vectors[i : i + 1], 5)[0]), range(64)))
    assert [[p for p, _ in one] for one in found] == [[p for p, _ in one] for one in alone]


def test_removing_everything_and_starting_again() -> None:
    for kind in ("flat", "ivf"):
        index = FaissIndex(4, kind)
        vectors = integers(np.random.default_rng(5), 100)
        index.add(np.arange(100), vectors)
        index.remove(np.arange(100))
        assert len(index) == 0
        assert len(index.search(vectors[:1], 3)[0].positions) == 0
        index.add(np.array([7]), vectors[:1])
        assert index.search(vectors[:1], 3)[0].positions.tolist() == [7]


def test_wrong_calls_are_named() -> None:
    index = FaissIndex(4)
    index.add(np.array([1]), np.ones((1, 4), np.float32))
    one = np.ones((1, 4), np.float32)
    for call, text in [
        (lambda: FaissIndex(4, "hnsw"), "^kind: "),  # type: ignore[arg-type]
        (lambda: FaissIndex(4, "ivf", lists=0), "^lists: "),
        (lambda: FaissIndex(0), "^dimension: "),
        (lambda: index.search(one, 0), "^k: "),
        (lambda: index.search(np.ones((1, 5)), 1), r"^queries: .*\(1, 5\).*\[n, 4\]"),
        (lambda: index.add(np.array([2]), np.ones((1, 3))), r"^vectors: .*\(1, 3\).*\[n, 4\]"),
        (lambda: index.add(np.array([2]), one * np.nan), "NaN"),
        (lambda: index.add(np.array([2]), one * np.inf), "infinity"),
        (lambda: index.add(np.array([1]), one), "taken"),
        (lambda: index.add(np.array([2, 2]), np.ones((2, 4))), "twice"),
        (lambda: index.add(np.array([2, 3]), one), "^positions: "),
        (lambda: index.reconstruct(np.array([9])), "^positions: "),
    ]:
        with pytest.raises(InputError, match=text):
            call()
    assert len(index) == 1
