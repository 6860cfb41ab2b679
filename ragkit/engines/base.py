"""What the engines share: questions to vectors and terms, passages to what an engine writes. They add where it is kept."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from threading import RLock
from typing import Any, NamedTuple, Self

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray

from ragkit.corpus.changes import Addition, Change, plan_upsert
from ragkit.corpus.filters import Filter
from ragkit.corpus.rows import IndexedText, to_row
from ragkit.encoders.base import Progress
from ragkit.errors import InputError, StoreError
from ragkit.indexes.base import Positions, Ranking
from ragkit.sparse_vectors import SparseVectors
from ragkit.store.base import BaseDraft, BaseSnapshot, BaseStore
from ragkit.store.loader import AnyEncoder, Encoders
from ragkit.store.sparse_index import SparseIndex
from ragkit.store.text_index import DenseIndex, LexicalIndex, TextIndex

EngineIndex = LexicalIndex | DenseIndex | SparseIndex
"""Says how texts and questions are seen. It stays empty: what is seen of a passage, an engine keeps."""
_MOST = 2**31 - 1  # hits; engines ask for some more of them in numbers of 64 bits
KINDS: dict[str, type[LexicalIndex] | type[DenseIndex] | type[SparseIndex]] = {
    kind.kind: kind for kind in (LexicalIndex, DenseIndex, SparseIndex)
}
"""The kinds of index that an engine has."""
Seen = list[dict[str, float]] | NDArray[np.float32] | SparseVectors
"""Passages as an index sees them: the frequency of each term [n], vectors [n, dimension], or weighted terms [n]."""


class Indexes:
    """The indexes of a store, by name, each made from its settings when it is first needed."""

    def __init__(self, settings: Mapping[str, Mapping[str, Any]], encoder: AnyEncoder | Mapping[str, AnyEncoder] = None) -> None:
        """`settings` are what the store was created with; `encoder` as for `Store.open`."""
        self.settings = settings
        self._encoders = Encoders(encoder)
        self._made: dict[str, EngineIndex] = {}
        self._lock = RLock()

    @classmethod
    def of(cls, indexes: Mapping[str, TextIndex]) -> Self:
        """Those that a new store gets. Raises `InputError` for a kind that engines do not have, or an index that is not empty."""
        for name, index in indexes.items():
            if index.kind not in KINDS:
                raise InputError(f"indexes: {name!r} is of kind {index.kind}; an engine has {', '.join(KINDS)}, a directory all")
            if len(index):
                raise InputError(f"indexes: {name!r} is not empty; give a new one")
        made = cls({name: {**index.settings, "kind": index.kind} for name, index in indexes.items()})
        made._encoders = Encoders.of(indexes)
        return made

    def __getitem__(self, name: str) -> EngineIndex:
        """Raises `StoreError` if the store was built with another encoder, or by a newer ragkit, with a kind unknown here."""
        with self._lock:
            if name not in self._made:
                settings = self.settings[name]
                kind = KINDS.get(settings["kind"])
                if kind is None:
                    raise StoreError(f"index {name!r} is of the unknown kind {settings['kind']!r}; use a newer ragkit")
                self._made[name] = kind.empty(settings, lambda: self.encoder(name, settings["kind"]))
            return self._made[name]

    def encoder(self, name: str, kind: str) -> Any:
        """The encoder of the index of that name and kind."""
        return self._encoders.encoder(name, kind)


class EngineSnapshot(BaseSnapshot):
    """A snapshot whose engine searches by vectors and by terms; the questions are encoded here."""

    def __init__(self, indexes: Indexes) -> None:
        self._indexes, self.settings = indexes, indexes.settings

    # -- for each engine to say ---------------------------------------------------------------------------------------

    @abstractmethod
    def _nearest(
        self, name: str, index: DenseIndex, vectors: NDArray[np.float32], k: int, filter: Filter | None
    ) -> list[Ranking]:
        """For each vector [n, dimension] the `k` passages of highest inner product."""

    @abstractmethod
    def _weighted(self, name: str, index: SparseIndex, vectors: SparseVectors, k: int, filter: Filter | None) -> list[Ranking]:
        """For each row the `k` passages of highest inner product, of those that share a term with it. No term id is negative."""

    @abstractmethod
    def _worded(
        self, name: str, index: LexicalIndex, questions: Sequence[Mapping[str, int]], k: int, filter: Filter | None
    ) -> list[Ranking]:
        """For each question, as terms and how often it has them, the `k` passages that BM25 ranks highest, of those with one."""

    @abstractmethod
    def _of_source(self, source: str, filter: Filter | None) -> list[tuple[int, bool]]:
        """Positions of a source's passages in the order of its text, and whether each passes the filter."""

    # -- the contract -------------------------------------------------------------------------------------------------

    def search(self, name: str, queries: Sequence[str], k: int, filter: Filter | None = None) -> list[Ranking]:
        """See `BaseSnapshot.search`."""
        index = self._kind(name)
        if isinstance(index, LexicalIndex):
            return self._worded(name, index, _counted(index, queries), _checked(k), filter)
        return self.search_vectors(name, index.query_vectors(queries), k, filter)

    async def asearch(self, name: str, queries: Sequence[str], k: int, filter: Filter | None = None) -> list[Ranking]:
        """See `BaseSnapshot.asearch`."""
        index = await asyncio.to_thread(self._kind, name)
        if isinstance(index, LexicalIndex):
            return await asyncio.to_thread(self.search, name, queries, k, filter)
        vectors = await index.aquery_vectors(queries)
        return await asyncio.to_thread(self.search_vectors, name, vectors, k, filter)

    def search_vectors(self, name: str, vectors: Any, k: int, filter: Filter | None = None) -> list[Ranking]:
        """See `BaseSnapshot.search_vectors`."""
        index = self._vectorial(name)
        if isinstance(index, SparseIndex):
            if not np.isfinite(vectors.weights).all():
                raise InputError("queries: a weight is not finite")
            return self._weighted(name, index, _known(vectors), _checked(k), filter)
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != index.encoder.dimension or not np.isfinite(vectors).all():
            raise InputError(
                f"queries: have shape {vectors.shape}, or are not finite; the index takes [n, {index.encoder.dimension}]"
            )
        return self._nearest(name, index, vectors, _checked(k), filter)

    def encode(self, name: str, queries: Sequence[str]) -> NDArray[np.float32]:
        """See `BaseSnapshot.encode`."""
        return np.asarray(self._dense(name).encoder.encode_queries(queries), np.float32)

    async def aencode(self, name: str, queries: Sequence[str]) -> NDArray[np.float32]:
        """See `BaseSnapshot.aencode`."""
        return np.asarray(await (await asyncio.to_thread(self._dense, name)).encoder.aencode_queries(queries), np.float32)

    def query_vectors(self, name: str, queries: Sequence[str]) -> Any:
        """See `BaseSnapshot.query_vectors`."""
        return self._vectorial(name).query_vectors(queries)

    async def aquery_vectors(self, name: str, queries: Sequence[str]) -> Any:
        """See `BaseSnapshot.aquery_vectors`."""
        return await (await asyncio.to_thread(self._vectorial, name)).aquery_vectors(queries)

    def passage_vectors(self, name: str, positions: Sequence[int]) -> Any:
        """See `BaseSnapshot.passage_vectors`; weighted terms are made again."""
        index = self._vectorial(name)
        if isinstance(index, DenseIndex):
            return self.vectors(name, np.asarray(positions, np.int64))
        texts = [to_row(document).indexed for document in self.documents(positions)]
        return index.passage_vectors(texts, [None] * len(texts))

    def text_vectors(self, name: str, texts: Sequence[str]) -> Any:
        """See `BaseSnapshot.text_vectors`."""
        return self._vectorial(name).passage_vectors([IndexedText(text) for text in texts], [None] * len(texts))

    def runs(self, source: str, filter: Filter | None = None) -> list[list[int]]:
        """See `BaseSnapshot.runs`."""
        pairs = groupby(self._of_source(source, filter), key=itemgetter(1))
        return [[position for position, _ in run] for passed, run in pairs if passed]

    def _kind(self, name: str) -> EngineIndex:
        self._check_name(name)
        return self._indexes[name]

    def _dense(self, name: str) -> DenseIndex:
        index = self._kind(name)
        if not isinstance(index, DenseIndex):
            raise InputError(f"index_name: {name!r} holds no dense vectors; name a dense index")
        return index

    def _vectorial(self, name: str) -> DenseIndex | SparseIndex:
        index = self._kind(name)
        if isinstance(index, LexicalIndex):
            raise InputError(
                f"index_name: {self.engine} ranks the words of {name!r} itself, and gives no vectors of them; name a dense or "
                "sparse index, or index into a directory (ragkit index PATH --out DIR)"
            )
        return index


