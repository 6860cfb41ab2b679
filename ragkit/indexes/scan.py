"""Exact nearest vectors by reading all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragkit.indexes.vectors import Rows, Vectors

_QUERIES = 64  # at once: their scores for one block stay in the processor's cache


def scan(vectors: Vectors, queries: NDArray[np.float32], k: int, chosen: NDArray[np.bool_] | None = None) -> list[Rows]:
    """For each query [n, dimension] the rows that may be among the `k` of highest inner product, ties included.

    Products are those of matrices in float32, so a few rows more than `k` come back: all whose product is within the rounding
    error of the k-th best. `chosen` [rows] leaves rows out. numpy's matrix product does this several times as fast as the
    inner products of faiss.
    """
    slack = 2 * vectors.dimension * 1.2e-7 * vectors.longest * np.linalg.norm(queries, axis=1)
    kept = [np.empty(0, np.int64) for _ in queries]
    scores = [np.empty(0, np.float32) for _ in queries]
    floors = np.full(len(queries), -np.inf)
    for first, block in vectors.blocks():
        local = None if chosen is None else np.flatnonzero(chosen[first : first + len(block)])
        if local is not None and not len(local):
            continue
        if local is not None and len(local) < len(block):
            block = block[local]
        else:
            local = None
        block = block.astype(np.float32, copy=False)
        for start in range(0, len(queries), _QUERIES):
            for query, products in enumerate(queries[start : start + _QUERIES] @ block.T, start):
                near = np.flatnonzero(products >= floors[query])
                if not len(near):
                    continue
                rows = np.concatenate([kept[query], first + (near if local is None else local[near])])
                values = np.concatenate([scores[query], products[near]])
                if len(values) > k:
                    floors[query] = np.partition(values, len(values) - k)[len(values) - k] - slack[query]
                    stay = values >= floors[query]
                    rows, values = rows[stay], values[stay]
                kept[query], scores[query] = rows, values
    return kept
