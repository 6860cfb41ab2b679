"""Which known terms a term may be a misspelling of: character trigrams to find them, edit distance to choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PAD = 2
"""Marks on either side of a term: even a short term with its ends intact shares trigrams with the right one."""
_BROKEN = 4
"""At most so many trigrams change with one edit: those around two swapped characters."""
_LONGEST = 64
"""Longer terms are no words."""


class SimilarTerms:
    """Terms by their character trigrams; never changes, so threads may share it.

    Takes some 100 bytes per term, and a second or two to build for a million.
    """

    def __init__(self, terms: Sequence[str]) -> None:
        self._lengths = np.fromiter(map(len, terms), np.int64, len(terms))
        ends = np.append(0, np.cumsum(self._lengths + 2 * _PAD))
        padded = "".join(f"\x01\x01{term}\x01\x01" for term in terms)
        self._text = np.frombuffer(padded.encode("utf-32-le", "surrogatepass"), np.uint32)
        self._starts = ends[:-1] + _PAD
        inside = (self._lengths > 0) & (self._lengths <= _LONGEST)
        owners = np.repeat(np.arange(len(terms))[inside], (self._lengths + _PAD)[inside])
        first = np.repeat(ends[:-1][inside], (self._lengths + _PAD)[inside])
        places = (
            first + np.arange(len(first)) - np.repeat(_firsts((self._lengths + _PAD)[inside]), (self._lengths + _PAD)[inside])
        )
        trigrams = _trigrams(self._text, places)
        order = np.argsort(trigrams, kind="stable")
        self._trigrams, self._owners = trigrams[order], owners[order].astype(np.int32)

    def __len__(self) -> int:
        return len(self._lengths)

    def near(self, term: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the terms within `edits_allowed` of `term` that share a trigram with it, ascending, and their distances."""
        allowed = edits_allowed(term)
        code = _codes(term)
        padded = np.concatenate([np.full(_PAD, 1, np.uint32), code, np.full(_PAD, 1, np.uint32)])
        wanted = np.unique(_trigrams(padded, np.arange(len(code) + _PAD)))
        spans = zip(
            np.searchsorted(self._trigrams, wanted).tolist(),
            np.searchsorted(self._trigrams, wanted, side="right").tolist(),
            strict=True,
        )
        owners = np.concatenate([np.empty(0, np.int32), *(self._owners[start:end] for start, end in spans)])
        found, shared = np.unique(owners, return_counts=True)
        found = found[shared >= len(wanted) - _BROKEN * allowed]
        found = found[np.abs(self._lengths[found] - len(code)) <= allowed].astype(np.int64)
        distances = edit_distances(code, self._matrix(found), self._lengths[found], allowed)
        close = distances <= allowed
        return found[close], distances[close]

    def _matrix(self, rows: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Characters of these terms, [rows, length of the longest]; what is beyond a term's end means nothing."""
        width = int(self._lengths[rows].max(initial=0))
        places = np.minimum(self._starts[rows, None] + np.arange(width), max(len(self._text) - 1, 0))
        characters: NDArray[np.uint32] = self._text[places]
        return characters


def edits_allowed(term: str) -> int:
    """How many edits a term may be away from the right one: none below 3 characters, 1 up to 5, else 2.

    None for a term with a digit, which is a number or a name: its neighbours are other ones.
    """
    if any(char.isdigit() for char in term) or len(term) < 3 or len(term) > _LONGEST:
        return 0
    return 1 if len(term) <= 5 else 2


def edit_distances(
    term: NDArray[np.uint32], others: NDArray[np.uint32], lengths: NDArray[np.int64], limit: int
) -> NDArray[np.int64]:
    """From a term [n] to each of others [terms, longest]: insertions, deletions, substitutions, swaps of neighbours.

    Optimal string alignment: no part of a term is edited twice. A distance above `limit` is some number above it.
    """
    rows, width = others.shape
    before = np.full((width + 1, rows), limit + 1, np.int64)
    last = np.repeat(np.arange(width + 1)[:, None], rows, axis=1)
    for i, char in enumerate(term, 1):
        # lengths that differ by more than the limit so far cannot end below it
        row = np.full_like(last, limit + 1)
        row[0] = i
        for j in range(max(i - limit, 1), min(i + limit, width) + 1):
            same = others[:, j - 1] == char
            cost = np.minimum(np.minimum(last[j], row[j - 1]) + 1, last[j - 1] + ~same)
            if i > 1 and j > 1:
                swapped = (others[:, j - 2] == char) & (others[:, j - 1] == term[i - 2])
                cost = np.where(swapped, np.minimum(cost, before[j - 2] + 1), cost)
            row[j] = cost
        before, last = last, row
    distances: NDArray[np.int64] = last[lengths, np.arange(rows)]
    return distances


def _codes(term: str) -> NDArray[np.uint32]:
    return np.frombuffer(term.encode("utf-32-le", "surrogatepass"), np.uint32)


def _firsts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.cumsum(sizes) - sizes


def _trigrams(text: NDArray[np.uint32], places: NDArray[Any]) -> NDArray[np.uint64]:
    """The three characters from each place on as one number: a character has 21 bits."""
    wide = text.astype(np.uint64)
    found: NDArray[np.uint64] = wide[places] << np.uint64(42) | wide[places + 1] << np.uint64(21) | wide[places + 2]
    return found
