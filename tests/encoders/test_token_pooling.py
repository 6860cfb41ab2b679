"""Token pooling against scipy's hierarchical clustering, and what must hold for any vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit.encoders.token_pooling import pool_tokens, ward_clusters


def unit(seed: int, count: int, dimension: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def as_sets(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 60), data=st.data())
def test_the_clusters_are_those_of_scipy(seed: int, count: int, data: st.DataObject) -> None:
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    points = unit(seed, count, 8)
    wanted = data.draw(st.integers(1, count))
    tree = hierarchy.linkage(points.astype(np.float64), "ward")
    expected = hierarchy.cut_tree(tree, n_clusters=wanted).ravel()
    labels = ward_clusters(points, wanted)
    assert as_sets(labels) == as_sets(expected)
    firsts = [int(np.flatnonzero(labels == label)[0]) for label in range(wanted)]
    assert firsts == sorted(firsts)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), factor=st.integers(1, 50))
def test_one_vector_for_every_factor_of_them(seed: int, count: int, factor: int) -> None:
    vectors = unit(seed, count, 6)
    pooled = pool_tokens(vectors, factor)
    assert len(pooled) == 1 + (max((count - 1) // factor, 1) if count > 1 else 0)
    assert pooled.dtype == np.float32
    np.testing.assert_array_equal(pooled[0], vectors[0])
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1, atol=1e-5)
    if factor == 1:
        np.testing.assert_array_equal(pooled, vectors)


def test_similar_vectors_become_their_mean() -> None:
    north, east = np.eye(2, dtype=np.float32)
    near = np.array([0.6, 0.8], np.float32)
    pooled = pool_tokens(np.stack([north, north, east, near, north]), 2)
    # [CLS] apart: north twice, and east with what is nearer to it than to north
    expected = (east + near) / np.linalg.norm(east + near)
    np.testing.assert_allclose(pooled, [north, north, expected], atol=1e-6)


def test_equal_vectors_are_one_cluster() -> None:
    points = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    assert ward_clusters(points, 3).tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert ward_clusters(points, 12).tolist() == list(range(12))
