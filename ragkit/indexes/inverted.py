"""The inverted index: documents as weighted terms, a query as weighted terms, exact top k by inner product.

It serves BM25 and learned sparse vectors alike; subclasses say what a weight is worth. Documents lie in immutable segments that
are merged as they grow; deleted ones are marked until their segment is merged. Statistics are always those of the documents that
are there, so scores are those of a fresh build, whatever came before.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError
from ragkit.indexes import kernels
from ragkit.indexes.base import Positions, Ranking, concatenate, empty_ranking
from ragkit.indexes.bm25_formulas import Floats, Saturation
from ragkit.indexes.segment import Segment
from ragkit.sparse_vectors import SparseVectors

_SETTINGS = "settings.json"
_HEAP = 4_000_000  # hits kept at once; more queries are searched in turns
_GROWTH = 2  # a segment is merged into the one before it unless that is so many times its size
_DEAD = 0.25  # share of deleted rows at which a segment is written anew
_PER_THREAD = 16  # queries below which a further thread costs more than it gives


@dataclass(frozen=True)
class _Part:
    """A segment, which of its rows are live, and the mean length its bounds were made for."""

    name: str
    segment: Segment
    live: NDArray[np.bool_] | None
    mean_length: float

    def __len__(self) -> int:
        return len(self.segment.positions) if self.live is None else int(np.count_nonzero(self.live))

    @cached_property
    def frequencies(self) -> NDArray[np.int64]:
        """[terms] live documents with the term."""
        return self.segment.frequencies() if self.live is None else self.segment.tally(self.live)[0]

    @cached_property
    def length(self) -> float:
        """Sum of the lengths of live documents."""
        return float(np.sum(self.segment.lengths, dtype=np.float64, where=True if self.live is None else self.live))

    def documents(self) -> tuple[Positions, SparseVectors]:
        """The live ones."""
        vectors = self.segment.vectors()
        if self.live is None:
            return self.segment.positions, vectors
        rows = np.flatnonzero(self.live)
        return self.segment.positions[rows], vectors.take(rows)


class State:
    """The documents at one time, with their statistics; never changes, so threads may share it."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self.parts = parts
        self.documents = sum(map(len, parts))
        """Number of live documents."""
        self.mean_length = max(sum(part.length for part in parts), 1e-9) / max(self.documents, 1)

    def frequencies(self, terms: NDArray[np.int32]) -> NDArray[np.int64]:
        """Number of live documents with each term."""
        total = np.zeros(len(terms), np.int64)
        for part in self.parts:
            at, there = part.segment.find(terms)
            total[there] += part.frequencies[at[there]]
        return total

    @cached_property
    def all_frequencies(self) -> NDArray[np.int64]:
        """The document frequency of every term that a live document has."""
        terms = concatenate([part.segment.terms for part in self.parts], np.int32)
        counts = concatenate([part.frequencies for part in self.parts], np.int64)
        _, group = np.unique(terms, return_inverse=True)
        totals = np.bincount(group, weights=counts).astype(np.int64)
        return totals[totals > 0]