class EngineDraft(BaseDraft):
    """A draft that plans and encodes; an engine reads what it has and writes what is new."""

    def __init__(self, indexes: Indexes, split: dict[str, Any] | None) -> None:
        self._indexes, self.split = indexes, split

    # -- for each engine to say ---------------------------------------------------------------------------------------

    @abstractmethod
    def _stored(self, ids: Sequence[str]) -> Mapping[str, tuple[Any, ...]]:
        """What is stored under these ids; see `plan_upsert`."""

    @abstractmethod
    def _twins(self, digests: Sequence[str]) -> Mapping[str, int]:
        """The lowest position with each of these digests."""

    @abstractmethod
    def _reserve(self, count: int) -> int:
        """The first of so many positions that no passage ever had."""

    @abstractmethod
    def _vectors(self, name: str, positions: Positions) -> NDArray[np.float32]:
        """The vectors [n, dimension] that a dense index has for these positions."""

    @abstractmethod
    def _write(self, change: Change, seen: Mapping[str, Seen]) -> None:
        """Write all of a change, or nothing if it fails.

        The rows of `change.rows` take the place of those with the same ids; the positions in `change.removed` leave all indexes,
        and those of `change.additions` enter them as each index has `seen` them, in the same order.
        """

    # -- the contract -------------------------------------------------------------------------------------------------

    def upsert(self, documents: Sequence[Document], progress: Progress | None = None) -> list[str]:
        """See `BaseDraft.upsert`."""
        change = plan_upsert(documents, self._stored, self._twins, self._reserve)
        if change.rows:
            seen = {name: self._seen(name, change.additions, progress) for name in self._indexes.settings}
            self._write(change, seen if change.additions else {})
        return change.ids

    def _seen(self, name: str, additions: Sequence[Addition], progress: Progress | None) -> Seen:
        index = self._indexes[name]
        texts = [addition.text for addition in additions]
        if isinstance(index, LexicalIndex):
            return index.frequencies(texts)
        if isinstance(index, SparseIndex):
            return index.prepare(texts, [None] * len(texts), progress) if texts else SparseVectors.of([])
        vectors = np.empty((len(texts), index.encoder.dimension), np.float32)
        known = [(row, addition.twin) for row, addition in enumerate(additions) if addition.twin is not None]
        fresh = [row for row, addition in enumerate(additions) if addition.twin is None]
        if known:
            vectors[[row for row, _ in known]] = self._vectors(name, np.array([twin for _, twin in known], np.int64))
        if fresh:
            vectors[fresh] = index.prepare([texts[row] for row in fresh], [None] * len(fresh), progress)
        return vectors


