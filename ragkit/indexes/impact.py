"""Learned sparse vectors in the inverted index: the score is the inner product."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError
from ragkit.indexes.base import Positions
from ragkit.indexes.bm25_formulas import PLAIN, Floats, Saturation
from ragkit.indexes.inverted import InvertedIndex, State
from ragkit.sparse_vectors import SparseVectors


class ImpactIndex(InvertedIndex):
    """Inner products of non-negative document vectors with query vectors; implements `Index` for `SparseVectors`.

    With `ceiling` the weights of documents are kept in 8 bits, which takes 3 bytes per posting instead of 6: those above the
    ceiling are cut to it, the others rounded to multiples of ceiling / 255. A score is then off by at most the sum of the query's
    absolute weights times ceiling / 510, apart from what is cut. Raises `InputError` if it is not above 0.
    """

    def __init__(self, ceiling: float | None = None, *, threads: int | None = None, budget: int | None = None) -> None:
        """`threads` and `budget`: see `InvertedIndex`."""
        super().__init__(threads=threads, budget=budget)
        if ceiling is not None and not 0 < ceiling < float("inf"):
            raise InputError(f"ceiling: must be above 0, not {ceiling}")
        self.ceiling = ceiling

    @property
    def settings(self) -> dict[str, Any]:
        """See `InvertedIndex.settings`."""
        return {"ceiling": self.ceiling, "budget": self.budget}

    @property
    def formula(self) -> Saturation:
        """See `InvertedIndex.formula`."""
        return PLAIN

    def add(self, positions: Positions, vectors: SparseVectors) -> None:
        """See `InvertedIndex.add`."""
        if self.ceiling is not None:
            levels = np.rint(np.minimum(vectors.weights, self.ceiling) * (255 / self.ceiling)).astype(np.float32)
            vectors = SparseVectors(vectors.starts, vectors.terms, levels)
        super().add(positions, vectors)

    def query_weights(self, weights: NDArray[np.float32], frequencies: NDArray[np.int64], state: State) -> Floats:
        """The query's own."""
        return weights.astype(np.float64) * (1.0 if self.ceiling is None else self.ceiling / 255)
