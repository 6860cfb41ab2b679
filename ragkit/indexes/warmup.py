"""Compiling ahead of the first search."""

from __future__ import annotations

import numpy as np

from ragkit.indexes.impact import ImpactIndex
from ragkit.sparse_vectors import SparseVectors


def warm_up() -> None:
    """Have everything compiled that sparse indexes run: seconds, once per machine and version; a moment after that.

    Without it the first add or search waits for as long. The compiled code is kept in `__pycache__` beside the package, or, where
    that cannot be written, in numba's cache directory (`NUMBA_CACHE_DIR`).
    """
    for weights in ([1.0, 2.0], [0.5, 1.5]):  # whole numbers and fractions are kept, and so compiled, differently
        index = ImpactIndex()
        index.add(np.arange(8), SparseVectors.of([([0, 1], weights)] * 8))
        index.search(SparseVectors.count([[1]]), 1)
        index.remove(np.array([0]))
        index.search(SparseVectors.count([[1]]), 1, np.array([1]))
        index.remove(np.arange(6))
        index.search(SparseVectors.count([[1]]), 1)
