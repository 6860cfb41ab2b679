"""The package rank_bm25 as an index: slow, well known, and so a reference for faster ones."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError, MissingExtraError
from ragkit.indexes.base import Positions, Ranking, Scores, empty_ranking, top_k
from ragkit.sparse_vectors import SparseVectors

_ARRAYS = ("starts", "terms", "weights")


class RankBM25Index:
    """`rank_bm25.BM25Okapi` over term counts.

    Documents and queries are `SparseVectors` whose weights say how often a term occurs. A hit shares a term with its query; its
    score may be negative, as Okapi's idf may. After a change the first search builds everything anew.
    """

    def __init__(self, k1: float = 1.5, b: float = 0.75, epsilon: float = 0.25) -> None:
        """The parameters of `BM25Okapi`, with its defaults. Raises `MissingExtraError` without the package rank_bm25."""
        try:
            import rank_bm25  # noqa: F401
        except ImportError:
            raise MissingExtraError("RankBM25Index", "rank-bm25") from None
        self.k1, self.b, self.epsilon = k1, b, epsilon
        self._lock = threading.Lock()
        self._documents = _Documents(np.empty(0, np.int64), SparseVectors.of([]))
        self._engine: Any = None

    def __len__(self) -> int:
        return len(self._documents.positions)

    def add(self, positions: Positions, vectors: SparseVectors) -> None:
        """See `Index.add`. Raises `InputError` for weights that are no counts, and for negative term ids or positions."""
        positions = np.asarray(positions, np.int64)
        if len(positions) != len(vectors):
            raise InputError(f"positions: {len(positions)} positions for {len(vectors)} vectors; give one for each")
        if (positions < 0).any() or (vectors.terms < 0).any():
            raise InputError("positions, vectors: positions and term ids of documents must not be negative")
        _counts("vectors", vectors.weights)
        known = self._documents
        together = np.concatenate([known.positions, positions])
        order = np.argsort(together, kind="stable")
        if (np.diff(together[order]) == 0).any():
            raise InputError("positions: a position is given twice or taken; remove it first")
        starts = np.concatenate([known.vectors.starts, vectors.starts[1:] + known.vectors.starts[-1]])
        terms = np.concatenate([known.vectors.terms, vectors.terms])
        weights = np.concatenate([known.vectors.weights, vectors.weights])
        self._change(_Documents(together[order], SparseVectors(starts, terms, weights).take(order)))

    def remove(self, positions: Positions) -> None:
        """See `Index.remove`."""
        kept = np.flatnonzero(~np.isin(self._documents.positions, positions))
        self._change(_Documents(self._documents.positions[kept], self._documents.vectors.take(kept)))

    def search(self, queries: SparseVectors, k: int, allowed: Positions | None = None) -> list[Ranking]:
        """See `Index.search`. Raises `InputError` for `k` below 1, or weights that are no counts."""
        if k < 1:
            raise InputError(f"k: must be at least 1, not {k}")
        _counts("queries", queries.weights)
        with self._lock:
            documents = self._documents
            if self._engine is None:
                self._engine = self._built()
            engine = self._engine
        mask = np.ones(len(documents.positions), bool) if allowed is None else np.isin(documents.positions, allowed)
        rankings = []
        for query in map(queries.row, range(len(queries))):
            hits = np.flatnonzero(mask & documents.sharing(query[0]))
            if len(hits):
                with np.errstate(invalid="ignore"):  # with b = 1 an empty document, which is no hit, is 0 / 0
                    scores: Scores = engine.get_scores(_tokens(*query))
                rankings.append(top_k(documents.positions[hits], scores[hits], k))
            else:
                rankings.append(empty_ranking())
        return rankings

    def save(self, directory: Path) -> None:
        """Write into an existing, empty directory: .npy files and settings.json."""
        np.save(directory / "positions.npy", self._documents.positions, allow_pickle=False)
        for name in _ARRAYS:
            np.save(directory / f"{name}.npy", getattr(self._documents.vectors, name), allow_pickle=False)
        (directory / "settings.json").write_text(json.dumps(self.settings), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, *, writable: bool = False) -> Self:
        """Read what `save` wrote, `writable` or not: into memory, as rank_bm25 needs it."""
        index = cls(**json.loads((directory / "settings.json").read_text(encoding="utf-8")))
        vectors = SparseVectors(*(np.load(directory / f"{name}.npy") for name in _ARRAYS))
        index._documents = _Documents(np.load(directory / "positions.npy"), vectors)
        return index

    @property
    def settings(self) -> dict[str, float]:
        """The constructor's arguments."""
        return {"k1": self.k1, "b": self.b, "epsilon": self.epsilon}

    def _change(self, documents: _Documents) -> None:
        with self._lock:
            self._documents, self._engine = documents, None

    def _built(self) -> Any:
        from rank_bm25 import BM25Okapi

        vectors = self._documents.vectors
        if not len(vectors.terms):
            return None  # rank_bm25 divides by the number of terms; without any there are no hits either
        tokens = [_tokens(*vectors.row(i)) for i in range(len(vectors))]
        return BM25Okapi(tokens, k1=self.k1, b=self.b, epsilon=self.epsilon)


class _Documents(NamedTuple):
    """Row i is the document at `positions[i]`; positions ascend."""

    positions: Positions
    vectors: SparseVectors

    def sharing(self, terms: NDArray[np.int32]) -> NDArray[np.bool_]:
        """[documents] which have one of these terms."""
        found = np.append(0, np.cumsum(np.isin(self.vectors.terms, terms)))
        shared: NDArray[np.bool_] = np.diff(found[self.vectors.starts]) > 0
        return shared


def _counts(field: str, weights: NDArray[np.float32]) -> None:
    if not ((weights >= 1) & (weights == np.floor(weights))).all():
        raise InputError(f"{field}: rank_bm25 counts words, so weights must be whole numbers from 1; use BM25Index for others")


def _tokens(terms: NDArray[np.int32], counts: NDArray[np.float32]) -> list[int]:
    tokens: list[int] = np.repeat(terms, counts.astype(np.int64)).tolist()
    return tokens
