"""Rows in chunks, the exact scan and k-means, against plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.indexes import vectors as vectors_module
from ragkit.indexes.kmeans import assign, kmeans
from ragkit.indexes.scan import scan
from ragkit.indexes.vectors import Vectors


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_any_history_equals_one_array(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors_module, "_LARGEST", 40)
        patch.setattr(vectors_module, "_BLOCK", 16)
        rows, plain = Vectors(3), np.empty((0, 3), np.float32)
        for _ in range(12):
            match rng.integers(4):
                case 0 | 1:
                    more = rng.normal(size=(rng.integers(60), 3)).astype(np.float32)
                    rows.append(more)
                    plain = np.concatenate([plain, more])
                case 2:
                    live = rng.random(len(plain)) < rng.choice([0.1, 0.9])
                    rows.keep(live)
                    plain = plain[live]
                case _:
                    folder: Path = tmp_path_factory.mktemp("rows")
                    rows = Vectors.load(folder, 3, "float32", rows.save(folder))
            assert len(rows) == len(plain)
            some = rng.integers(len(plain), size=20) if len(plain) else np.empty(0, np.int64)
            np.testing.assert_array_equal(rows.take(some), plain[some])
            blocks = list(rows.blocks())
            assert [first for first, _ in blocks] == np.cumsum([0, *(len(block) for _, block in blocks)])[:-1].tolist()
            np.testing.assert_array_equal(np.concatenate([plain[:0], *(block for _, block in blocks)]), plain)
            assert rows.longest >= max(np.linalg.norm(plain, axis=1), default=0) - 1e-6


@pytest.mark.parametrize("share", [None, 0.5, 0.001])
def test_scan_keeps_every_row_that_may_belong_to_the_top(share: float | None) -> None:
    rng = np.random.default_rng(0)
    plain = rng.integers(-2, 3, (40_000, 4)).astype(np.float32)
    rows = Vectors(4)
    rows.append(plain)
    queries = rng.integers(-2, 3, (70, 4)).astype(np.float32)
    chosen = None if share is None else rng.random(len(plain)) < share
    products = plain @ queries.T
    if chosen is not None:
        products[~chosen] = -np.inf
    for found, column in zip(scan(rows, queries, 10, chosen), products.T, strict=True):
        floor = np.sort(column)[-10]
        assert found.tolist() == np.flatnonzero(column >= floor).tolist()


def test_kmeans_finds_clusters() -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(8, 5)).astype(np.float32) * 100
    sample = (centres[np.arange(400) % 8] + rng.normal(size=(400, 5))).astype(np.float32)
    found = kmeans(sample, 30)
    nearest = np.linalg.norm(centres[:, None] - found, axis=2).min(axis=1)
    assert (nearest < 5).all()
    np.testing.assert_array_equal(found, kmeans(sample, 30))
    distances = np.linalg.norm(sample[:, None] - found, axis=2)
    np.testing.assert_array_equal(assign(sample, found), distances.argmin(axis=1))


def test_kmeans_of_equal_vectors() -> None:
    np.testing.assert_array_equal(kmeans(np.ones((10, 3), np.float32), 4), np.ones((4, 3)))
