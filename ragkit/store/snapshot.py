"""One generation of a store, as searches see it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray

from ragkit.corpus.corpus import Corpus
from ragkit.corpus.filters import Filter
from ragkit.corpus.patterns import Pattern
from ragkit.corpus.rows import IndexedText, to_row
from ragkit.documents.spans import Span
from ragkit.errors import InputError
from ragkit.indexes.base import Positions, Ranking
from ragkit.store.base import BaseSnapshot
from ragkit.store.text_index import DenseIndex, TextIndex, VectorIndex
from ragkit.store.unit_index import UnitIndex, UnitRanking

_REMEMBERED_FILTERS = 64


class Snapshot(BaseSnapshot):
    """One generation of a store in memory or in a directory."""

    engine = "a store in a directory"

    def __init__(self, corpus: Corpus, settings: Mapping[str, Any], load: Callable[[str], TextIndex]) -> None:
        """`settings` are those of the indexes, by name; `load` is called once per index, when it is first needed."""
        self.corpus, self.settings = corpus, settings
        self._load, self._lock = load, threading.RLock()
        self._loaded: dict[str, TextIndex] = {}
        self._size: int | None = None
        self._allowed: dict[str, Positions] = {}

    def __len__(self) -> int:
        """See `BaseSnapshot.__len__`."""
        with self._lock:
            if self._size is None:
                self._size = len(self.corpus)
            return self._size

    def index(self, name: str) -> TextIndex:
        """See `BaseSnapshot.index`."""
        self._check_name(name)
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def search(self, name: str, queries: Sequence[str], k: int, filter: Filter | None = None) -> list[Ranking]:
        """See `BaseSnapshot.search`."""
        return self.index(name).search(queries, k, self._positions(filter))

    async def asearch(self, name: str, queries: Sequence[str], k: int, filter: Filter | None = None) -> list[Ranking]:
        """See `BaseSnapshot.asearch`."""
        allowed = await asyncio.to_thread(self._positions, filter)
        return await (await asyncio.to_thread(self.index, name)).asearch(queries, k, allowed)

    def encode(self, name: str, queries: Sequence[str]) -> NDArray[np.float32]:
        """See `BaseSnapshot.encode`."""
        return np.asarray(self._dense(name).encoder.encode_queries(queries), np.float32)

    async def aencode(self, name: str, queries: Sequence[str]) -> NDArray[np.float32]:
        """See `BaseSnapshot.aencode`."""
        return np.asarray(await (await asyncio.to_thread(self._dense, name)).encoder.aencode_queries(queries), np.float32)

    def vectors(self, name: str, positions: Positions) -> NDArray[np.float32]:
        """See `BaseSnapshot.vectors`."""
        return self._dense(name).vectors_at(positions)

    def query_vectors(self, name: str, queries: Sequence[str]) -> Any:
        """See `BaseSnapshot.query_vectors`."""
        return self._vector_index(name).query_vectors(queries)

    async def aquery_vectors(self, name: str, queries: Sequence[str]) -> Any:
        """See `BaseSnapshot.aquery_vectors`."""
        return await (await asyncio.to_thread(self._vector_index, name)).aquery_vectors(queries)

    def passage_vectors(self, name: str, positions: Sequence[int]) -> Any:
        """See `BaseSnapshot.passage_vectors`."""
        texts = [to_row(document).indexed for document in self.documents(positions)]
        return self._vector_index(name).passage_vectors(texts, positions)

    def text_vectors(self, name: str, texts: Sequence[str]) -> Any:
        """See `BaseSnapshot.text_vectors`."""
        return self._vector_index(name).passage_vectors([IndexedText(text) for text in texts], [None] * len(texts))

    def search_vectors(self, name: str, vectors: Any, k: int, filter: Filter | None = None) -> list[Ranking]:
        """See `BaseSnapshot.search_vectors`."""
        return self._vector_index(name).search_vectors(vectors, k, self._positions(filter))

    def search_units(self, name: str, queries: Sequence[str], k: int, filter: Filter | None = None) -> list[UnitRanking]:
        """See `BaseSnapshot.search_units`."""
        return self._units(name).search_units(queries, k, self._positions(filter))

    async def asearch_units(self, name: str, queries: Sequence[str], k: int, filter: Filter | None = None) -> list[UnitRanking]:
        """See `BaseSnapshot.asearch_units`."""
        allowed = await asyncio.to_thread(self._positions, filter)
        return await (await asyncio.to_thread(self._units, name)).asearch_units(queries, k, allowed)

    def unit_language(self, name: str) -> str:
        """See `BaseSnapshot.unit_language`."""
        return self._units(name).language

    def find(
        self, pattern: Pattern, filter: Filter | None = None, seconds: float | None = None
    ) -> Iterator[tuple[int, list[Span]]]:
        """See `BaseSnapshot.find`."""
        return self.corpus.find(pattern, self._positions(filter), seconds)

    def documents(self, positions: Iterable[int]) -> list[Document]:
        """See `BaseSnapshot.documents`."""
        return self.corpus.documents(positions)

    def get(self, ids: Sequence[str]) -> list[Document]:
        """See `BaseSnapshot.get`."""
        return self.corpus.get(ids)

    def runs(self, source: str, filter: Filter | None = None) -> list[list[int]]:
        """See `BaseSnapshot.runs`."""
        positions = np.asarray(self.corpus.positions_of_source(source), np.int64)
        allowed = self._positions(filter)
        passes = np.ones(len(positions), np.bool_) if allowed is None else np.isin(positions, allowed)
        pairs = groupby(zip(positions.tolist(), passes.tolist(), strict=True), key=itemgetter(1))
        return [[position for position, _ in run] for passed, run in pairs if passed]

    def check_field(self, field: str, place: str = "field") -> None:
        """See `BaseSnapshot.check_field`."""
        self.corpus.check_field(field, place)

    def positions(self) -> Positions:
        """See `BaseSnapshot.positions`."""
        return self.corpus.all_positions()

    def sources(self) -> list[str]:
        """See `BaseSnapshot.sources`."""
        return self.corpus.sources()

    def source_text(self, source: str) -> str | None:
        """See `BaseSnapshot.source_text`."""
        return self.corpus.source_text(source)

    def forget(self) -> None:
        """Drop what was remembered of passages; for an in-memory store that has changed in place."""
        with self._lock:
            self._size = None
            self._allowed = {}

    def _dense(self, name: str) -> DenseIndex:
        index = self.index(name)
        if not isinstance(index, DenseIndex):
            raise InputError(f"index_name: {name!r} holds no dense vectors; name a dense index")
        return index

    def _units(self, name: str) -> UnitIndex:
        index = self.index(name)
        if not isinstance(index, UnitIndex):
            raise InputError(f"index_name: {name!r} holds no units; name an index of units")
        return index

    def _vector_index(self, name: str) -> VectorIndex:
        index = self.index(name)
        if not isinstance(index, VectorIndex):
            raise InputError(f"index_name: {name!r} has no single vector for a passage; name another index of the store")
        return index

    def _positions(self, filter: Filter | None) -> Positions | None:
        if not filter:
            return None
        try:
            key = json.dumps(filter, sort_keys=True)
        except (TypeError, ValueError):
            return self.corpus.allowed(filter)
        with self._lock:
            known = self._allowed.get(key)
        if known is None:
            known = self.corpus.allowed(filter)
            with self._lock:
                if len(self._allowed) >= _REMEMBERED_FILTERS:
                    self._allowed.pop(next(iter(self._allowed)))
                self._allowed[key] = known
        return known
