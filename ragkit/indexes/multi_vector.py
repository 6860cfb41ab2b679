"""The late-interaction index: candidates by one vector per document, then exact MaxSim over all of its vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, get_args

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError
from ragkit.indexes.base import Positions, Ranking, Scores, top_k
from ragkit.indexes.dense import FaissIndex
from ragkit.indexes.maxsim import Matrix, maxsim
from ragkit.indexes.muvera import Muvera
from ragkit.indexes.vectors import Precision, Vectors

_DEAD = 0.25  # share of token vectors of removed documents at which they are dropped
_ENCODINGS, _SETTINGS, _PLACES, _BATCH = "encodings", "settings.json", "places.npy", 256


class _Places(NamedTuple):
    """Which token vectors are whose, by position: document i has the rows `start[i]` to `stop[i]`."""

    positions: Positions
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    def take(self, rows: NDArray[Any]) -> _Places:
        return _Places(*(column[rows] for column in self))

    def merged(self, other: _Places) -> _Places:
        joined = _Places(*(np.concatenate(columns) for columns in zip(self, other, strict=True)))
        return joined.take(np.argsort(joined.positions))

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows of all documents, one document after the other."""
        lengths = self.stop - self.start
        ends = np.cumsum(lengths)
        rows: NDArray[np.int64] = np.repeat(self.start - ends + lengths, lengths)
        return rows + np.arange(len(rows))


