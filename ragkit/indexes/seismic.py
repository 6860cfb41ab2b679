"""An approximate index over sparse vectors: Seismic, as the optional package `pyseismic-lsr`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError, MissingExtraError
from ragkit.indexes.base import Positions, Ranking, concatenate, empty_ranking, top_k
from ragkit.sparse_vectors import SparseVectors

_MARGIN = 8  # how many more than k are asked for at first: most ties at the cut end within it
_SCANNED = 1_000  # so few allowed documents are scored one by one, and so is a hundredth of the index
_BLOCK = 1 << 16  # rows that are scored at once
_NARROW = 1 << 16  # from so many terms on, Seismic needs wider term numbers
_LISTS = "lists"
_SUFFIX = ".index.seismic"  # which the package appends
_stdout = Lock()


class SeismicIndex:
    """Approximate retrieval by inner product; implements `Index` for `SparseVectors` with weights that are not negative.

    Seismic (Bruch et al., "Efficient Inverted Indexes for Approximate Retrieval over Learned Sparse Representations", SIGIR
    2024) cuts each term's inverted list to its highest weights, clusters what is left, and skips clusters whose summary says
    that they hold little. What is approximate is therefore which documents are found: good ones may be missing, and fewer
    than `k` may come back. What is found has its exact score, computed in float64 from the vectors as they were added, and
    its exact order. A search that allows few documents scores all of these and is exact.

    `n_postings` is the mean length of an inverted list, `centroid_fraction` the number of clusters per entry of a list, and
    `summary_energy` the share of a cluster's weights that its summary keeps. A search reads the lists of the `query_cut`
    heaviest terms of the query and skips clusters that promise less than `heap_factor` times the k-th best score so far; 0
    skips none. `threads` serve one call, to build and to search.

    The lists can only be built as a whole: the first search after documents came or went does that, and so does `save`. While
    it happens, the file descriptor of standard output points to nowhere, because the package writes there; what other threads
    print meanwhile is lost. Searching from several threads is safe; adding and removing is for one thread at a time.

    Raises `InputError` for a number out of its range, and `MissingExtraError` without the package.
    """

    def __init__(
        self,
        n_postings: int = 3500,
        centroid_fraction: float = 0.1,
        summary_energy: float = 0.4,
        query_cut: int = 10,
        heap_factor: float = 0.7,
        threads: int = 1,
    ) -> None:
        for field, count in (("n_postings", n_postings), ("query_cut", query_cut), ("threads", threads)):
            if count < 1:
                raise InputError(f"{field}: must be at least 1, not {count}")
        for field, share in (("centroid_fraction", centroid_fraction), ("summary_energy", summary_energy)):
            if not 0 < share <= 1:
                raise InputError(f"{field}: must lie above 0 and not above 1, not {share}")
        if not 0 <= heap_factor <= 1:
            raise InputError(f"heap_factor: must lie between 0 and 1, not {heap_factor}")
        _package()
        self.n_postings, self.centroid_fraction, self.summary_energy = n_postings, centroid_fraction, summary_energy
        self.query_cut, self.heap_factor, self.threads = query_cut, heap_factor, threads
        self._parts: list[tuple[Positions, SparseVectors]] = []
        self._ready: _Built | None = None
        self._lock = Lock()

    def __len__(self) -> int:
        return sum(len(positions) for positions, _ in self._parts)

    def add(self, positions: Positions, vectors: SparseVectors) -> None:
        """Add documents, one row each. Raises `InputError` for taken positions, negative terms or weights, and NaN."""
        positions = np.array(positions, np.int64)
        if len(positions) != len(vectors):
            raise InputError(f"positions: {len(positions)} positions for {len(vectors)} vectors")
        if (vectors.terms < 0).any():
            raise InputError("vectors: a term is negative")
        vectors = _without_zeros(vectors, "vectors")
        taken = concatenate([part for part, _ in self._parts], np.int64)
        if len(np.unique(positions)) < len(positions) or np.isin(positions, taken).any():
            raise InputError("positions: a position is already taken or given twice")
        if len(positions):
            with self._lock:
                self._parts, self._ready = [*self._parts, (positions, vectors)], None

    def remove(self, positions: Positions) -> None:
        """Forget documents; positions that are not there are ignored."""
        kept = [np.flatnonzero(~np.isin(own, positions)) for own, _ in self._parts]
        if sum(map(len, kept)) < len(self):
            parts = [(own[rows], vectors.take(rows)) for (own, vectors), rows in zip(self._parts, kept, strict=True)]
            with self._lock:
                self._parts, self._ready = parts, None

    def search(self, queries: SparseVectors, k: int, allowed: Positions | None = None) -> list[Ranking]:
        """For each query at most `k` documents that share a term with it, best first; see `Index.search`.

        Raises `InputError` for negative weights.
        """
        if k < 1:
            raise InputError(f"k: must be at least 1, not {k}")
        queries = _without_zeros(queries, "queries")
        built = self._built()
        known = [built.known(*queries.row(i)) for i in range(len(queries))]
        rows = None if allowed is None else np.flatnonzero(np.isin(built.positions, allowed))
        if rows is not None and len(rows) <= max(_SCANNED, len(self) // 100):
            return [built.rank(query, rows, k) for query in known]
        wanted = k + _MARGIN
        if rows is not None:
            wanted = wanted * len(self) // len(rows)
        rankings = {i: empty_ranking() for i, query in enumerate(known) if not len(query.terms)}
        while pending := [i for i in range(len(known)) if i not in rankings]:
            wanted = min(wanted, len(self))
            answers = built.ask([known[i] for i in pending], wanted, self.query_cut, self.heap_factor, self.threads)
            for i, (found, rough) in zip(pending, answers, strict=True):
                complete = len(found) < wanted or wanted == len(self)
                ranking = built.rank(known[i], found if rows is None else np.intersect1d(found, rows), k)
                if complete and rows is not None and len(ranking.positions) < k:
                    ranking = built.rank(known[i], rows, k)
                elif not complete and (len(ranking.positions) < k or built.bound(known[i], rough[-1]) >= ranking.scores[-1]):
                    continue  # what was left out could belong there
                rankings[i] = ranking
            wanted *= 4
        return [rankings[i] for i in range(len(known))]

    def save(self, directory: Path) -> None:
        """Write the index into an existing, empty directory: .npy files, settings.json, and the package's own file."""
        built = self._built()
        for name, array in built.arrays.items():
            np.save(directory / f"{name}.npy", array, allow_pickle=False)
        if len(built.positions):
            with _silence():
                built.lists.save(str(directory / _LISTS))
        (directory / "settings.json").write_text(json.dumps(self.settings), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, *, writable: bool = False) -> Self:
        """Read what `save` wrote; the vectors stay on disk unless `writable`, the inverted lists are read into memory."""
        index = cls(**json.loads((directory / "settings.json").read_text(encoding="utf-8")))
        arrays = {name: np.load(directory / f"{name}.npy", None if writable else "r", allow_pickle=False) for name in _ARRAYS}
        lists = None
        if len(arrays["positions"]):
            with _silence():
                lists = _kind(arrays["vocabulary"])[1].load(str(directory / f"{_LISTS}{_SUFFIX}"))
        index._ready = built = _Built.of(arrays, lists)
        index._parts = [(built.positions, built.vectors)] if len(built.positions) else []
        return index

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments."""
        fields = ("n_postings", "centroid_fraction", "summary_energy", "query_cut", "heap_factor", "threads")
        return {field: getattr(self, field) for field in fields}

    def _built(self) -> _Built:
        with self._lock:
            if self._ready is None:
                positions = concatenate([part for part, _ in self._parts], np.int64)
                vectors = _joined([part for _, part in self._parts])
                self._parts = [(positions, vectors)] if len(positions) else []
                vocabulary, peak = np.unique(vectors.terms), vectors.weights.max(initial=1e-30)
                lists = self._lists(vectors, vocabulary, peak) if len(positions) else None
                self._ready = _Built(positions, vectors, vocabulary, np.array(peak, np.float32), lists)
            return self._ready

    def _lists(self, vectors: SparseVectors, vocabulary: NDArray[np.int32], peak: np.float32) -> Any:
        dataset_kind, index_kind = _kind(vocabulary)
        dataset = dataset_kind(dim=len(vocabulary))
        dataset.add_documents_by_id(
            list(map(str, range(len(vectors)))),
            np.searchsorted(vocabulary, vectors.terms).astype(np.int64),
            vectors.weights / peak,
            np.ascontiguousarray(vectors.starts, np.int64),
        )
        with _silence():
            return index_kind.build_from_dataset(
                dataset,
                n_postings=self.n_postings,
                centroid_fraction=self.centroid_fraction,
                summary_energy=self.summary_energy,
                num_threads=self.threads,
            )


_ARRAYS = ("positions", "starts", "terms", "weights", "vocabulary", "peak")


@dataclass(frozen=True)
class _Query:
    """The terms of a query that some document has, ascending, and their weights."""

    terms: NDArray[np.int32]
    weights: NDArray[np.float32]
    tokens: NDArray[np.str_]


@dataclass(frozen=True)
class _Built:
    """Vectors with the inverted lists over them; never changes, so threads may share it."""

    positions: Positions
    vectors: SparseVectors
    vocabulary: NDArray[np.int32]
    """Terms that some document has, ascending; the package numbers them from 0."""
    peak: NDArray[np.float32]
    """[] the greatest weight. The package gets weights divided by it, else large ones would overflow its 16-bit floats."""
    lists: Any

    @classmethod
    def of(cls, arrays: dict[str, NDArray[Any]], lists: Any) -> Self:
        vectors = SparseVectors(arrays["starts"], arrays["terms"], arrays["weights"])
        return cls(arrays["positions"], vectors, arrays["vocabulary"], arrays["peak"], lists)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the lists, by name."""
        vectors = self.vectors
        values = (self.positions, vectors.starts, vectors.terms, vectors.weights, self.vocabulary, self.peak)
        return dict(zip(_ARRAYS, values, strict=True))

    def known(self, terms: NDArray[np.int32], weights: NDArray[np.float32]) -> _Query:
        numbers = np.searchsorted(self.vocabulary, terms)
        there = np.append(self.vocabulary, -1)[numbers] == terms
        there &= terms >= 0
        return _Query(terms[there], weights[there], numbers[there].astype(_package().get_seismic_string()))

    def ask(
        self, queries: list[_Query], count: int, query_cut: int, heap_factor: float, threads: int
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """For each query the rows that the package finds, `count` at most, best first, and their rounded scores."""
        answers = self.lists.batch_search(
            np.arange(len(queries)).astype(_package().get_seismic_string()),
            [query.tokens for query in queries],
            [query.weights for query in queries],
            k=count,
            query_cut=query_cut,
            heap_factor=heap_factor,
            num_threads=threads,
        )
        # they come in the order in which they were ready, also with one thread
        by_query = {int(answer[0][0]): answer for answer in answers if answer}
        hits = [by_query.get(i, []) for i in range(len(queries))]
        return [
            (np.array([int(row) for *_, row in its], np.int64), np.array([score for _, score, _ in its], np.float64))
            for its in hits
        ]

    def bound(self, query: _Query, rough: float) -> float:
        """What a document can score at most if the package, which rounds weights to 16 bits, gives it `rough`."""
        # relative to the weight, or absolute for weights that are tiny beside the heaviest
        return float(self.peak) * (rough * (1 + 2**-10) + float(query.weights.sum()) * 2**-24)

    def rank(self, query: _Query, rows: NDArray[np.int64], k: int) -> Ranking:
        """The exact top `k` of these rows that share a term with the query."""
        blocks = [rows[at : at + _BLOCK] for at in range(0, len(rows), _BLOCK)]
        scores = concatenate([_inner_products(self.vectors.take(block), query) for block in blocks], np.float64)
        hits = scores > 0
        return top_k(self.positions[rows[hits]], scores[hits], k) if hits.any() else empty_ranking()


def _inner_products(vectors: SparseVectors, query: _Query) -> NDArray[np.float64]:
    if not len(query.terms):
        return np.zeros(len(vectors))
    at = np.minimum(np.searchsorted(query.terms, vectors.terms), len(query.terms) - 1)
    shared = np.flatnonzero(query.terms[at] == vectors.terms)
    owner = np.repeat(np.arange(len(vectors)), np.diff(vectors.starts))[shared]
    products = vectors.weights[shared].astype(np.float64) * query.weights[at[shared]]
    scores: NDArray[np.float64] = np.bincount(owner, products, len(vectors)).astype(np.float64, copy=False)
    return scores


def _without_zeros(vectors: SparseVectors, field: str) -> SparseVectors:
    if not (vectors.weights >= 0).all():
        raise InputError(f"{field}: a weight is negative or no number; Seismic needs weights that are not below 0")
    kept = vectors.weights > 0
    if kept.all():
        return vectors
    starts = np.concatenate([[0], np.cumsum(kept)])[vectors.starts].astype(np.int64)
    return SparseVectors(starts, vectors.terms[kept], vectors.weights[kept])


def _joined(parts: list[SparseVectors]) -> SparseVectors:
    if len(parts) == 1:
        return parts[0]
    lengths = concatenate([np.diff(part.starts) for part in parts], np.int64)
    return SparseVectors(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        concatenate([part.terms for part in parts], np.int32),
        concatenate([part.weights for part in parts], np.float32),
    )


def _package() -> Any:
    try:
        return import_module("seismic")
    except ImportError:
        raise MissingExtraError("the Seismic index", "seismic") from None


def _kind(vocabulary: NDArray[np.int32]) -> tuple[Any, Any]:
    """The package's classes of a dataset and of an index that have room for so many terms."""
    package = _package()
    if len(vocabulary) < _NARROW:
        return package.SeismicDataset, package.SeismicIndex
    return package.SeismicDatasetLV, package.SeismicIndexLV


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing reaches standard output, not even from code that is not Python; the lock keeps two threads from nesting."""
    with _stdout:
        if sys.stdout is not None:
            sys.stdout.flush()
        kept = os.dup(1)
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.close(nowhere)
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)