class Statistics(NamedTuple):
    """What BM25 must know of a collection."""

    documents: int
    length: float
    """The sum of all lengths."""
    mean_idf: float = 0.0
    """Of all terms, ln((N - df + .5) / (df + .5)); the variant okapi needs it."""

    @property
    def mean_length(self) -> float:
        """Of a document."""
        return max(self.length, 1e-9) / max(self.documents, 1)


class EngineStore(BaseStore):
    """A store that a URL names."""

    def __init__(self, indexes: Indexes) -> None:
        self._indexes = indexes
        self._writing, self._open = RLock(), False

    @classmethod
    @abstractmethod
    def open(cls, url: str, *, encoder: AnyEncoder | Mapping[str, AnyEncoder] = None) -> Self:
        """The store at a URL; `encoder` as for `Store.open`. Raises `StoreError` if there is none, or it cannot be reached."""

    @classmethod
    @abstractmethod
    def create(cls, url: str, indexes: Mapping[str, TextIndex]) -> Self:
        """A new, empty store with indexes like these. Raises `InputError` if there is one already."""

    @classmethod
    @abstractmethod
    def exists(cls, url: str) -> bool:
        """Whether there is a store at a URL."""

    def _encoder(self, name: str, kind: str) -> Any:
        return self._indexes.encoder(name, kind)

    @contextmanager
    def _one_write(self) -> Iterator[None]:
        """One thread at a time. Raises `StoreError` if this thread is writing already."""
        with self._writing:
            if self._open:
                raise StoreError("a write is already open in this thread; use its draft")
            self._open = True
            try:
                yield
            finally:
                self._open = False


def _counted(index: LexicalIndex, queries: Sequence[str]) -> list[Counter[str]]:
    return [Counter(terms) for terms in index.analyzer.analyze(queries)]


def _checked(k: int) -> int:
    if k < 1:
        raise InputError(f"k: must be at least 1, not {k}")
    return min(k, _MOST)


def _known(vectors: SparseVectors) -> SparseVectors:
    """Without the terms that no document has."""
    kept = vectors.terms >= 0
    ends = np.append(0, np.cumsum(kept))
    return SparseVectors(ends[vectors.starts], vectors.terms[kept], vectors.weights[kept])
