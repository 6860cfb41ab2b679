"""The dense index against brute force in numpy: on integers, where float arithmetic is exact and ties abound, and on clusters."""

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
from ragkit.indexes.dense import FaissIndex
from ragkit.indexes.kinds import Kind, choose

KINDS: tuple[Kind, ...] = ("flat", "hnsw", "ivf", "sq8", "ivfpq", "binary")
COMPLETE: tuple[Kind, ...] = ("flat", "ivf", "sq8", "ivfpq", "binary")  # whose candidates can be all there is
RECALL = {"flat": 1.0, "hnsw": 0.95, "ivf": 0.95, "sq8": 0.99, "ivfpq": 0.95, "binary": 0.95}
EVERYTHING: dict[str, Any] = {"probes": 10_000, "oversample": 10_000, "codes_from": 256}


def integers(rng: np.random.Generator, count: int, dimension: int = 4) -> np.ndarray:
    return rng.integers(-2, 3, (count, dimension)).astype(np.float32)


def brute_force(state: dict[int, np.ndarray], query: np.ndarray, k: int, allowed: Any = None) -> list[tuple[int, float]]:
    hits = [(p, float(v.astype(np.float64) @ query)) for p, v in state.items() if allowed is None or p in allowed]
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:k]


def pairs(ranking: Ranking) -> list[tuple[int, float]]:
    return list(zip(ranking.positions.tolist(), ranking.scores.tolist(), strict=True))


