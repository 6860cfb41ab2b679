"""Sparse vectors, many at once: what encoders give and inverted indexes take, of documents and of queries alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError


@dataclass(frozen=True)
class SparseVectors:
    """Row i has the terms `terms[starts[i]:starts[i + 1]]`, each once and in ascending order, with their `weights`.

    The compressed sparse row layout. BM25 takes a term's frequency as its weight.
    """

    starts: NDArray[np.int64]
    """[rows + 1] from 0 to the number of entries."""
    terms: NDArray[np.int32]
    """[entries] term ids; negative ones are terms that no document has."""
    weights: NDArray[np.float32]
    """[entries] finite."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, i: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Terms and weights of one row."""
        span = slice(self.starts[i], self.starts[i + 1])
        return self.terms[span], self.weights[span]

    def take(self, rows: NDArray[np.int64]) -> Self:
        """These rows, in this order."""
        lengths = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        entries = np.repeat(self.starts[:-1][rows] - starts[:-1], lengths) + np.arange(starts[-1])
        return type(self)(starts, self.terms[entries], self.weights[entries])

    def without_zeros(self) -> Self:
        """Without the entries whose weight is 0."""
        kept = self.weights != 0
        if kept.all():
            return self
        ends = np.append(0, np.cumsum(kept))
        return type(self)(ends[self.starts], self.terms[kept], self.weights[kept])

    @classmethod
    def of(cls, rows: Sequence[tuple[Any, Any]]) -> Self:
        """From terms and weights of each row, in any order.

        Raises `InputError` if their numbers differ, a row has a term twice, an id is too large, or a weight is not finite.
        """
        starts = np.cumsum([0, *(len(terms) for terms, _ in rows)]).astype(np.int64)
        if any(len(terms) != len(weights) for terms, weights in rows):
            raise InputError("rows: a row has more terms than weights, or fewer")
        wide = np.concatenate([np.empty(0, np.int64), *(np.asarray(terms, np.int64) for terms, _ in rows)])
        terms = wide.astype(np.int32)
        if (terms != wide).any():
            raise InputError("rows: a term id does not fit into 32 bits")
        weights = np.concatenate([np.empty(0, np.float32), *(np.asarray(weights, np.float32) for _, weights in rows)])
        if not np.isfinite(weights).all():
            raise InputError("rows: a weight is not finite")
        owner = np.repeat(np.arange(len(rows)), np.diff(starts))
        order = np.lexsort((terms, owner))
        terms, weights = terms[order], weights[order]
        if ((np.diff(terms) == 0) & (np.diff(owner) == 0)).any():
            raise InputError("rows: a row has a term twice; add up its weights")
        return cls(starts, terms, weights)

    @classmethod
    def weighted_sum(cls, parts: Sequence[tuple[Self, float]], rows: int) -> Self:
        """Row by row the sum of vectors times their weights; `rows` is how many there are, also of no parts at all."""
        if len(parts) == 1 and parts[0][1] == 1:
            return parts[0][0]
        owners = [np.repeat(np.arange(rows, dtype=np.int64), np.diff(vectors.starts)) for vectors, _ in parts]
        keys = [owner << 32 | (vectors.terms.astype(np.int64) + 2**31) for owner, (vectors, _) in zip(owners, parts, strict=True)]
        together, place = np.unique(np.concatenate([np.empty(0, np.int64), *keys]), return_inverse=True)
        weights = np.concatenate([np.empty(0), *(vectors.weights * np.float64(weight) for vectors, weight in parts)])
        return cls(
            np.searchsorted(together >> 32, np.arange(rows + 1)).astype(np.int64),
            ((together & 0xFFFFFFFF) - 2**31).astype(np.int32),
            np.bincount(place, weights, len(together)).astype(np.float32),
        )

    @classmethod
    def count(cls, documents: Iterable[Sequence[int] | NDArray[np.int32]]) -> Self:
        """From each text's term ids in order, repeats included: the weight of a term is how often it occurs."""
        lists = [np.asarray(document, np.int32) for document in documents]
        starts = np.cumsum([0, *map(len, lists)]).astype(np.int64)
        return cls.count_flat(starts, np.concatenate([np.empty(0, np.int32), *lists]))

    @classmethod
    def count_flat(cls, starts: NDArray[np.int64], tokens: NDArray[np.int32]) -> Self:
        """Like `count`; text i is `tokens[starts[i]:starts[i + 1]]`."""
        from ragkit.counting import count  # compiled code takes a moment to load, and not every encoder needs it

        return cls(*count(np.asarray(starts, np.int64), np.asarray(tokens, np.int32)))
