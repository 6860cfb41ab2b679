"""The contract that every index keeps, and the exact top-k selection they share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.ma  # else np.unique imports it at first use, and Python 3.11 can fail if that happens in several threads
from numpy.typing import NDArray

Positions = NDArray[np.int64]
Scores = NDArray[np.float64]


class Ranking(NamedTuple):
    """One query's hits, best first: `positions` [n] int64 and `scores` [n] float64; equal scores are ordered by position."""

    positions: Positions
    scores: Scores


class Index(Protocol):
    """Documents are known by `position`: a non-negative integer that the corpus gives once and never reuses.

    `V` is whatever the index takes for one text: a float vector, or an array of term ids.
    """

    def __len__(self) -> int:
        """Number of documents that can be found."""
        ...

    def add(self, positions: Positions, vectors: Any) -> None:
        """Add documents, one vector per position. Raises `InputError` if a position is already taken."""
        ...

    def remove(self, positions: Positions) -> None:
        """Forget documents; positions that are not there are ignored."""
        ...

    def search(self, queries: Any, k: int, allowed: Positions | None = None) -> list[Ranking]:
        """For each query at most `k` real hits; `allowed` (sorted, unique positions) restricts the search before the cut."""
        ...

    def save(self, directory: Path) -> None:
        """Write the index into an existing, empty directory."""
        ...

    @classmethod
    def load(cls, directory: Path, *, writable: bool = False) -> Self:
        """Read what `save` wrote; memory-mapped where the format allows, unless `writable`."""
        ...


def empty_ranking() -> Ranking:
    """No hits."""
    return Ranking(np.empty(0, np.int64), np.empty(0, np.float64))


def top_k(positions: Positions, scores: NDArray[np.floating[Any]], k: int) -> Ranking:
    """The `k` highest scores, ties broken by lower position, also at the cut."""
    if len(scores) > k:
        cut = np.partition(scores, len(scores) - k)[len(scores) - k]
        near = np.flatnonzero(scores >= cut)
        positions, scores = positions[near], scores[near]
    order = np.lexsort((positions, -scores))[:k]
    return Ranking(positions[order].astype(np.int64), scores[order].astype(np.float64))


def concatenate(arrays: Sequence[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    """`np.concatenate` that also takes no arrays at all."""
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)