class InvertedIndex(ABC):
    """What the sparse indexes share; implements `Index` for `SparseVectors`.

    A hit is a document that has at least one term of the query, whatever its score. Searching from several threads is safe;
    adding and removing is for one thread at a time.
    """

    def __init__(self, *, threads: int | None = None, budget: int | None = None) -> None:
        """`threads` share a batch of queries (default: one per core).

        `budget` bounds the postings looked at per query, from the most promising block of documents down ("anytime"
        ranking: Lin and Trotman, "Anytime Ranking for Impact-Ordered Indexes", ICTIR 2015); the top k is exact without it.
        """
        for field, value in (("threads", threads), ("budget", budget)):
            if value is not None and value < 1:
                raise InputError(f"{field}: must be at least 1, not {value}")
        self.threads, self.budget = threads, budget
        self._parts: list[_Part] = []
        self._tail: list[tuple[Positions, SparseVectors]] = []
        self._numbered = 0
        self._state: State | None = None
        self._lock = Lock()

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as far as results depend on them."""

    @property
    @abstractmethod
    def formula(self) -> Saturation:
        """What a weight in a document is worth."""

    @abstractmethod
    def query_weights(self, terms: NDArray[np.int32], weights: NDArray[np.float32], state: State) -> Floats:
        """What a term of a query multiplies the worth of a document's weight with."""

    def __len__(self) -> int:
        return sum(map(len, self._parts)) + sum(len(positions) for positions, _ in self._tail)

    def add(self, positions: Positions, vectors: SparseVectors) -> None:
        """Add documents. Raises `InputError` if a position is taken or given twice, or a term id or weight is negative."""
        positions = np.asarray(positions, np.int64)
        if len(positions) != len(vectors):
            raise InputError(f"positions: {len(positions)} positions for {len(vectors)} documents")
        if len(vectors.terms) and (vectors.terms.min() < 0 or not vectors.weights.min() >= 0):
            raise InputError("vectors: term ids and weights of documents must not be negative")
        order = np.argsort(positions, kind="stable")
        if (np.diff(positions[order]) == 0).any():
            raise InputError("positions: a position is given twice")
        if (np.diff(order) != 1).any():
            positions, vectors = positions[order], vectors.take(order)
        if not len(positions):
            return
        with self._lock:
            if any(self._holds(part, positions) for part in self._parts) or any(
                np.isin(positions, taken).any() for taken, _ in self._tail
            ):
                raise InputError("positions: a position is already taken")
            self._tail, self._state = [*self._tail, (positions, vectors)], None

    def remove(self, positions: Positions) -> None:
        """Forget documents; positions that are not there are ignored."""
        gone = np.unique(np.asarray(positions, np.int64))
        with self._lock:
            self._flush()
            self._parts = [part for part in (_without(part, gone) for part in self._parts) if len(part)]
            self._state = None

    def search(self, queries: SparseVectors, k: int, allowed: Positions | None = None) -> list[Ranking]:
        """For each query at most `k` documents that share a term with it, best first; see `Index.search`."""
        if k < 1:
            raise InputError(f"k: must be at least 1, not {k}")
        state = self._ready()
        k = min(k, state.documents)
        if k == 0:
            return [empty_ranking() for _ in range(len(queries))]
        weights = self.query_weights(queries.terms, queries.weights, state)
        masks = [_mask(part, allowed) for part in state.parts]
        threads = max(min(self.threads or os.cpu_count() or 1, len(queries) // _PER_THREAD), 1)
        size = min(-(-len(queries) // threads), max(_HEAP // k, 1))
        turns = [range(first, min(first + size, len(queries))) for first in range(0, len(queries), size)]

        def take(turn: range) -> list[Ranking]:
            return self._search(queries, weights, turn, k, state, masks)

        if threads == 1:
            return [ranking for turn in turns for ranking in take(turn)]
        with ThreadPoolExecutor(threads) as pool:
            return [ranking for rankings in pool.map(take, turns) for ranking in rankings]

    def save(self, directory: Path) -> None:
        """Write the index into an existing, empty directory; segments that are on disk already are linked to."""
        self._ready()
        for part in self._parts:
            part.segment.save(directory / part.name)
            if part.live is not None:
                np.save(directory / f"{part.name}.live.npy", part.live, allow_pickle=False)
                np.save(directory / f"{part.name}.frequencies.npy", part.frequencies, allow_pickle=False)
        layout = {
            "numbered": self._numbered,
            "segments": [
                {
                    "name": part.name,
                    "shift": part.segment.shift,
                    "mean_length": part.mean_length,
                    "length": part.length,
                    "marked": part.live is not None,
                }
                for part in self._parts
            ],
        }
        (directory / _SETTINGS).write_text(json.dumps({"settings": self.settings, **layout}), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, *, writable: bool = False) -> Self:
        """Read what `save` wrote; the arrays stay on disk, since none is ever changed."""
        layout = json.loads((directory / _SETTINGS).read_text(encoding="utf-8"))
        index = cls(**layout["settings"])
        index._numbered = layout["numbered"]
        for one in layout["segments"]:
            name, marked = one["name"], one["marked"]
            part = _Part(name, Segment.load(directory / name, one["shift"]), None, one["mean_length"])
            if marked:
                live = np.load(directory / f"{name}.live.npy")
                part = _Part(name, part.segment, live, one["mean_length"])
                part.__dict__["frequencies"] = np.load(directory / f"{name}.frequencies.npy", mmap_mode="r")
            part.__dict__["length"] = one["length"]  # both are known: reading whole files again would take its time
            index._parts.append(part)
        return index

    def _search(
        self, queries: SparseVectors, weights: Floats, turn: range, k: int, state: State, masks: Sequence[tuple[Any, Any]]
    ) -> list[Ranking]:
        span = slice(queries.starts[turn.start], queries.starts[turn.stop])
        terms, weights = queries.terms[span], weights[span]
        starts = queries.starts[turn.start : turn.stop + 1] - queries.starts[turn.start]
        scores, hits = np.empty((len(turn), k)), np.empty((len(turn), k), np.int64)
        sizes = np.zeros(len(turn), np.int64)
        unit, formula = 1 / state.mean_length, tuple(map(float, self.formula))
        for part, (live, open_blocks) in zip(state.parts, masks, strict=True):
            s = part.segment
            at, there = s.find(terms)
            kept = np.concatenate([[0], np.cumsum(there)])[starts]
            # a longer mean makes every document relatively shorter, so its weights worth more: at most by this factor
            slack = max(state.mean_length / part.mean_length, 1.0) if self.formula.b else 1.0
            kernels.search(
                kept, at[there], weights[there], scores, hits, sizes,
                s.shift, s.peaks, s.entry_starts, s.blocks, s.maxima, s.firsts, s.postings, s.values,
                s.positions, s.lengths, unit, formula, slack * (1 + 1e-9), live, open_blocks, self.budget or 2**62,
            )  # fmt: skip
        kernels.sort_heaps(scores, hits, sizes)
        return [Ranking(hits[i, :size].copy(), scores[i, :size].copy()) for i, size in enumerate(sizes)]

    def _ready(self) -> State:
        with self._lock:
            self._flush()
            if self._state is None:
                self._state = State(tuple(self._parts))
            return self._state

    def _flush(self) -> None:
        """Make the tail a segment, and merge what is due."""
        if not self._tail and not any(_due(part) for part in self._parts):
            return
        parts = sorted(self._parts, key=len, reverse=True)
        fresh = [part.documents() for part in parts if _due(part)]
        parts = [part for part in parts if not _due(part)]
        documents = _join([*fresh, *self._tail])
        while parts and len(parts[-1]) < _GROWTH * len(documents[0]):
            documents = _join([parts.pop().documents(), documents])
        positions, vectors = documents
        total = sum(part.length for part in parts) + float(vectors.weights.sum(dtype=np.float64))
        mean = max(total, 1e-9) / max(sum(map(len, parts)) + len(positions), 1)
        self._numbered += 1
        segment = Segment.build(positions, vectors, self.formula, 1 / mean)
        self._parts = [*parts, _Part(f"{self._numbered:06}", segment, None, mean)]
        self._tail = []

    @staticmethod
    def _holds(part: _Part, positions: Positions) -> bool:
        rows = part.segment.rows_of(positions)
        return bool(len(rows) if part.live is None else part.live[rows].any())


def _due(part: _Part) -> bool:
    return part.live is not None and len(part) < (1 - _DEAD) * len(part.live)


def _without(part: _Part, gone: Positions) -> _Part:
    rows = part.segment.rows_of(gone)
    live = np.ones(len(part.segment.positions), np.bool_) if part.live is None else part.live
    if not live[rows].any():
        return part
    live = live.copy()
    live[rows] = False
    return _Part(part.name, part.segment, live, part.mean_length)


def _mask(part: _Part, allowed: Positions | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows that may be found, and blocks that have any; empty where all may."""
    if allowed is None:
        return (np.empty(0, np.bool_) if part.live is None else part.live), np.empty(0, np.bool_)
    rows = part.segment.rows_of(np.asarray(allowed, np.int64))
    mask = np.zeros(len(part.segment.positions), np.bool_)
    mask[rows] = True if part.live is None else part.live[rows]
    open_blocks = np.zeros((len(mask) >> part.segment.shift) + 1, np.bool_)
    open_blocks[rows >> part.segment.shift] = True
    return mask, open_blocks


def _join(parts: Sequence[tuple[Positions, SparseVectors]]) -> tuple[Positions, SparseVectors]:
    """All documents, in ascending order of position."""
    if len(parts) == 1:
        return parts[0]
    positions = concatenate([positions for positions, _ in parts], np.int64)
    ends = np.cumsum([0, *(len(vectors.terms) for _, vectors in parts)])
    starts = [vectors.starts[:-1] + end for (_, vectors), end in zip(parts, ends, strict=False)]
    vectors = SparseVectors(
        concatenate([*starts, ends[-1:]], np.int64),
        concatenate([vectors.terms for _, vectors in parts], np.int32),
        concatenate([vectors.weights for _, vectors in parts], np.float32),
    )
    order = np.argsort(positions, kind="stable")
    if (np.diff(order) == 1).all():
        return positions, vectors
    return positions[order], vectors.take(order)
