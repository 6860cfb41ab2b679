"""BM25 over the inverted index: the weight of a term in a document is its frequency."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError
from ragkit.indexes.bm25_formulas import DELTAS, Floats, Saturation, Variant, idf, saturation
from ragkit.indexes.inverted import InvertedIndex, State


class BM25Index(InvertedIndex):
    """Sparse retrieval by BM25; implements `Index` for `SparseVectors` of term frequencies (`SparseVectors.count`).

    A document's length is the sum of its frequencies. A term counts as often as the query repeats it; ids that no document
    contains are ignored. `delta` belongs to bm25l and bm25+ (0.5 and 1 if not given), `epsilon` to okapi.

    Raises `InputError` for an unknown variant or a parameter out of its range.
    """

    def __init__(
        self,
        variant: Variant = "lucene",
        k1: float = 1.2,
        b: float = 0.75,
        delta: float | None = None,
        epsilon: float = 0.25,
        *,
        threads: int | None = None,
        budget: int | None = None,
    ) -> None:
        """`threads` and `budget`: see `InvertedIndex`."""
        super().__init__(threads=threads, budget=budget)
        if variant not in get_args(Variant):
            raise InputError(f"variant: {variant!r} is not one of {', '.join(get_args(Variant))}")
        delta = DELTAS.get(variant, 0.0) if delta is None else delta
        for field, value in (("k1", k1), ("delta", delta), ("epsilon", epsilon)):
            if not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise InputError(f"{field}: must be a number not below 0, not {value!r}")
        if not isinstance(b, int | float) or not 0 <= b <= 1:
            raise InputError(f"b: must lie between 0 and 1, not {b!r}")
        self.variant: Variant = variant
        self.k1, self.b, self.delta, self.epsilon = k1, b, delta, epsilon

    @property
    def settings(self) -> dict[str, Any]:
        """See `InvertedIndex.settings`."""
        return {field: getattr(self, field) for field in ("variant", "k1", "b", "delta", "epsilon", "budget")}

    @property
    def formula(self) -> Saturation:
        """See `InvertedIndex.formula`."""
        return saturation(self.variant, self.k1, self.b, self.delta)

    def query_weights(self, weights: NDArray[np.float32], frequencies: NDArray[np.int64], state: State) -> Floats:
        """Repeats times inverse document frequency."""
        floor = self.epsilon * state.mean_idf if self.variant == "okapi" else 0.0
        return weights * idf(self.variant, frequencies, state.documents, floor)
