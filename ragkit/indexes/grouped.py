"""Several vectors for one position, ranked by the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError
from ragkit.indexes.base import Positions, Ranking, Scores
from ragkit.indexes.dense import FaissIndex
from ragkit.indexes.kinds import IndexKind

Matrix = NDArray[np.float32]

_BITS = 20
_MOST = 2**_BITS
_VECTORS, _POSITIONS, _COUNTS = "vectors", "positions.npy", "counts.npy"


class GroupedIndex:
    """Retrieval by the best of several vectors, by inner product; implements `Index` for matrices [vectors, dimension].

    Every vector is a row of its own in a `FaissIndex`, under a number made of position and row, so that a search for vectors is
    one for positions too, and as exact as that index is. It asks for more vectors until these belong to k positions.

    Searching from several threads is safe; adding and removing is for one thread at a time, without searches beside it.
    """

    def __init__(self, dimension: int, vectors: IndexKind | FaissIndex = "auto") -> None:
        """`vectors` is the index to fill, or its kind. Raises `InputError` if it has another dimension or is not empty."""
        self._vectors = vectors if isinstance(vectors, FaissIndex) else FaissIndex(dimension, vectors)
        if self._vectors.dimension != dimension:
            raise InputError(f"vectors: has dimension {self._vectors.dimension}, needed is {dimension}")
        if len(self._vectors):
            raise InputError("vectors: must be an empty index")
        self._positions = np.empty(0, np.int64)  # ascending
        self._counts = np.empty(0, np.int64)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._vectors.dimension

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the `FaissIndex`."""
        return self._vectors.settings

    def __len__(self) -> int:
        return len(self._positions)

    def check(self, vectors: Matrix) -> None:
        """Raise `InputError` if there are vectors [n, dimension] that could be part of no matrix; see `FaissIndex.check`."""
        self._vectors.check(vectors)

    def add(self, positions: Positions, matrices: Sequence[Matrix]) -> None:
        """Add documents, one matrix each. Raises `InputError` for taken positions, a wrong shape, no vectors, NaN or infinity."""
        positions = np.ascontiguousarray(positions, np.int64)
        if len(positions) != len(matrices):
            raise InputError(f"positions: {len(positions)} positions for {len(matrices)} matrices")
        if not len(positions):
            return
        for matrix in matrices:
            if np.ndim(matrix) != 2 or np.shape(matrix)[1] != self.dimension or not 0 < len(matrix) <= _MOST:
                raise InputError(
                    f"vectors: have a matrix of shape {np.shape(matrix)}; needed is [1 to {_MOST}, {self.dimension}]"
                )
        if len(np.unique(positions)) < len(positions) or np.isin(positions, self._positions).any():
            raise InputError("positions: a position is already taken or given twice")
        counts = np.array([len(matrix) for matrix in matrices], np.int64)
        self._vectors.add(_members(positions, counts), np.concatenate(matrices))
        order = np.argsort(joined := np.concatenate([self._positions, positions]))
        self._positions, self._counts = joined[order], np.concatenate([self._counts, counts])[order]

    def remove(self, positions: Positions) -> None:
        """Forget documents; positions that are not there are ignored."""
        gone = np.isin(self._positions, positions)
        self._vectors.remove(_members(self._positions[gone], self._counts[gone]))
        self._positions, self._counts = self._positions[~gone], self._counts[~gone]

    def vectors(self, positions: Positions) -> list[Matrix]:
        """The matrices at these positions. Raises `InputError` if one is not there."""
        positions = np.asarray(positions, np.int64)
        if not np.isin(positions, self._positions).all():
            raise InputError("positions: there is no document at one of them")
        counts = self._counts[np.searchsorted(self._positions, positions)]
        return np.split(self._vectors.reconstruct(_members(positions, counts)), np.cumsum(counts)[:-1]) if len(counts) else []

    def scores(self, query: NDArray[np.float32], positions: Positions) -> list[Scores]:
        """For each position the inner products [its vectors] of one query [dimension]."""
        return [np.einsum("nd,d->n", matrix, query, dtype=np.float64) for matrix in self.vectors(positions)]

    def search(self, queries: Matrix, k: int, allowed: Positions | None = None) -> list[Ranking]:
        """For each row of `queries` [n, dimension] at most `k` documents, best first; see `Index.search`."""
        if k < 1:
            raise InputError(f"k: must be at least 1, not {k}")
        there = np.ones(len(self), np.bool_) if allowed is None else np.isin(self._positions, allowed)
        members = None if allowed is None else _members(self._positions[there], self._counts[there])
        available, documents = int(self._counts[there].sum()), int(there.sum())
        enough = min(k, documents)
        wanted = min(4 * k, available)
        rankings: dict[int, Ranking] = {}
        while open_queries := [i for i in range(len(queries)) if i not in rankings]:
            found = self._vectors.search(queries[open_queries], max(wanted, 1), members)
            for i, ranking in zip(open_queries, found, strict=True):
                documents_found = _best_of_each(ranking)
                if len(documents_found.positions) >= enough or wanted == available:
                    rankings[i] = Ranking(documents_found.positions[:k], documents_found.scores[:k])
            wanted = min(4 * wanted, available)
        return [rankings[i] for i in range(len(queries))]

    def save(self, directory: Path) -> None:
        """Write the index into an existing, empty directory: vectors/, positions.npy, counts.npy."""
        (directory / _VECTORS).mkdir()
        self._vectors.save(directory / _VECTORS)
        np.save(directory / _POSITIONS, self._positions, allow_pickle=False)
        np.save(directory / _COUNTS, self._counts, allow_pickle=False)

    @classmethod
    def load(cls, directory: Path, *, writable: bool = False) -> Self:
        """Read what `save` wrote; the vectors stay on disk, and the codes unless `writable`. Only then can it be changed."""
        vectors = FaissIndex.load(directory / _VECTORS, writable=writable)
        index = cls(vectors.dimension, "flat")
        index._vectors = vectors
        index._positions, index._counts = np.load(directory / _POSITIONS), np.load(directory / _COUNTS)
        if int(index._counts.sum()) != len(vectors) or len(index._counts) != len(index._positions):
            raise ValueError(f"the files in {directory} do not fit together")
        return index


def _members(positions: Positions, counts: NDArray[np.int64]) -> Positions:
    """The numbers of all vectors of these positions, position by position."""
    rows = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    members: Positions = (np.repeat(positions, counts) << _BITS) | rows
    return members


def _best_of_each(ranking: Ranking) -> Ranking:
    """Of a ranking of vectors, each position where it comes first."""
    positions = ranking.positions >> _BITS
    first = np.sort(np.unique(positions, return_index=True)[1])
    return Ranking(positions[first], ranking.scores[first])
