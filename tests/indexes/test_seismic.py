"""Seismic against brute force: everything is found with its settings wide open, and what is found is exact with any."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.errors import InputError, MissingExtraError
from ragkit.indexes import seismic
from ragkit.indexes.base import Ranking
from ragkit.indexes.seismic import SeismicIndex
from ragkit.sparse_vectors import SparseVectors

installed = pytest.mark.skipif(find_spec("seismic") is None, reason="pyseismic-lsr is not installed")
WIDE = {"n_postings": 10_000, "centroid_fraction": 1.0, "summary_energy": 1.0, "query_cut": 10_000, "heap_factor": 0.0}
Row = dict[int, float]


def vectors(rows: list[Row]) -> SparseVectors:
    return SparseVectors.of([(list(row), list(row.values())) for row in rows])


def build(docs: dict[int, Row], **options: Any) -> SeismicIndex:
    index = SeismicIndex(**(WIDE | options))
    index.add(np.array(list(docs), np.int64), vectors(list(docs.values())))
    return index


def brute_force(docs: dict[int, Row], query: Row, k: int, allowed: Any = None) -> list[tuple[int, float]]:
    hits = [
        (position, sum(weight * query[term] for term, weight in doc.items() if term in query))
        for position, doc in docs.items()
        if doc.keys() & query.keys() and (allowed is None or position in allowed)
    ]
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:k]


def pairs(ranking: Ranking) -> list[tuple[int, float]]:
    return list(zip(ranking.positions.tolist(), ranking.scores.tolist(), strict=True))


def random_rows(rng: np.random.Generator, count: int, terms: int, most: int) -> list[Row]:
    # whole numbers, whose sums are exact, so that ties abound and are told apart by position only
    return [
        {int(term): float(rng.integers(1, 4)) for term in rng.permutation(terms)[: rng.integers(0, most)]} for _ in range(count)
    ]


row = st.dictionaries(st.integers(0, 12), st.sampled_from([1.0, 2.0, 3.0, 0.5]), max_size=6)
histories = st.lists(st.tuples(st.dictionaries(st.integers(0, 30), row, max_size=12), st.sets(st.integers(0, 30))), max_size=4)


@installed
@given(steps=histories, query=row, k=st.integers(1, 40), allowed=st.none() | st.sets(st.integers(0, 40)))
@settings(max_examples=60, deadline=None)
def test_any_history_equals_brute_force(
    steps: list[tuple[dict[int, Row], set[int]]], query: Row, k: int, allowed: set[int] | None
) -> None:
    index, state = SeismicIndex(**WIDE), dict[int, Row]()
    for added, removed in steps:
        added = {position: doc for position, doc in added.items() if position not in state}
        index.add(np.array(list(added), np.int64), vectors(list(added.values())))
        state |= added
        index.search(vectors([query]), 3)
        index.remove(np.array(sorted(removed), np.int64))
        state = {position: doc for position, doc in state.items() if position not in removed}
    assert len(index) == len(state)
    restriction = None if allowed is None else np.array(sorted(allowed), np.int64)
    (ranking,) = index.search(vectors([query]), k, restriction)
    assert pairs(ranking) == brute_force(state, query, k, allowed)


@pytest.fixture(scope="module")
def corpus() -> dict[int, Row]:
    rng = np.random.default_rng(3)
    return dict(zip(rng.permutation(10_000)[:3_000].tolist(), random_rows(rng, 3_000, 60, 9), strict=True))


@installed
@pytest.mark.parametrize("share", [None, 0.0, 0.02, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("k", [1, 10, 5_000])
def test_filters_and_ties_at_the_cut(corpus: dict[int, Row], wide: SeismicIndex, share: float | None, k: int) -> None:
    rng = np.random.default_rng(k)
    allowed = None if share is None else np.flatnonzero(rng.random(10_000) < share)
    queries = random_rows(rng, 8, 70, 6)
    for query, ranking in zip(queries, wide.search(vectors(queries), k, allowed), strict=True):
        assert pairs(ranking) == brute_force(corpus, query, k, allowed)


@pytest.fixture(scope="module")
def wide(corpus: dict[int, Row]) -> SeismicIndex:
    return build(corpus)


@installed
def test_with_narrow_settings_what_is_found_is_real_and_a_filter_still_finds_k(corpus: dict[int, Row]) -> None:
    rng = np.random.default_rng(4)
    index = build(corpus, n_postings=5, query_cut=1, heap_factor=1.0, summary_energy=0.3)
    queries = [query for query in random_rows(rng, 30, 60, 6) if query]
    allowed = np.flatnonzero(rng.random(10_000) < 0.6)
    found = expected = 0
    for restriction in (None, allowed):
        for query, ranking in zip(queries, index.search(vectors(queries), 50, restriction), strict=True):
            everything = dict(brute_force(corpus, query, len(corpus), restriction))
            hits = pairs(ranking)
            assert hits == sorted(hits, key=lambda hit: (-hit[1], hit[0]))
            assert all(everything[position] == score for position, score in hits)
            if restriction is None:
                found, expected = found + len(hits), expected + min(50, len(everything))
            else:
                assert len(hits) == min(50, len(everything))
    assert found < expected  # else these settings would not be narrow, and the test would show nothing


@installed
def test_equal_documents_are_ordered_by_position_also_at_the_cut() -> None:
    index = build({position: {1: 1.0, 2: 0.3} for position in range(500, 0, -1)})
    (ranking,) = index.search(vectors([{2: 1.0, 7: 1.0}]), 3)
    assert ranking.positions.tolist() == [1, 2, 3]
    assert len(set(ranking.scores.tolist())) == 1


@installed
def test_weights_closer_than_sixteen_bits_can_tell_and_beyond_their_range() -> None:
    docs = {position: {0: 1e9 * (1 + position * 1e-6)} for position in range(100)}
    (ranking,) = build(docs).search(vectors([{0: 2.0}]), 5)
    exact = {position: float(np.float32(doc[0])) * 2 for position, doc in docs.items()}
    assert pairs(ranking) == sorted(exact.items(), key=lambda hit: -hit[1])[:5]


@installed
def test_the_package_s_classes_for_large_vocabularies(
    tmp_path: Path, corpus: dict[int, Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seismic, "_NARROW", 50)
    some = {position: corpus[position] for position in list(corpus)[:300]}
    index = build(some)
    assert type(index._built().lists).__name__ == "SeismicIndexLV"
    index.save(tmp_path)
    queries = random_rows(np.random.default_rng(5), 10, 70, 6)
    for one in (index, SeismicIndex.load(tmp_path)):
        for query, ranking in zip(queries, one.search(vectors(queries), 5), strict=True):
            assert pairs(ranking) == brute_force(some, query, 5)


@installed
def test_nothing_to_find() -> None:
    index = build({3: {0: 1.0}, 4: {}, 9: {5: 0.0, 1: 2.0}})
    for query in ({}, {7: 1.0}, {-1: 1.0}, {2**31 - 1: 1.0}, {0: 0.0}, {5: 1.0}):
        assert pairs(index.search(vectors([query]), 5)[0]) == []
    assert pairs(index.search(vectors([{0: 1.0}]), 5, np.empty(0, np.int64))[0]) == []
    for empty in (SeismicIndex(), build({1: {}, 2: {}})):
        assert pairs(empty.search(vectors([{0: 1.0}]), 5)[0]) == []
    assert index.search(vectors([]), 5) == []


@installed
@pytest.mark.parametrize("docs", [{}, {3: {}}, {5: {1: 1.0, 2: 2.0}, 2: {2: 0.5}, 9: {}}])
@pytest.mark.parametrize("writable", [True, False])
def test_saved_and_loaded_is_the_same(tmp_path: Path, docs: dict[int, Row], writable: bool) -> None:
    index = build(docs, threads=2)
    index.save(tmp_path)
    loaded = SeismicIndex.load(tmp_path, writable=writable)
    assert (loaded.settings, len(loaded)) == (index.settings, len(docs))
    for state in (docs, docs | {1: {2: 4.0, 7: 1.0}}):
        (ranking,) = loaded.search(vectors([{2: 2.0}]), 9)
        assert pairs(ranking) == brute_force(state, {2: 2.0}, 9)
        if len(state) == len(docs):
            loaded.add(np.array([1]), vectors([{2: 4.0, 7: 1.0}]))
    assert not any(b"pickle" in file.read_bytes() for file in tmp_path.iterdir())


@installed
def test_standard_output_stays_empty_and_is_given_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    index = build({1: {0: 1.0}, 2: {0: 2.0}})
    index.search(vectors([{0: 1.0}]), 1)
    index.save(tmp_path)
    SeismicIndex.load(tmp_path).search(vectors([{0: 1.0}]), 1)
    assert capfd.readouterr() == ("", "")

    def fail_silently() -> None:
        with seismic._silence():
            os.write(1, b"lost")
            raise OSError("gone wrong")

    with pytest.raises(OSError, match="gone wrong"):
        fail_silently()
    os.write(1, b"heard")
    assert capfd.readouterr().out == "heard"


@installed
def test_threads_searching_fresh_indexes_agree_and_output_survives(
    corpus: dict[int, Row], capfd: pytest.CaptureFixture[str]
) -> None:
    some = {position: corpus[position] for position in list(corpus)[:200]}
    indexes, query = [build(some, centroid_fraction=0.1) for _ in range(4)], {1: 1.0, 2: 1.0, 3: 2.0}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda turn: pairs(indexes[turn % 4].search(vectors([query]), 10)[0]), range(32)))
    assert all(hits == brute_force(some, query, 10) for hits in found)
    os.write(1, b"heard")
    assert capfd.readouterr().out == "heard"


@installed
@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"n_postings": 0}, "n_postings"),
        ({"query_cut": 0}, "query_cut"),
        ({"threads": 0}, "threads"),
        ({"heap_factor": 1.1}, "heap_factor"),
        ({"centroid_fraction": 0}, "centroid_fraction"),
        ({"summary_energy": float("nan")}, "summary_energy"),
    ],
)
def test_wrong_parameters_are_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=rf"^{field}: "):
        SeismicIndex(**options)


@installed
def test_wrong_calls_are_named() -> None:
    index = build({0: {1: 1.0}, 1: {2: 1.0}})
    with pytest.raises(InputError, match=r"^k: "):
        index.search(vectors([{1: 1.0}]), 0)
    with pytest.raises(InputError, match=r"^queries: .* negative"):
        index.search(vectors([{1: -1.0}]), 1)
    for positions, rows, words in (
        ([5, 1], [{1: 1.0}, {1: 1.0}], "already taken"),
        ([7, 7], [{1: 1.0}, {1: 1.0}], "twice"),
        ([8], [{-1: 1.0}], "vectors: a term is negative"),
        ([8], [{1: -1.0}], "vectors: a weight is negative"),
        ([8, 9], [{1: 1.0}], "2 positions for 1 vectors"),
    ):
        with pytest.raises(InputError, match=words):
            index.add(np.array(positions), vectors(rows))
    assert len(index) == 2


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(seismic, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"ragkit\[seismic\]"):
        SeismicIndex()
