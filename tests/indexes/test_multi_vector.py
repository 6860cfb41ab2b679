"""The late-interaction index against brute force: any history, exact among candidates, and recall through its encodings."""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.errors import InputError
from ragkit.indexes.base import Ranking
from ragkit.indexes.maxsim import maxsim
from ragkit.indexes.multi_vector import MultiVectorIndex

SMALL: dict[str, Any] = {"repetitions": 3, "bits": 2, "projected": 3}


def integers(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    return [rng.integers(-2, 3, (rng.integers(1, 6), 4)).astype(np.float32) for _ in range(count)]


def brute_force(state: dict[int, np.ndarray], query: np.ndarray, k: int, allowed: Any = None) -> list[tuple[int, float]]:
    hits = [(p, float((m @ query.T).max(0).sum())) for p, m in state.items() if allowed is None or p in allowed]
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:k]


def pairs(ranking: Ranking) -> list[tuple[int, float]]:
    return list(zip(ranking.positions.tolist(), ranking.scores.tolist(), strict=True))


@pytest.mark.parametrize("precision", ["float16", "float32"])
@given(seed=st.integers(0, 2**32), k=st.integers(1, 40), filtered=st.booleans(), reload=st.booleans())
@settings(max_examples=15)
def test_any_history_equals_brute_force(precision: Any, seed: int, k: int, filtered: bool, reload: bool) -> None:
    rng = np.random.default_rng(seed)
    index, state = MultiVectorIndex(4, precision=precision, **SMALL), dict[int, np.ndarray]()
    for _ in range(3):
        positions = np.setdiff1d(rng.permutation(200)[:60], list(state))
        rng.shuffle(positions)
        matrices = integers(rng, len(positions))
        index.add(positions, matrices)
        state |= dict(zip(positions.tolist(), matrices, strict=True))
        removed = rng.permutation(200)[:40]
        index.remove(np.sort(removed))
        state = {p: m for p, m in state.items() if p not in removed}
        if reload:
            with tempfile.TemporaryDirectory() as folder:
                index.save(Path(folder))
                index = MultiVectorIndex.load(Path(folder), writable=True)
    assert len(index) == len(state)
    allowed = np.sort(rng.permutation(200)[:50]) if filtered else None
    queries = integers(rng, 10)
    for query, ranking in zip(queries, index.search(queries, k, allowed), strict=True):
        assert pairs(ranking) == brute_force(state, query, k, allowed)
    some = rng.permutation(list(state))[:10].astype(np.int64)
    for matrix, position in zip(index.vectors(some), some.tolist(), strict=True):
        np.testing.assert_array_equal(matrix, state[position])
    np.testing.assert_array_equal(
        index.scores(queries[0], some), [brute_force({p: state[p]}, queries[0], 1)[0][1] for p in some.tolist()]
    )


@given(seed=st.integers(0, 2**32), k=st.integers(1, 12), filtered=st.booleans())
@settings(max_examples=20)
def test_few_candidates_are_ranked_exactly(seed: int, k: int, filtered: bool) -> None:
    rng = np.random.default_rng(seed)
    index, matrices = MultiVectorIndex(4, candidates=8, **SMALL), integers(rng, 60)
    index.add(np.arange(60), matrices)
    allowed = np.sort(rng.permutation(60)[:30]) if filtered else None
    for query, ranking in zip(queries := integers(rng, 5), index.search(queries, k, allowed), strict=True):
        encoded = index.muvera.queries([query])[0]
        rough = index.muvera.documents(matrices).astype(np.float64) @ encoded
        within = range(60) if allowed is None else allowed.tolist()
        taken = sorted(within, key=lambda p: (-rough[p], p))[: max(k, 8)]
        assert pairs(ranking) == brute_force(dict(enumerate(matrices)), query, k, taken)


