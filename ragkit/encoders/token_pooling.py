"""Fewer vectors per document: similar token vectors replaced by their mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragkit.encoders.base import Vectors


def pool_tokens(vectors: Vectors, factor: int) -> Vectors:
    """One vector for every `factor` of `vectors` [n, dimension], rounded down, but at least one; all of length 1.

    Clusters are Ward's, cut at that number, and each is replaced by its mean, normalised: "Reducing the Footprint of Multi-Vector
    Retrieval with Minimal Performance Impact via Token Pooling" (Clavié et al. 2024, arXiv:2409.14683), the baseline without
    training of CRISP (Veneroso et al. 2025, arXiv:2505.11471). The first vector, that of [CLS], stays as it is and does not
    count. Clusters come in the order of their first vectors.
    """
    rest = vectors[1:]
    count = max(len(rest) // factor, 1)
    if count >= len(rest):
        return vectors
    labels = ward_clusters(rest, count)
    means = np.zeros((count, vectors.shape[1]), np.float64)
    np.add.at(means, labels, rest)  # the sum has the same direction as the mean
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return np.concatenate([vectors[:1], means.astype(np.float32)])


def ward_clusters(points: Vectors, count: int) -> NDArray[np.int64]:
    """A label below `count` for each of `points` [n, dimension], n >= count: agglomerative clustering by Ward's criterion.

    Labels are in the order of first occurrence. The merges are found by nearest-neighbour chains (Murtagh 1983), in O(n^2).
    """
    n = len(points)
    exact = points.astype(np.float64)
    squares = (exact**2).sum(1)
    gaps = np.maximum(squares[:, None] + squares[None, :] - 2 * exact @ exact.T, 0.0)
    np.fill_diagonal(gaps, np.inf)
    sizes = np.ones(n)  # 0 where a cluster has become part of another
    merges: list[tuple[float, int, int]] = []
    chain: list[int] = []
    while len(merges) < n - 1:
        chain = chain or [int(np.flatnonzero(sizes)[0])]
        last = chain[-1]
        nearest = int(gaps[last].argmin())
        if len(chain) > 1 and gaps[last, chain[-2]] <= gaps[last, nearest]:
            other = chain[-2]
            del chain[-2:]
            merges.append((float(gaps[last, other]), last, other))
            _merge(gaps, sizes, last, other)
        else:
            chain.append(nearest)
    # a stable sort: of equal merges the inner one has been found first
    return _cut(n, sorted(merges, key=lambda merge: merge[0])[: n - count])


def _merge(gaps: NDArray[np.float64], sizes: NDArray[np.float64], kept: int, gone: int) -> None:
    """Make one cluster of two; `gaps` are twice the growth of the squared error that merging two clusters brings."""
    total = sizes + sizes[kept] + sizes[gone]
    # the recurrence of Lance and Williams for Ward's criterion; it leaves infinity where there is no cluster
    row = ((sizes + sizes[kept]) * gaps[kept] + (sizes + sizes[gone]) * gaps[gone] - sizes * gaps[kept, gone]) / total
    row[[kept, gone]] = np.inf
    gaps[kept], gaps[:, kept] = row, row
    gaps[gone], gaps[:, gone] = np.inf, np.inf
    sizes[kept], sizes[gone] = sizes[kept] + sizes[gone], 0


def _cut(n: int, merges: list[tuple[float, int, int]]) -> NDArray[np.int64]:
    """Labels of `n` points after these merges, each of which names a point of either cluster."""
    parents = list(range(n))

    def root(point: int) -> int:
        while parents[point] != point:
            point = parents[point]
        return point

    for _, one, other in merges:
        parents[root(one)] = root(other)
    labels: dict[int, int] = {}
    return np.array([labels.setdefault(root(point), len(labels)) for point in range(n)], np.int64)
