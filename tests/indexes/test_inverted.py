"""The inverted index against a brute-force search: every history, filter, cut, tie and block size."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.errors import InputError
from ragkit.indexes import segment
from ragkit.indexes.base import Ranking
from ragkit.indexes.bm25 import BM25Index
from ragkit.indexes.impact import ImpactIndex
from ragkit.indexes.inverted import InvertedIndex
from ragkit.sparse_vectors import SparseVectors

Vector = dict[int, float]
weights = st.floats(0, 4, width=32) | st.sampled_from([0.0, 0.5, 1.0, 3.0])
vectors = st.dictionaries(st.integers(0, 12), weights, max_size=8)
queries = st.dictionaries(st.integers(-2, 15), st.floats(-1, 3, width=32), max_size=8)


@pytest.fixture(params=[1, 2, 8], ids=lambda shift: f"blocks of {2**shift}")
def block_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(segment, "_shift", lambda rows: request.param)
    return 2**request.param


def sparse(*rows: Vector) -> SparseVectors:
    return SparseVectors.of([(list(row), list(row.values())) for row in rows])


def raw(weight: float) -> SparseVectors:
    return SparseVectors(np.array([0, 1]), np.array([1], np.int32), np.array([weight], np.float32))


def brute_force(documents: dict[int, Vector], query: Vector, k: int, allowed: set[int] | None = None) -> list[tuple[int, float]]:
    hits = []
    for position, document in documents.items():
        shared = sorted(term for term in set(document) & set(query) if document[term])
        if shared and (allowed is None or position in allowed):
            score = 0.0
            for term in shared:
                score += float(np.float32(query[term])) * float(np.float32(document[term]))
            hits.append((position, score))
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:k]


def same(ranking: Ranking, expected: list[tuple[int, float]]) -> None:
    np.testing.assert_allclose(ranking.scores, [score for _, score in expected], atol=1e-9)
    assert ranking.positions.tolist() == [position for position, _ in expected]


batches = st.dictionaries(st.integers(0, 40), vectors, max_size=12)
steps = st.lists(st.tuples(batches, st.sets(st.integers(0, 40), max_size=8), st.booleans()), max_size=6)


@pytest.mark.usefixtures("block_size")
@given(steps=steps, query=queries, k=st.integers(1, 50), allowed=st.none() | st.sets(st.integers(0, 45)))
@settings(max_examples=150)
def test_any_history_gives_the_exact_top_k(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any], query: Vector, k: int, allowed: set[int] | None
) -> None:
    index, state = ImpactIndex(), dict[int, Vector]()
    for added, removed, saved in steps:
        added = {p: v for p, v in added.items() if p not in state}
        index.add(np.array(list(added), np.int64), sparse(*added.values()))
        state |= added
        index.remove(np.array(sorted(removed), np.int64))
        state = {p: v for p, v in state.items() if p not in removed}
        if saved:
            home = tmp_path_factory.mktemp("index")
            index.save(home)
            index = ImpactIndex.load(home)
        same(index.search(sparse(query), k)[0], brute_force(state, query, k))
    assert len(index) == len(state)
    filter = None if allowed is None else np.array(sorted(allowed), np.int64)
    same(index.search(sparse(query), k, filter)[0], brute_force(state, query, k, allowed))


def random_documents(rng: np.random.Generator, count: int) -> dict[int, Vector]:
    """With many ties, empty documents and documents that are there several times."""
    documents: dict[int, Vector] = {}
    for position in rng.permutation(3 * count)[:count].tolist():
        terms = np.unique((rng.pareto(0.7, rng.integers(0, 25)) * 2).astype(int) % 300)
        documents[position] = dict(zip(terms.tolist(), rng.choice([0.25, 0.5, 1, 1.5, 3], len(terms)).tolist(), strict=True))
        if documents and rng.random() < 0.2:
            documents[position] = documents[int(rng.choice(list(documents)))]
    return documents


@pytest.mark.parametrize("seed", range(4))
def test_many_blocks_and_segments(seed: int) -> None:
    rng = np.random.default_rng(seed)
    documents = random_documents(rng, 3000)
    index = ImpactIndex(threads=2)
    places = np.array(list(documents))
    for part in np.split(places, np.sort(rng.integers(0, 3000, 7))):
        index.add(part, sparse(*(documents[p] for p in part.tolist())))
        index.search(sparse({1: 1.0}), 1)  # so that the parts become segments
    gone = rng.choice(places, 500, replace=False)
    index.remove(gone)
    for position in gone.tolist():
        del documents[position]
    asked = [
        dict(
            zip(np.unique(rng.integers(0, 320, rng.integers(0, 30))).tolist(), rng.choice([0.5, 1, 2], 30).tolist(), strict=False)
        )
        for _ in range(60)
    ]
    allowed = rng.choice(9000, 2000, replace=False)
    for k in (1, 10, 100, 5000):
        for filter in (None, np.sort(allowed)):
            inside = None if filter is None else set(filter.tolist())
            for query, ranking in zip(asked, index.search(sparse(*asked), k, filter), strict=True):
                same(ranking, brute_force(documents, query, k, inside))


def test_bounds_hold_when_the_mean_length_changes() -> None:
    """Scores follow the statistics of the day, and so must the bounds of segments built before."""
    rng = np.random.default_rng(5)
    short = [rng.integers(0, 60, rng.integers(1, 8)) for _ in range(1000)]
    long = [rng.integers(0, 60, rng.integers(200, 400)) for _ in range(400)]
    index, fresh = BM25Index(k1=2.0, b=1.0), BM25Index(k1=2.0, b=1.0)
    asked = SparseVectors.count([rng.integers(0, 60, 3) for _ in range(50)])
    index.add(np.arange(1000), SparseVectors.count(short))
    index.search(asked, 5)
    index.add(np.arange(1000, 1400), SparseVectors.count(long))
    index.search(asked, 5)
    assert len(index._parts) == 2
    fresh.add(np.arange(1400), SparseVectors.count([*short, *long]))
    everything = fresh.search(asked, 1400)
    for ours, all_hits in zip(index.search(asked, 10), everything, strict=True):
        np.testing.assert_array_equal(ours.positions, all_hits.positions[:10])
        np.testing.assert_array_equal(ours.scores, all_hits.scores[:10])


def test_eight_bits_are_as_near_as_stated() -> None:
    rng = np.random.default_rng(6)
    documents = [{t: float(rng.uniform(0, 3)) for t in rng.choice(40, 10, replace=False).tolist()} for _ in range(500)]
    exact, small = ImpactIndex(), ImpactIndex(ceiling=3.0)
    for index in (exact, small):
        index.add(np.arange(500), sparse(*documents))
    query = {t: float(rng.uniform(0, 2)) for t in range(0, 40, 3)}
    (truth,), (found,) = exact.search(sparse(query), 500), small.search(sparse(query), 500)
    scores = dict(zip(truth.positions.tolist(), truth.scores.tolist(), strict=True))
    errors = [abs(scores[p] - s) for p, s in zip(found.positions.tolist(), found.scores.tolist(), strict=True)]
    assert 0 < max(errors) <= sum(query.values()) * 3.0 / 510


@pytest.mark.parametrize("kind", [BM25Index, ImpactIndex])
def test_a_budget_gives_fewer_but_real_hits(kind: type[InvertedIndex]) -> None:
    rng = np.random.default_rng(7)
    documents = SparseVectors.count([rng.integers(0, 80, 12) for _ in range(2000)])
    whole, bounded = kind(), kind(budget=200)
    for index in (whole, bounded):
        index.add(np.arange(2000), documents)
    query = SparseVectors.count([[1, 2, 3, 4, 5]])
    (all_hits,), (some,) = whole.search(query, 2000), bounded.search(query, 2000)
    scores = dict(zip(all_hits.positions.tolist(), all_hits.scores.tolist(), strict=True))
    assert 0 < len(some.positions) < len(all_hits.positions)
    assert [scores[p] for p in some.positions.tolist()] == some.scores.tolist()


def test_small_changes_leave_big_files_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    index = BM25Index()
    index.add(np.arange(4000), SparseVectors.count([rng.integers(0, 500, 30) for _ in range(4000)]))
    (tmp_path / "1").mkdir()
    index.save(tmp_path / "1")
    index = BM25Index.load(tmp_path / "1")
    index.add(np.array([5000]), SparseVectors.count([[1, 2]]))
    index.remove(np.array([7]))
    (tmp_path / "2").mkdir()
    index.save(tmp_path / "2")
    old = {os.stat(file).st_ino for file in (tmp_path / "1").rglob("*.npy")}
    fresh = [file for file in (tmp_path / "2").rglob("*.npy") if os.stat(file).st_ino not in old]
    assert sum(file.stat().st_size for file in fresh) < 60_000
    # and a directory that is gone is written anew from what is still mapped
    for file in (tmp_path / "1").rglob("*"):
        if file.is_file():
            file.unlink()
    again = BM25Index.load(tmp_path / "2")
    for file in (tmp_path / "2").rglob("*.npy"):
        file.unlink()
    (tmp_path / "3").mkdir()
    again.save(tmp_path / "3")
    query = SparseVectors.count([[1, 2, 3]])
    np.testing.assert_array_equal(BM25Index.load(tmp_path / "3").search(query, 50)[0].scores, index.search(query, 50)[0].scores)


def test_adding_one_by_one_keeps_few_segments() -> None:
    index = ImpactIndex()
    for position in range(300):
        index.add(np.array([position]), sparse({position % 7: 1.0}))
        index.search(sparse({0: 1.0}), 1)
    assert len(index._parts) <= 10
    assert len(index) == 300


def test_removing_much_frees_the_space() -> None:
    index = ImpactIndex()
    index.add(np.arange(1000), sparse(*({p % 9: 1.0} for p in range(1000))))
    index.search(sparse({0: 1.0}), 1)
    index.remove(np.arange(900))
    index.search(sparse({0: 1.0}), 1)
    assert sum(len(part.segment.positions) for part in index._parts) == 100


def test_no_queries() -> None:
    index = ImpactIndex()
    index.add(np.array([3]), sparse({1: 1.0}))
    assert index.search(sparse(), 5) == []


def test_long_queries() -> None:
    rng = np.random.default_rng(9)
    documents = {p: {int(t): 1.0 for t in rng.choice(20_000, 30, replace=False)} for p in range(500)}
    index = ImpactIndex()
    index.add(np.array(list(documents)), sparse(*documents.values()))
    query = dict.fromkeys(range(20000), 1.0)
    same(index.search(sparse(query), 20)[0], brute_force(documents, query, 20))


def test_batches_that_nobody_searches_between_are_kept_cheaply() -> None:
    index, vector = ImpactIndex(), sparse({1: 1.0})
    positions = np.zeros(1, np.int64)
    for _ in range(2000):
        index.add(positions, vector)
        positions += 1  # the index keeps no array of the caller's
    assert len(index) == 2000
    assert index.search(vector, 3)[0].positions.tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="already taken"):
        index.add(np.array([700]), vector)


@pytest.mark.parametrize("options", [{"k1": 0.0}, {"b": 1.0}])
def test_weights_of_zero_are_no_entries(options: dict[str, float]) -> None:
    index = BM25Index(**options)
    index.add(np.array([0, 1]), sparse({3: 0.0}, {3: 1.0}))
    assert index.search(sparse({3: 1.0}), 5)[0].positions.tolist() == [1]


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    index = ImpactIndex()
    index.add(np.arange(50), sparse(*({p % 5: 1.0} for p in range(50))))
    index.save(tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for name in ("blocks", "entry_starts", "values", "positions"):
        whole = (folder / f"{name}.npy").read_bytes()
        np.save(folder / f"{name}.npy", np.load(folder / f"{name}.npy")[:-1])
        with pytest.raises(ValueError, match="do not fit together"):
            ImpactIndex.load(tmp_path)
        (folder / f"{name}.npy").write_bytes(whole)
    ImpactIndex.load(tmp_path)


def test_a_directory_that_has_become_another_index_is_not_linked_to(tmp_path: Path) -> None:
    ours, other = ImpactIndex(), ImpactIndex()
    ours.add(np.arange(2), sparse({1: 1.0}, {1: 2.0}))
    other.add(np.arange(2), sparse({1: 7.0}, {1: 9.0}))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    ours.save(tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").mkdir()
    other.save(tmp_path / "a")
    ours.save(tmp_path / "b")
    assert ImpactIndex.load(tmp_path / "b").search(sparse({1: 1.0}), 2)[0].scores.tolist() == [2, 1]


def test_nothing_is_left_to_compile_after_the_warm_up(tmp_path: Path) -> None:
    code = f"""