def clusters(count: int, dimension: int = 64, seed: int = 0) -> np.ndarray:
    """Unit vectors around 60 centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(60, dimension))
    vectors = centres[rng.integers(60, size=count)] + rng.normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def clustered() -> dict[str, FaissIndex]:
    """An index of each kind over the same 12,000 vectors, at positions 0, 2, 4, ..."""
    vectors, indexes = clusters(12_000), {}
    for kind in KINDS:
        indexes[kind] = FaissIndex(64, kind)
        indexes[kind].add(np.arange(12_000) * 2, vectors)
    return indexes


@pytest.mark.parametrize("kind", KINDS)
def test_recall(clustered: dict[str, FaissIndex], kind: Kind) -> None:
    assert clustered[kind].built_kind == kind
    queries = clusters(100, seed=1)
    truth = np.argsort(-(queries.astype(np.float64) @ clusters(12_000).T), axis=1)[:, :10] * 2
    found = clustered[kind].search(queries, 10)
    shared = [len(np.intersect1d(ranking.positions, row)) for ranking, row in zip(found, truth, strict=True)]
    assert np.mean(shared) / 10 >= RECALL[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.9, 0.01])
def test_a_filter_is_inside_the_search(clustered: dict[str, FaissIndex], kind: Kind, share: float) -> None:
    rng = np.random.default_rng(2)
    allowed = np.sort(rng.choice(12_000, int(share * 12_000), replace=False)) * 2
    queries = clusters(50, seed=3)
    products = queries.astype(np.float64) @ clusters(12_000)[allowed // 2].T
    truth = allowed[np.argsort(-products, axis=1)[:, :10]]
    found = clustered[kind].search(queries, 10, allowed)
    assert all(len(ranking.positions) == 10 and np.isin(ranking.positions, allowed).all() for ranking in found)
    shared = [len(np.intersect1d(ranking.positions, row)) for ranking, row in zip(found, truth, strict=True)]
    assert np.mean(shared) / 10 >= (RECALL[kind] if share > 0.5 else 1.0)


@pytest.mark.parametrize("kind", ["ivf", "ivfpq", "binary"])
def test_a_filter_that_codes_see_little_of_is_searched_exactly(kind: Kind) -> None:
    vectors = clusters(3000, 16)
    index = FaissIndex(16, kind, probes=1, codes_from=300)
    index.add(np.arange(3000), vectors)
    far = np.sort(np.argsort(vectors @ vectors[0])[:400])  # more than codes_from, and none near the query
    truth = far[np.argsort(-(vectors[far].astype(np.float64) @ vectors[0]))[:10]]
    assert index.search(vectors[:1], 10, far)[0].positions.tolist() == truth.tolist()


@pytest.mark.parametrize("kind", COMPLETE)
@given(seed=st.integers(0, 2**32), k=st.integers(1, 40), filtered=st.booleans())
@settings(max_examples=6, deadline=None)
def test_any_history_equals_brute_force(kind: Kind, seed: int, k: int, filtered: bool) -> None:
    rng = np.random.default_rng(seed)
    index, state = FaissIndex(4, kind, **EVERYTHING), dict[int, np.ndarray]()
    queries = integers(rng, 25)
    for _ in range(4):
        positions = np.setdiff1d(rng.permutation(1000)[:400], list(state))
        rng.shuffle(positions)
        vectors = integers(rng, len(positions))
        index.add(positions, vectors)
        state |= dict(zip(positions.tolist(), vectors, strict=True))
        index.search(queries[:1], 1)  # so that codes are there to be added to
        removed = rng.permutation(1000)[: rng.choice([20, 300])]
        index.remove(np.sort(removed))
        state = {p: v for p, v in state.items() if p not in removed}
    assert len(index) == len(state)
    allowed = np.sort(rng.permutation(1000)[: rng.choice([50, 800])]) if filtered else None
    for query, ranking in zip(queries, index.search(queries, k, allowed), strict=True):
        assert pairs(ranking) == brute_force(state, query, k, allowed)
    some = np.array(list(state)[:10], np.int64)
    np.testing.assert_array_equal(index.reconstruct(some), [state[p] for p in some.tolist()])


def test_a_graph_never_finds_what_was_removed() -> None:
    vectors = clusters(2000, 16)
    index = FaissIndex(16, "hnsw", codes_from=256)
    index.add(np.arange(2000), vectors)
    state = dict(enumerate(vectors))
    for gone in (np.arange(0, 300), np.arange(300, 900), np.arange(1000, 1100)):
        index.remove(gone)
        state = {p: v for p, v in state.items() if p not in gone}
        found = index.search(vectors[:40], 10)
        exact = [brute_force(state, query, 10) for query in vectors[:40]]
        assert all(len(ranking.positions) == 10 and set(ranking.positions.tolist()) <= set(state) for ranking in found)
        shared = [len(set(r.positions.tolist()) & {p for p, _ in hits}) for r, hits in zip(found, exact, strict=True)]
        assert np.mean(shared) >= 9.5


@pytest.mark.parametrize("kind", COMPLETE)
@pytest.mark.parametrize("queries", [1, 30])
def test_identical_vectors_are_ordered_by_position(kind: Kind, queries: int) -> None:
    rng = np.random.default_rng(1)
    same, other = rng.normal(size=(2, 96)).astype(np.float32)
    same /= np.linalg.norm(same)
    other = -same + 0.01 * other
    positions = rng.permutation(3000)
    index = FaissIndex(96, kind, probes=10_000, codes_from=256)
    index.add(positions, np.where((positions % 2 == 0)[:, None], same, other).astype(np.float32))
    for ranking in index.search(np.tile(same, (queries, 1)), 10):
        assert ranking.positions.tolist() == list(range(0, 20, 2))
        assert len(set(ranking.scores.tolist())) == 1


def test_few_probes_find_fewer_and_never_strangers() -> None:
    rng = np.random.default_rng(2)
    index = FaissIndex(8, "ivf", lists=20, probes=1, codes_from=256)
    vectors = rng.normal(size=(1000, 8)).astype(np.float32)
    index.add(np.arange(1000), vectors)
    for query, ranking in zip(vectors[:50], index.search(vectors[:50], 900), strict=True):
        assert 0 < len(ranking.positions) < 900
        np.testing.assert_allclose(ranking.scores, vectors[ranking.positions].astype(np.float64) @ query)
        assert (np.diff(ranking.scores) <= 0).all()


@pytest.mark.parametrize("kind", ["ivf", "binary", "hnsw"])
def test_as_many_as_there_are_come_back(kind: Kind) -> None:
    """However many are asked for, and however many of them are the same, which leads a graph into a corner."""
    vectors = np.random.default_rng(5).normal(size=(3000, 8)).astype(np.float32)
    vectors[:1500] = vectors[0]
    index = FaissIndex(8, kind, codes_from=256)
    index.add(np.arange(3000), vectors)
    for k in (400, 2500, 5000):
        assert [len(ranking.positions) for ranking in index.search(vectors[[0, 2000]], k)] == [min(k, 3000)] * 2


@pytest.mark.parametrize("kind", COMPLETE)
@pytest.mark.parametrize("count", [0, 1, 500])
def test_saved_and_loaded_is_the_same(tmp_path: Path, kind: Kind, count: int) -> None:
    rng = np.random.default_rng(3)
    vectors, queries = integers(rng, count), integers(rng, 5)
    index = FaissIndex(4, kind, **EVERYTHING)
    index.add(np.arange(count) * 3, vectors)
    index.remove(np.array([3]))
    index.save(tmp_path)
    state = {p * 3: v for p, v in enumerate(vectors) if p != 1}
    mapped, writable = FaissIndex.load(tmp_path), FaissIndex.load(tmp_path, writable=True)
    with pytest.raises(InputError, match="writable"):
        mapped.add(np.array([1]), vectors[:1])
    for loaded in (mapped, writable):
        assert len(loaded) == len(state)
        assert loaded.built_kind == index.built_kind == (kind if count == 500 else "flat")
        assert [pairs(r) for r in loaded.search(queries, 7)] == [brute_force(state, q, 7) for q in queries]
    writable.remove(np.array([0]))
    writable.add(np.array([1]), queries[:1])
    state = {p: v for p, v in state.items() if p} | {1: queries[0]}
    assert [pairs(r) for r in writable.search(queries, 7)] == [brute_force(state, q, 7) for q in queries]


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_the_same_after_loading_and_every_time(tmp_path: Path, clustered: dict[str, FaissIndex], kind: Kind) -> None:
    queries = clusters(20, seed=4)
    clustered[kind].save(tmp_path)
    loaded = FaissIndex.load(tmp_path)
    assert [pairs(r) for r in loaded.search(queries, 10)] == [pairs(r) for r in clustered[kind].search(queries, 10)]
    if kind != "hnsw":  # threads add nodes to a graph in no fixed order
        again = FaissIndex(64, kind)
        again.add(np.arange(12_000) * 2, clusters(12_000))
        assert [pairs(r) for r in loaded.search(queries, 10)] == [pairs(r) for r in again.search(queries, 10)]


def test_a_change_writes_only_what_is_new(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    vectors = clusters(5000)
    index = FaissIndex(64)
    index.add(np.arange(5000), vectors)
    index.save(first)
    changed = FaissIndex.load(first, writable=True)
    changed.add(np.arange(5000, 5010), vectors[:10])
    changed.remove(np.arange(10))
    changed.save(second)
    [old] = first.glob("vectors-*.npy")
    linked, new = sorted(second.glob("vectors-*.npy"), key=lambda file: -file.stat().st_size)
    assert linked.samefile(old)
    assert np.load(new).shape == (10, 64)
    assert FaissIndex.load(second).search(vectors[:1], 1)[0].positions.tolist() == [5000]
    changed.remove(np.arange(2000))
    third = tmp_path / "3"
    third.mkdir()
    changed.save(third)
    assert sum(len(np.load(file)) for file in third.glob("vectors-*.npy")) == len(changed) == 3010


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_ranks_by_the_rounded_vectors(tmp_path: Path, kind: Kind) -> None:
    vectors = clusters(1000, 16)
    index = FaissIndex(16, kind, precision="float16", codes_from=256)
    index.add(np.arange(1000), vectors)
    with pytest.raises(InputError, match=r"^vectors: .*float32"):
        index.add(np.array([2000]), np.full((1, 16), 1e6))
    index.save(tmp_path)
    for one in (index, FaissIndex.load(tmp_path)):
        rounded = vectors.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(one.reconstruct(np.arange(1000)), rounded)
        for query, ranking in zip(vectors[:20], one.search(vectors[:20], 10), strict=True):
            exact = rounded[ranking.positions].astype(np.float64) @ query
            np.testing.assert_allclose(ranking.scores, exact, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 255, 256, 300])
@pytest.mark.parametrize("dimension", [1, 24])
def test_few_vectors_are_enough(kind: Kind, count: int, dimension: int, capfd: pytest.CaptureFixture[str]) -> None:
    index = FaissIndex(dimension, kind, codes_from=1)
    index.add(np.arange(count), np.ones((count, dimension), np.float32))
    [ranking] = index.search(np.ones((1, dimension), np.float32), 3)
    assert 0 < len(ranking.positions) <= 3
    assert index.built_kind == (kind if count >= 256 else "flat")
    assert capfd.readouterr().err == ""  # faiss warns of little to learn from


def test_kind_follows_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [choose(n) for n in (0, 100_000, 100_001, 1_000_000, 1_000_001)] == ["flat", "flat", "ivf", "ivf", "binary"]
    monkeypatch.setattr("ragkit.indexes.kinds.FLAT_UP_TO", 500)
    monkeypatch.setattr("ragkit.indexes.kinds.LISTS_UP_TO", 2000)
    vectors = clusters(4000, 16)
    index = FaissIndex(16, "auto", codes_from=256)
    kinds = []
    for first in range(0, 4000, 500):
        index.add(np.arange(first, first + 500), vectors[first : first + 500])
        kinds.append(index.built_kind)
    # codes are built at 1000 vectors, and again at four times as many
    assert kinds == ["flat", *["ivf"] * 6, "binary"]
    index.remove(np.arange(3600))
    assert index.built_kind == "flat"


def test_threads_agree() -> None:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(2000, 16)).astype(np.float32)
    index = FaissIndex(16, "ivf", codes_from=256)
    index.add(np.arange(2000), vectors)
    alone = [pairs(r) for r in index.search(vectors[:64], 5)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: pairs(index.search(vectors[i : i + 1], 5)[0]), range(64)))
    assert [[p for p, _ in one] for one in found] == [[p for p, _ in one] for one in alone]


def test_removing_everything_and_starting_again() -> None:
    for kind in KINDS:
        index = FaissIndex(4, kind, codes_from=256)
        vectors = integers(np.random.default_rng(5), 300)
        index.add(np.arange(300), vectors)
        assert index.built_kind == kind
        index.remove(np.arange(300))
        assert len(index) == 0
        assert len(index.search(vectors[:1], 3)[0].positions) == 0
        index.add(np.array([7]), vectors[:1])
        assert index.search(vectors[:1], 3)[0].positions.tolist() == [7]


def test_wrong_calls_are_named() -> None:
    index = FaissIndex(4)
    index.add(np.array([1]), np.ones((1, 4), np.float32))
    one = np.ones((1, 4), np.float32)
    for call, text in [
        (lambda: FaissIndex(4, "pq"), "^kind: .*ivfpq"),  # type: ignore[arg-type]
        (lambda: FaissIndex(4, precision="int8"), "^precision: .*float16"),  # type: ignore[arg-type]
        (lambda: FaissIndex(4, oversample=0), "^oversample: "),
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
