"""Term counts of documents, arranged by term: an immutable value that is built, merged and reduced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError
from ragkit.indexes.base import Positions, concatenate


@dataclass(frozen=True)
class Postings:
    """Documents are rows, ordered by position; the postings of term t are the slice `starts[t]:starts[t + 1]`."""

    positions: Positions
    """[documents] ascending."""
    lengths: NDArray[np.int64]
    """[documents] number of tokens, repeats included."""
    starts: NDArray[np.int64]
    """[terms + 1]."""
    rows: NDArray[np.int32]
    """[postings] the document, ascending within a term."""
    counts: NDArray[np.int32]
    """[postings] how often the term occurs in it."""

    @classmethod
    def build(cls, positions: Positions, documents: Sequence[NDArray[np.int32]]) -> Self:
        """From each document's term ids. Raises `InputError` if positions repeat or ids are negative."""
        positions = np.asarray(positions, np.int64)
        if len(positions) != len(documents):
            raise InputError(f"positions: {len(positions)} positions for {len(documents)} documents")
        lengths = np.fromiter(map(len, documents), np.int64, len(documents))
        terms = concatenate(list(documents), np.int32).astype(np.int64)
        if len(terms) and terms.min() < 0:
            raise InputError("documents: term ids must not be negative")
        order = np.argsort(positions)
        if (np.diff(positions[order]) == 0).any():
            raise InputError("positions: a position is given twice")
        rows = np.repeat(np.argsort(order), lengths)
        pairs, counts = np.unique(terms * max(len(documents), 1) + rows, return_counts=True)
        return cls._from_pairs(positions[order], lengths[order], pairs, counts)

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Self:
        """One value with the documents of all `parts`, which must have no position in common."""
        if len(parts) == 1:
            return parts[0]
        positions = concatenate([part.positions for part in parts], np.int64)
        lengths = concatenate([part.lengths for part in parts], np.int64)
        order = np.argsort(positions)
        row_of = np.argsort(order)
        offsets = np.cumsum([0, *(len(part.positions) for part in parts)])
        pairs = concatenate(
            [
                part.terms() * max(len(positions), 1) + row_of[part.rows + offset]
                for part, offset in zip(parts, offsets, strict=False)
            ],
            np.int64,
        )
        by_term = np.argsort(pairs)
        counts = concatenate([part.counts for part in parts], np.int32)[by_term]
        return cls._from_pairs(positions[order], lengths[order], pairs[by_term], counts)

    def without(self, positions: Positions) -> Self:
        """The documents that are not at one of `positions`."""
        kept = ~np.isin(self.positions, positions)
        if kept.all():
            return self
        new_row = np.cumsum(kept) - 1
        stay = kept[self.rows]
        pairs = self.terms()[stay] * max(int(kept.sum()), 1) + new_row[self.rows[stay]]
        return self._from_pairs(self.positions[kept], self.lengths[kept], pairs, self.counts[stay])

    def terms(self) -> NDArray[np.int64]:
        """[postings] the term of each posting."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def save(self, directory: Path) -> None:
        """Write one .npy file per array."""
        for field in fields(self):
            np.save(directory / f"{field.name}.npy", getattr(self, field.name), allow_pickle=False)

    @classmethod
    def load(cls, directory: Path, *, writable: bool = False) -> Self:
        """Read what `save` wrote; the arrays stay on disk unless `writable`."""
        mode: Any = None if writable else "r"
        return cls(*(np.load(directory / f"{field.name}.npy", mmap_mode=mode) for field in fields(cls)))

    @classmethod
    def _from_pairs(
        cls, positions: Positions, lengths: NDArray[np.int64], pairs: NDArray[np.int64], counts: NDArray[Any]
    ) -> Self:
        """From ascending numbers term * documents + row."""
        terms, rows = np.divmod(pairs, max(len(positions), 1))
        size = int(terms[-1]) + 1 if len(terms) else 0
        starts = np.searchsorted(terms, np.arange(size + 1)).astype(np.int64)
        return cls(positions, lengths, starts, rows.astype(np.int32), counts.astype(np.int32))
