"""The BM25 index: exact scores in float64, statistics that are always those of the documents that are there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Self, get_args

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError
from ragkit.indexes.base import Positions, Ranking, empty_ranking, top_k
from ragkit.indexes.bm25_formulas import DELTAS, Floats, Variant, idf, saturate
from ragkit.indexes.postings import Postings


class BM25Index:
    """Sparse retrieval by BM25; implements `Index` for documents and queries that are int32 arrays of term ids.

    A hit is a document that contains at least one term of the query, whatever its score. A term counts as often as the
    query repeats it; ids that no document contains are ignored. `delta` belongs to bm25l and bm25+ (0.5 and 1 if not given),
    `epsilon` to okapi. Searching from several threads is safe; adding and removing is for one thread at a time.

    Raises `InputError` for an unknown variant or a parameter out of its range.
    """

    def __init__(
        self,
        variant: Variant = "lucene",
        k1: float = 1.2,
        b: float = 0.75,
        delta: float | None = None,
        epsilon: float = 0.25,
    ) -> None:
        if variant not in get_args(Variant):
            raise InputError(f"variant: {variant!r} is not one of {', '.join(get_args(Variant))}")
        delta = DELTAS.get(variant, 0.0) if delta is None else delta
        for field, value in (("k1", k1), ("delta", delta), ("epsilon", epsilon)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{field}: must be a number not below 0, not {value}")
        if not 0 <= b <= 1:
            raise InputError(f"b: must lie between 0 and 1, not {b}")
        self.variant: Variant = variant
        self.k1, self.b, self.delta, self.epsilon = k1, b, delta, epsilon
        self._parts: list[Postings] = []
        self._ready: _Searchable | None = None
        self._lock = Lock()

    def __len__(self) -> int:
        return sum(len(part.positions) for part in self._parts)

    def add(self, positions: Positions, vectors: Sequence[NDArray[np.int32]]) -> None:
        """Add documents, each an array of term ids. Raises `InputError` if a position is taken or given twice."""
        new = Postings.build(positions, vectors)
        for part in self._parts:
            if np.isin(new.positions, part.positions).any():
                raise InputError("positions: a position is already taken")
        with self._lock:
            self._parts, self._ready = [*self._parts, new], None

    def remove(self, positions: Positions) -> None:
        """Forget documents; positions that are not there are ignored."""
        with self._lock:
            self._parts, self._ready = [part.without(positions) for part in self._parts], None

    def search(self, queries: Sequence[NDArray[np.int32]], k: int, allowed: Positions | None = None) -> list[Ranking]:
        """For each query at most `k` documents that share a term with it, best first; see `Index.search`."""
        if k < 1:
            raise InputError(f"k: must be at least 1, not {k}")
        searchable = self._searchable()
        mask = None if allowed is None else np.isin(searchable.postings.positions, allowed)
        return [searchable.search(query, k, mask) for query in queries]

    def save(self, directory: Path) -> None:
        """Write the index into an existing, empty directory: .npy files and settings.json."""
        self._searchable().postings.save(directory)
        (directory / "settings.json").write_text(json.dumps(self.settings), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, *, writable: bool = False) -> Self:
        """Read what `save` wrote; the arrays stay on disk unless `writable`."""
        index = cls(**json.loads((directory / "settings.json").read_text(encoding="utf-8")))
        index._parts = [Postings.load(directory, writable=writable)]
        return index

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {field: getattr(self, field) for field in ("variant", "k1", "b", "delta", "epsilon")}

    def _searchable(self) -> _Searchable:
        with self._lock:
            if self._ready is None:
                postings = Postings.merge(self._parts)
                self._parts, self._ready = [postings], _Searchable(postings, **self.settings)
            return self._ready


class _Searchable:
    """Postings with their statistics; never changes, so threads may share it."""

    def __init__(self, postings: Postings, variant: Variant, k1: float, b: float, delta: float, epsilon: float) -> None:
        self.postings = postings
        self._formula = (k1, b, delta)
        self._variant: Variant = variant
        self._idf = idf(variant, np.diff(postings.starts), len(postings.positions), epsilon)
        total = int(postings.lengths.sum())
        mean = max(total, 1) / max(len(postings.positions), 1)
        self._length: Floats = np.asarray(postings.lengths, np.float64) / mean

    def search(self, query: NDArray[np.int32], k: int, mask: NDArray[np.bool_] | None) -> Ranking:
        postings = self.postings
        scores = np.zeros(len(postings.positions))
        hit = np.zeros(len(postings.positions), bool)
        terms, repeats = np.unique(np.asarray(query), return_counts=True)
        known = (terms >= 0) & (terms < len(self._idf))
        for term, repeat in zip(terms[known], repeats[known], strict=True):
            span = slice(postings.starts[term], postings.starts[term + 1])
            rows = postings.rows[span]
            weights = saturate(self._variant, postings.counts[span], self._length[rows], *self._formula)
            scores[rows] += repeat * self._idf[term] * weights
            hit[rows] = True
        found = np.flatnonzero(hit if mask is None else hit & mask)
        return top_k(postings.positions[found], scores[found], k) if len(found) else empty_ranking()