import numpy as np
from pathlib import Path
from ragkit import counting
from ragkit.indexes import kernels
from ragkit.indexes.bm25 import BM25Index
from ragkit.indexes.impact import ImpactIndex
from ragkit.indexes.warmup import warm_up
from ragkit.sparse_vectors import SparseVectors

def compiled():
    return {{name: len(f.signatures) for m in (counting, kernels) for name, f in vars(m).items() if hasattr(f, "signatures")}}

warm_up()
before = compiled()
rng = np.random.default_rng(0)
for number, kind in enumerate((BM25Index, ImpactIndex)):
    index = kind()
    for part in range(3):
        texts = [rng.integers(0, 50, 20) for _ in range(100)]
        index.add(np.arange(100) + 100 * part, SparseVectors.count(texts))
        index.search(SparseVectors.count(texts), 5, np.arange(50))
        index.remove(np.arange(3) + 100 * part)
    home = Path({str(tmp_path)!r}, str(number))
    home.mkdir()
    index.save(home)
    index = kind.load(home)
    index.search(SparseVectors.count(texts), 5)
    index.remove(np.arange(100))
    index.search(SparseVectors.count(texts), 5)
assert compiled() == before, (before, compiled())
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_wrong_vectors_are_named() -> None:
    index = ImpactIndex()
    for weight in (float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"^(vectors|queries): .*(finite|negative)"):
            index.add(np.array([0]), raw(weight))
        with pytest.raises(InputError, match=r"^queries: .*finite"):
            index.search(raw(weight), 1)
    with pytest.raises(InputError, match=r"^vectors: .*negative"):
        index.add(np.array([0]), sparse({1: -0.5}))
    with pytest.raises(InputError, match=r"^positions: "):
        index.add(np.array([0, 1]), sparse({1: 0.5}))
    with pytest.raises(InputError, match=r"^ceiling: "):
        ImpactIndex(ceiling=0)
    with pytest.raises(InputError, match=r"^threads: "):
        ImpactIndex(threads=0)
    with pytest.raises(InputError, match=r"^budget: "):
        ImpactIndex(budget=0)
    for rows in ([([1], [1.0, 2.0])], [([1, 1], [1.0, 2.0])], [([1], [float("nan")])], [([2**32 + 5], [1.0])]):
        with pytest.raises(InputError, match=r"^rows: "):
            SparseVectors.of(rows)
    assert len(index) == 0
