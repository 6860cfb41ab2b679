"""k-means, for the lists of an inverted file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ROUNDS = 10
"""After so many, centroids hardly move."""
_BLOCK = 4096


def kmeans(sample: Floats, count: int, rounds: int = ROUNDS, seed: int = 0) -> Floats:
    """Lloyd's algorithm: `count` centroids [count, d] of the vectors [n, d], n >= count. The same input gives the same output.

    A centroid that no vector is nearest to moves to a random vector.
    """
    random = np.random.default_rng(seed)
    centroids = sample[np.sort(random.choice(len(sample), count, replace=False))]
    for _ in range(rounds):
        nearest = assign(sample, centroids)
        order = np.argsort(nearest, kind="stable")
        filled, firsts, sizes = np.unique(nearest[order], return_index=True, return_counts=True)
        centroids = sample[random.choice(len(sample), count)]
        centroids[filled] = np.add.reduceat(sample[order], firsts, axis=0) / sizes[:, None]
    return centroids


def assign(vectors: Floats, centroids: Floats) -> NDArray[np.int64]:
    """The number of the nearest centroid, by Euclidean distance, of each vector [n, d]."""
    half = np.einsum("cd,cd->c", centroids, centroids) / 2
    nearest = np.empty(len(vectors), np.int64)
    for first in range(0, len(vectors), _BLOCK):
        nearest[first : first + _BLOCK] = np.argmax(vectors[first : first + _BLOCK] @ centroids.T - half, axis=1)
    return nearest