def clustered(rng: np.random.Generator, count: int, tokens: int, topics: np.ndarray) -> list[np.ndarray]:
    """Documents of a few topics each, as texts are."""
    made = []
    for _ in range(count):
        own = topics[rng.permutation(len(topics))[:4]]
        matrix = own[rng.integers(4, size=tokens)] + 0.15 * rng.standard_normal((tokens, topics.shape[1]))
        made.append((matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32))
    return made


def test_candidates_then_maxsim_recovers_the_exact_top_ten() -> None:
    rng = np.random.default_rng(11)
    topics = rng.standard_normal((40, 32))
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    documents, queries = clustered(rng, 1500, 30, topics), clustered(rng, 30, 8, topics)
    index = MultiVectorIndex(32, candidates=150, repetitions=10, bits=4, projected=8)
    index.add(np.arange(1500), documents)
    recalls = []
    for query, ranking in zip(queries, index.search(queries, 10), strict=True):
        exact = np.argsort(-maxsim(query, documents), kind="stable")[:10]
        recalls.append(len(set(exact.tolist()) & set(ranking.positions.tolist())) / 10)
    assert np.mean(recalls) >= 0.95


@pytest.mark.parametrize("count", [0, 1, 300])
def test_saved_and_loaded_is_the_same(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(3)
    matrices, queries = integers(rng, count), integers(rng, 5)
    index = MultiVectorIndex(4, candidates=20, final=16, seed=5, **SMALL)
    index.add(np.arange(count) * 3, matrices)
    index.save(tmp_path)
    expected = [pairs(ranking) for ranking in index.search(queries, 7)]
    mapped, writable = MultiVectorIndex.load(tmp_path), MultiVectorIndex.load(tmp_path, writable=True)
    for loaded in (mapped, writable):
        assert len(loaded) == count
        assert loaded.settings == index.settings
        assert [pairs(ranking) for ranking in loaded.search(queries, 7)] == expected
    for _, block in mapped._tokens.blocks():
        assert isinstance(block.base, np.memmap)
    with pytest.raises(InputError, match="writable"):
        mapped.add(np.array([1]), queries[:1])
    with pytest.raises(InputError, match="writable"):
        mapped.remove(np.array([0]))
    assert len(mapped) == count
    writable.remove(np.array([0]))
    writable.add(np.array([1]), queries[:1])
    assert 1 in writable.search(queries[:1], count + 1)[0].positions
    np.testing.assert_array_equal(writable.vectors(np.array([1]))[0], queries[0])


def test_what_is_stored_gives_the_same_encoding_again() -> None:
    rng = np.random.default_rng(4)
    matrix = rng.standard_normal((5, 4)).astype(np.float32)
    index = MultiVectorIndex(4, **SMALL)
    index.add(np.array([3]), [matrix])
    index.add(np.array([1]), index.vectors(np.array([3])))
    first, second = index._encodings.reconstruct(np.array([1, 3]))
    np.testing.assert_array_equal(first, second)
    assert index.search([matrix], 2)[0].positions.tolist() == [1, 3]


def test_removed_vectors_make_room() -> None:
    index = MultiVectorIndex(4, **SMALL)
    one = np.ones((1000, 4), np.float32)
    for position in range(5):
        index.add(np.array([position]), [one])
        index.remove(np.array([position]))
    assert len(index._tokens) == 0
    assert len(index.search([one], 3)[0].positions) == 0


def test_vectors_of_removed_documents_are_dropped_at_a_quarter() -> None:
    rng = np.random.default_rng(8)
    index, matrices = MultiVectorIndex(4, **SMALL), integers(rng, 40)
    index.add(np.arange(40), matrices)
    every = sum(map(len, matrices))
    for gone in rng.permutation(40):
        index.remove(np.array([gone]))
        matrices[gone] = matrices[gone][:0]
        live = sum(map(len, matrices))
        assert 0.75 * len(index._tokens) <= live <= len(index._tokens) <= every
        left = np.array([n for n, matrix in enumerate(matrices) if len(matrix)], np.int64)
        for n, matrix in zip(left, index.vectors(left), strict=True):
            np.testing.assert_array_equal(matrix, matrices[n])


def test_saving_again_writes_only_what_was_added(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    index, matrices = MultiVectorIndex(4, **SMALL), integers(rng, 520)
    index.add(np.arange(500), matrices[:500])
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    index.save(folders[0])
    draft = MultiVectorIndex.load(folders[0], writable=True)
    draft.add(np.arange(500, 510), matrices[500:510])
    draft.remove(np.arange(20))
    draft.save(folders[1])
    draft.add(np.arange(510, 520), matrices[510:])
    draft.save(folders[2])
    first = {file.name: file.stat().st_ino for file in folders[0].glob("vectors-*")}
    for folder, added in zip(folders[1:], (10, 20), strict=True):
        files = {file.name: file for file in folder.glob("vectors-*")}
        assert {name: files[name].stat().st_ino for name in first} == first
        new = [np.load(file) for name, file in files.items() if name not in first]
        assert sum(map(len, new)) == sum(map(len, matrices[500 : 500 + added]))
        loaded = MultiVectorIndex.load(folder)
        for n, matrix in enumerate(loaded.vectors(np.arange(20, 500 + added)), 20):
            np.testing.assert_array_equal(matrix, matrices[n])
    shutil.rmtree(folders[0])
    for n, matrix in enumerate(MultiVectorIndex.load(folders[2]).vectors(np.arange(20, 520)), 20):
        np.testing.assert_array_equal(matrix, matrices[n])


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    index = MultiVectorIndex(4, **SMALL)
    index.add(np.arange(3), integers(np.random.default_rng(1), 3))
    index.save(tmp_path)
    np.save(tmp_path / "places.npy", np.array([[0], [0], [99]]))
    with pytest.raises(ValueError, match="do not fit"):
        MultiVectorIndex.load(tmp_path)


def test_threads_agree() -> None:
    rng = np.random.default_rng(6)
    index, matrices = MultiVectorIndex(4, candidates=30, **SMALL), integers(rng, 300)
    index.add(np.arange(300), matrices)
    alone = [pairs(ranking) for ranking in index.search(matrices[:40], 5)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda matrix: pairs(index.search([matrix], 5)[0]), matrices[:40])) == alone


def test_wrong_calls_are_named() -> None:
    index = MultiVectorIndex(4, **SMALL)
    one = np.ones((2, 4), np.float32)
    index.add(np.array([1]), [one])
    for call, text in [
        (lambda: MultiVectorIndex(4, precision="int8"), "^precision: "),  # type: ignore[arg-type]
        (lambda: MultiVectorIndex(4, candidates=0), "^candidates: "),
        (lambda: index.search([one], 0), "^k: "),
        (lambda: index.search([np.ones((1, 5))], 1), r"^queries: .*\(1, 5\)"),
        (lambda: index.search([one[:0]], 1), r"^queries: .*\(0, 4\)"),
        (lambda: index.add(np.array([2]), [one[:0]]), r"^vectors: .*\(0, 4\)"),
        (lambda: index.add(np.array([2]), [one * np.nan]), "^vectors: .*NaN"),
        (lambda: index.add(np.array([2]), [one * 1e6]), "^vectors: .*too large for float16"),
        (lambda: index.add(np.array([1]), [one]), "taken"),
        (lambda: index.add(np.array([2, 2]), [one, one]), "twice"),
        (lambda: index.add(np.array([2, 3]), [one]), "^positions: "),
        (lambda: index.vectors(np.array([9])), "^positions: "),
        (lambda: index.vectors(np.array([0, 1])), "^positions: "),
        (lambda: MultiVectorIndex(4, **SMALL).vectors(np.array([9])), "^positions: "),
    ]:
        with pytest.raises(InputError, match=text):
            call()
    assert len(index) == 1
    assert pairs(index.search([one], 5)[0]) == [(1, 8.0)]
