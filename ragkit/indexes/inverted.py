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
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError
from ragkit.indexes import kernels
from ragkit.indexes.base import Positions, Ranking, concatenate, empty_ranking
from ragkit.indexes.bm25_formulas import Floats, Saturation, idf
from ragkit.indexes.segment import Segment
from ragkit.sparse_vectors import SparseVectors

_Mask = tuple[NDArray[np.bool_], NDArray[np.bool_]]

_SETTINGS = "settings.json"
_REMEMBERED = 4  # filters
_TAIL = 64  # batches of documents that wait to become a segment
_POSTINGS = 2**32 - 1  # of one segment, whose entries count them with 32 bits
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
        return self._size

    @cached_property
    def _size(self) -> int:
        return len(self.segment.positions) if self.live is None else int(np.count_nonzero(self.live))

    @cached_property
    def length(self) -> float:
        """Sum of the lengths of live documents."""
        return float(np.sum(self.segment.lengths, dtype=np.float64, where=True if self.live is None else self.live))

    def frequencies(self, terms: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of live documents with each of these (the segment's own) terms."""
        if self.live is None:
            return self.segment.frequencies(terms)
        unknown = np.unique(terms[self._counted[terms] < 0])
        if len(unknown):  # going through the postings of all terms would take as long as the segment is large
            self._counted[unknown] = self.segment.live_frequencies(unknown, self.live)
        return self._counted[terms]

    @cached_property
    def _counted(self) -> NDArray[np.int64]:
        return np.full(len(self.segment.terms), -1, np.int64)

    def documents(self) -> tuple[Positions, SparseVectors]:
        """The live ones."""
        vectors = self.segment.vectors()
        if self.live is None:
            return self.segment.positions, vectors
        rows = np.flatnonzero(self.live)
        return self.segment.positions[rows], vectors.take(rows)

    def mask(self, allowed: Positions | None) -> _Mask:
        """Rows that may be found, and blocks that have any; empty where all may."""
        if allowed is None:
            return (np.empty(0, np.bool_) if self.live is None else self.live), np.empty(0, np.bool_)
        rows = self.segment.rows_of(np.asarray(allowed, np.int64))
        live = np.zeros(len(self.segment.positions), np.bool_)
        live[rows] = True if self.live is None else self.live[rows]
        open_blocks = np.zeros((len(live) >> self.segment.shift) + 1, np.bool_)
        open_blocks[rows >> self.segment.shift] = True
        return live, open_blocks


class State:
    """The documents at one time, with their statistics; searches on it may run in several threads."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self.parts = parts
        self.documents = sum(map(len, parts))
        """Number of live documents."""
        self.mean_length = max(sum(part.length for part in parts), 1e-9) / max(self.documents, 1)
        self._masks: list[tuple[Positions | None, list[_Mask]]] = []

    @cached_property
    def mean_idf(self) -> float:
        """Of all terms that a live document has, ln((N - df + .5) / (df + .5)): what rank_bm25's Okapi builds on."""
        terms = concatenate([part.segment.terms for part in self.parts], np.int32)
        counts = concatenate([part.frequencies(np.arange(len(part.segment.terms))) for part in self.parts], np.int64)
        _, group = np.unique(terms, return_inverse=True)
        frequencies = np.bincount(group, weights=counts)
        frequencies = frequencies[frequencies > 0]
        return float(idf("robertson", frequencies, self.documents).mean()) if len(frequencies) else 0.0

    def masks(self, allowed: Positions | None) -> list[_Mask]:
        """Of each part; the last few filters are remembered, by the very array, since a filter is asked for again and again."""
        for known, masks in self._masks:
            if known is allowed:
                return masks
        masks = [part.mask(allowed) for part in self.parts]
        self._masks = [(allowed, masks), *self._masks[: _REMEMBERED - 1]]
        return masks


class InvertedIndex(ABC):
    """What the sparse indexes share; implements `Index` for `SparseVectors`.

    A hit is a document that has at least one term of the query, whatever its score. Searching from several threads is safe;
    adding and removing is for one thread at a time.
    """

    def __init__(self, *, threads: int | None = None, budget: int | None = None) -> None:
        """`threads` share a batch of queries (default: one per core).

        `budget` is the number of postings after which no further block of documents is looked at, the most promising first
        ("anytime" ranking: Lin and Trotman, "Anytime Ranking for Impact-Ordered Indexes", ICTIR 2015). Without it the top k is
        exact, with it what is found has its exact score.
        """
        for field, value in (("threads", threads), ("budget", budget)):
            if value is not None and value < 1:
                raise InputError(f"{field}: must be at least 1, not {value}")
        self.threads, self.budget = threads, budget
        self._parts: list[_Part] = []
        self._tail: list[tuple[Positions, SparseVectors]] = []
        self._highest = -1  # of all positions there ever were
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
    def query_weights(self, weights: NDArray[np.float32], frequencies: NDArray[np.int64], state: State) -> Floats:
        """What each term of a query multiplies the worth of a document's weight with; `frequencies` of documents with it."""

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._parts)) + sum(len(positions) for positions, _ in self._tail)

    def add(self, positions: Positions, vectors: SparseVectors) -> None:
        """Add documents; terms with the weight 0 are left out.

        Raises `InputError` if a position is taken or given twice, a term id or weight is negative, or a weight is not finite.
        """
        positions = np.array(positions, np.int64)
        if len(positions) != len(vectors):
            raise InputError(f"positions: {len(positions)} positions for {len(vectors)} documents")
        if len(vectors.terms) and (vectors.terms.min() < 0 or not vectors.weights.min() >= 0):
            raise InputError("vectors: term ids and weights of documents must not be negative")
        if not np.isfinite(vectors.weights).all():
            raise InputError("vectors: a weight is not finite")
        if len(vectors.terms) > _POSTINGS:
            raise InputError(f"vectors: more than {_POSTINGS} terms at once; add the documents in several batches")
        order = np.argsort(positions, kind="stable")
        if (np.diff(positions[order]) == 0).any():
            raise InputError("positions: a position is given twice")
        if not len(positions):
            return
        # a copy: it has to stay as it is until it is part of a segment
        positions, vectors = positions[order], vectors.without_zeros().take(order)
        with self._lock:
            # positions mostly come in their order, and then nothing has to be compared
            if positions[0] <= self._highest:
                self._flush()
                if any(self._holds(part, positions) for part in self._parts):
                    raise InputError("positions: a position is already taken")
            elif len(self._tail) >= _TAIL:
                self._flush()
            self._highest = max(self._highest, int(positions[-1]))
            self._tail.append((positions, vectors))
            self._state = None

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
        if not np.isfinite(queries.weights).all():
            raise InputError("queries: a weight is not finite")
        state = self._ready()
        k = min(k, state.documents)
        if k == 0:
            return [empty_ranking() for _ in range(len(queries))]
        found = [part.segment.find(queries.terms) for part in state.parts]
        frequencies = np.zeros(len(queries.terms), np.int64)
        for part, (at, there) in zip(state.parts, found, strict=True):
            frequencies[there] += part.frequencies(at[there])
        plan = _Plan(
            queries.starts, found, self.query_weights(queries.weights, frequencies, state), state, state.masks(allowed), k
        )
        threads = max(min(self.threads or os.cpu_count() or 1, len(queries) // _PER_THREAD), 1)
        size = max(min(-(-len(queries) // threads), _HEAP // k), 1)
        turns = [(first, min(first + size, len(queries))) for first in range(0, len(queries), size)]
        if threads == 1:
            return [ranking for turn in turns for ranking in self._search(plan, *turn)]
        with ThreadPoolExecutor(threads) as pool:
            return [ranking for rankings in pool.map(lambda turn: self._search(plan, *turn), turns) for ranking in rankings]

    def frequencies(self, terms: NDArray[np.int32]) -> NDArray[np.int64]:
        """How many documents have each of these terms, [terms]; none has a negative one."""
        counts = np.zeros(len(terms), np.int64)
        for part in self._ready().parts:
            at, there = part.segment.find(terms)
            counts[there] += part.frequencies(at[there])
        return counts

    def save(self, directory: Path) -> None:
        """Write the index into an existing, empty directory; segments that are on disk already are linked to."""
        self._ready()
        for part in self._parts:
            part.segment.save(directory / part.name)
            if part.live is not None:
                np.save(directory / f"{part.name}.live.npy", part.live, allow_pickle=False)
        layout = {
            "numbered": self._numbered,
            "highest": self._highest,
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
        index._numbered, index._highest = layout["numbered"], layout["highest"]
        for one in layout["segments"]:
            segment = Segment.load(directory / one["name"], one["shift"])
            live = np.load(directory / f"{one['name']}.live.npy") if one["marked"] else None
            if live is not None and (live.shape, live.dtype) != (segment.positions.shape, np.bool_):
                raise ValueError(f"{directory / one['name']}.live.npy does not fit its segment")
            part = _Part(one["name"], segment, live, one["mean_length"])
            part.__dict__["length"] = one["length"]  # is known: adding it up would read a whole file
            index._parts.append(part)
        return index

    def _search(self, plan: _Plan, first: int, last: int) -> list[Ranking]:
        span = slice(plan.starts[first], plan.starts[last])
        starts = plan.starts[first : last + 1] - plan.starts[first]
        scores, hits = np.empty((last - first, plan.k)), np.empty((last - first, plan.k), np.int64)
        sizes, spent = np.zeros(last - first, np.int64), np.zeros(last - first, np.int64)
        state = plan.state
        unit, formula = 1 / state.mean_length, tuple(map(float, self.formula))
        for part, (at, there), (live, open_blocks) in zip(state.parts, plan.found, plan.masks, strict=True):
            s = part.segment
            known = there[span]
            kept = np.append(0, np.cumsum(known))[starts]
            # a longer mean makes every document relatively shorter, so its weights worth more: at most by this factor
            slack = max(state.mean_length / part.mean_length, 1.0) if self.formula.b else 1.0
            kernels.search(
                kept, at[span][known], plan.weights[span][known], scores, hits, sizes, spent,
                s.shift, s.peaks, s.entry_starts, s.blocks, s.maxima, s.firsts, s.postings, s.values,
                s.positions, s.lengths, unit, formula, slack * (1 + 1e-9), live, open_blocks, self.budget or 2**62,
            )  # fmt: skip
        kernels.sort_heaps(scores, hits, sizes)
        return [Ranking(hits[i, :size].copy(), scores[i, :size].copy()) for i, size in enumerate(sizes.tolist())]

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
        while (
            parts
            and len(parts[-1]) < _GROWTH * len(documents[0])
            and len(parts[-1].segment.postings) + len(documents[1].terms) <= _POSTINGS
        ):
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


class _Plan(NamedTuple):
    """What a search over all parts needs: the queries' terms as each part knows them, and what they count."""

    starts: NDArray[np.int64]
    found: list[tuple[NDArray[np.int64], NDArray[np.bool_]]]
    weights: Floats
    state: State
    masks: list[_Mask]
    k: int


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