class MultiVectorIndex:
    """Retrieval by MaxSim; implements `Index` for matrices [vectors, dimension] of at least one vector.

    Every document also has a fixed dimensional encoding (`muvera.Muvera`) in a flat `FaissIndex`. A search takes from it the
    `candidates` best, or k if that is more, and ranks these by exact MaxSim. If no more documents are there, or allowed, than
    candidates are taken, the result is exact.

    Token vectors are kept as `precision`, 2 bytes a number or 4, and stay on disk once they are saved and loaded; saving again
    writes what was added since. Vectors of removed documents take up space until they are a quarter of all.

    Searching from several threads is safe; adding and removing is for one thread at a time, without searches beside it.
    """

    def __init__(
        self,
        dimension: int,
        *,
        candidates: int = 200,
        precision: Precision = "float16",
        repetitions: int = 20,
        bits: int = 4,
        projected: int | None = 16,
        final: int | None = None,
        seed: int = 0,
    ) -> None:
        """`repetitions` to `seed` are those of `Muvera`. Raises `InputError` for values out of range."""
        if precision not in get_args(Precision):
            raise InputError(f"precision: {precision!r} is not one of {', '.join(get_args(Precision))}")
        if candidates < 1:
            raise InputError(f"candidates: must be at least 1, not {candidates}")
        self.candidates = candidates
        self.precision: Precision = precision
        self.muvera = Muvera(dimension, repetitions=repetitions, bits=bits, projected=projected, final=final, seed=seed)
        self._encodings = FaissIndex(self.muvera.size)
        self._tokens = Vectors(dimension, precision)
        none = np.empty(0, np.int64)
        self._places = _Places(none, none, none)

    @property
    def dimension(self) -> int:
        """Length of a token vector."""
        return self.muvera.dimension

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return self.muvera.settings | {"candidates": self.candidates, "precision": self.precision}

    def __len__(self) -> int:
        return len(self._places.positions)

    def add(self, positions: Positions, vectors: Sequence[Matrix]) -> None:
        """Add documents, one matrix each. Raises `InputError` for taken positions, a wrong shape, no vectors, NaN or infinity."""
        positions = np.ascontiguousarray(positions, np.int64)
        if len(positions) != len(vectors):
            raise InputError(f"positions: {len(positions)} positions for {len(vectors)} matrices")
        kept = self.stored(vectors, "vectors")
        if not kept:
            return
        encodings = np.empty((len(kept), self.muvera.size), np.float32)
        for start in range(0, len(kept), _BATCH):
            encodings[start : start + _BATCH] = self.muvera.documents(kept[start : start + _BATCH])
        self._encodings.add(positions, encodings)
        stops = len(self._tokens) + np.cumsum([len(matrix) for matrix in kept])
        starts = np.concatenate([[len(self._tokens)], stops[:-1]])
        for start in range(0, len(kept), _BATCH):
            self._tokens.append(np.concatenate(kept[start : start + _BATCH]).astype(np.float32, copy=False))
        self._places = self._places.merged(_Places(positions, starts, stops))

    def remove(self, positions: Positions) -> None:
        """Forget documents; positions that are not there are ignored."""
        self._encodings.remove(positions)
        self._places = self._places.take(~np.isin(self._places.positions, positions))
        rows = self._places.rows
        if len(rows) < (1 - _DEAD) * len(self._tokens):
            live = np.zeros(len(self._tokens), np.bool_)
            live[rows] = True
            self._tokens.keep(live)
            before = np.concatenate([[0], np.cumsum(live)])
            self._places = self._places._replace(start=before[self._places.start], stop=before[self._places.stop])

    def vectors(self, positions: Positions) -> list[Matrix]:
        """The matrices at these positions, float32, rounded to the precision. Raises `InputError` if one is not there."""
        rows = np.searchsorted(self._places.positions, positions)
        found = self._places.take(np.minimum(rows, max(len(self) - 1, 0))) if len(self) else self._places
        if len(found.positions) != len(rows) or (found.positions != positions).any():
            raise InputError("positions: there is no document at one of them")
        if not len(found.positions):
            return []
        return np.split(self._tokens.take(found.rows), np.cumsum(found.stop - found.start)[:-1])

    def scores(self, query: Matrix, positions: Positions) -> Scores:
        """MaxSim [n] of one query [vectors, dimension] and the documents at these positions."""
        return self._maxsim(self._checked(query, "query"), positions)

    def search(self, queries: Sequence[Matrix], k: int, allowed: Positions | None = None) -> list[Ranking]:
        """For each query, a matrix, at most `k` documents, best first; see `Index.search`."""
        if k < 1:
            raise InputError(f"k: must be at least 1, not {k}")
        checked = [self._checked(query, "queries") for query in queries]
        within = self._places.positions if allowed is None else np.intersect1d(self._places.positions, allowed)
        wanted = max(k, self.candidates)
        if len(within) <= wanted:
            candidates = [within] * len(checked)
        else:
            rough = self._encodings.search(self.muvera.queries(checked), wanted, None if allowed is None else within)
            # in the order of memory
            candidates = [np.sort(ranking.positions) for ranking in rough]
        return [top_k(found, self._maxsim(query, found), k) for query, found in zip(checked, candidates, strict=True)]

    def stored(self, vectors: Sequence[Matrix], field: str) -> list[Matrix]:
        """Matrices in the precision in which they are kept. Raises `InputError`, naming `field`, for what cannot be added."""
        with np.errstate(over="ignore"):  # it is told below
            kept = [self._checked(matrix, field).astype(self.precision) for matrix in vectors]
        if not all(np.isfinite(matrix).all() for matrix in kept):
            raise InputError(f"{field}: hold numbers too large for {self.precision}")
        return kept

    def save(self, directory: Path) -> None:
        """Write the index into an existing, empty directory; vectors that are on disk already are linked to."""
        (directory / _ENCODINGS).mkdir()
        self._encodings.save(directory / _ENCODINGS)
        np.save(directory / _PLACES, np.stack(self._places), allow_pickle=False)
        layout = {"settings": self.settings, "tokens": self._tokens.save(directory)}
        (directory / _SETTINGS).write_text(json.dumps(layout), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, *, writable: bool = False) -> Self:
        """Read what `save` wrote; vectors stay on disk. Only if `writable` can the index be changed."""
        layout = json.loads((directory / _SETTINGS).read_text(encoding="utf-8"))
        index = cls(**layout["settings"])
        index._encodings = FaissIndex.load(directory / _ENCODINGS, writable=writable)
        index._tokens = Vectors.load(directory, index.dimension, index.precision, layout["tokens"])
        index._places = _Places(*np.load(directory / _PLACES))
        if index._places.stop.max(initial=0) > len(index._tokens):
            raise ValueError(f"the files in {directory} do not fit together")
        return index

    def _maxsim(self, query: Matrix, positions: Positions) -> Scores:
        """Some documents at a time, so that memory does not grow with their number."""
        parts = [maxsim(query, self.vectors(positions[first : first + _BATCH])) for first in range(0, len(positions), _BATCH)]
        return np.concatenate([np.empty(0, np.float64), *parts])

    def _checked(self, matrix: Matrix, field: str) -> Matrix:
        matrix = np.asarray(matrix)
        if matrix.ndim != 2 or matrix.shape[1] != self.dimension or not len(matrix):
            raise InputError(f"{field}: have a matrix of shape {matrix.shape}; needed is [1 or more, {self.dimension}]")
        if not np.isfinite(matrix).all():
            raise InputError(f"{field}: hold NaN or infinity")
        return matrix
