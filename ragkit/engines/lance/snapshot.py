"""What readers see of a store in LanceDB: each table at the version that one row names."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray

from ragkit.corpus.filters import Filter
from ragkit.corpus.patterns import Pattern
from ragkit.corpus.rows import to_document
from ragkit.documents.spans import Span
from ragkit.engines.base import EngineSnapshot, Indexes, Statistics
from ragkit.engines.lance.fields import has_field, to_sql
from ragkit.engines.lance.place import Place
from ragkit.engines.lance.reading import Tables, numbers
from ragkit.engines.lance.search import DenseSearch, LexicalSearch, SparseSearch
from ragkit.engines.lance.tables import DATA, PASSAGES, SOURCES, State, among, key_of
from ragkit.engines.lance.tables import numbers as numbered
from ragkit.engines.lance.upkeep import probes
from ragkit.errors import InputError, StaleSnapshotError
from ragkit.indexes.base import Positions, Ranking
from ragkit.sparse_vectors import SparseVectors
from ragkit.store.sparse_index import SparseIndex
from ragkit.store.text_index import DenseIndex, LexicalIndex

_PAGE = 1_000  # passages that an exact search reads at a time


class LanceSnapshot(EngineSnapshot):
    """One published generation. What it reads may be cleaned up once two later ones are published: `StaleSnapshotError`."""

    engine = "LanceDB"

    def __init__(self, indexes: Indexes, place: Place, connection: Any, state: State) -> None:
        super().__init__(indexes)
        self.state = state
        self._place, self._tables = place, Tables(place, connection, state.versions)
        self._numbers = numbered(indexes.settings)
        self._fields: set[str] = set()
        for table in DATA:
            self._tables[table]  # a version that is gone is noticed now

    # -- searching ----------------------------------------------------------------------------------------------------

    def _worded(
        self, name: str, index: LexicalIndex, questions: Sequence[Mapping[str, int]], k: int, filter: Filter | None
    ) -> list[Ranking]:
        number = self._numbers[name]
        collection = Statistics(self.state.passages, self.state.lengths.get(name, 0.0))
        by_index = f"words_{number}" in self.state.indexed
        search = LexicalSearch(self._place, self._tables, number, index.index, collection, by_index)
        return search.rank(questions, k, self._condition(filter))

    def _nearest(
        self, name: str, index: DenseIndex, vectors: NDArray[np.float32], k: int, filter: Filter | None
    ) -> list[Ranking]:
        number, condition = self._numbers[name], self._condition(filter)
        search = DenseSearch(self._place, self._tables, number)
        if built := self.state.indexed.get(f"vector_{number}"):
            return search.by_lists(vectors, k, probes(built), condition)
        return search.exact(vectors, k, condition)

    def _weighted(self, name: str, index: SparseIndex, vectors: SparseVectors, k: int, filter: Filter | None) -> list[Ranking]:
        rows = map(vectors.row, range(len(vectors)))
        questions = [(terms.astype(np.int64), weights.astype(np.float64)) for terms, weights in rows]
        return SparseSearch(self._tables, self._numbers[name]).rank(questions, k, self._condition(filter))

    def find(
        self, pattern: Pattern, filter: Filter | None = None, seconds: float | None = None
    ) -> Iterator[tuple[int, list[Span]]]:
        """See `BaseSnapshot.find`. Every passage that passes the filter is read, and of each only if it has the literal."""
        stop = None if seconds is None else time.monotonic() + seconds
        condition = self._condition(filter) or "true"
        if not pattern.regex and not pattern.ignore_case and pattern.text.isprintable():
            literal = pattern.text.replace("'", "''")
            condition = f"({condition}) AND contains(text, '{literal}')"
        positions = np.sort(numbers(self._tables.arrow(PASSAGES, ["position"], condition)["position"])).tolist()
        for first in range(0, len(positions), _PAGE):
            rows = self._tables.rows(PASSAGES, ["position", "text"], among("position", positions[first : first + _PAGE]))
            for row in sorted(rows, key=lambda row: int(row["position"])):
                if stop is not None and time.monotonic() > stop:
                    raise InputError(f"pattern: took longer than {seconds:g} s; make it simpler, or allow more time")
                if spans := pattern.spans(row["text"]):
                    yield row["position"], spans

    def vectors(self, name: str, positions: Positions) -> NDArray[np.float32]:
        """See `BaseSnapshot.vectors`."""
        dimension = self._dense(name).encoder.dimension
        return self._tables.vectors(f"vector_{self._numbers[name]}", dimension, positions)

    # -- passages -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """See `BaseSnapshot.__len__`."""
        return self.state.passages

    def documents(self, positions: Iterable[int]) -> list[Document]:
        """See `BaseSnapshot.documents`."""
        wanted = [int(position) for position in positions]
        parts = self._tables.at(sorted(set(wanted)), ["position", "id", "text", "metadata", "provenance"])
        found = {row["position"]: row for part in parts for row in part.to_pylist()}
        missing = len(set(wanted) - found.keys())
        if missing:
            raise StaleSnapshotError(f"{missing} passages have been deleted since they were found; search again")
        return [_document(found[position]) for position in wanted]

    def get(self, ids: Sequence[str]) -> list[Document]:
        """See `BaseSnapshot.get`."""
        where = among("key", sorted(set(map(key_of, ids))))
        rows = self._tables.rows(PASSAGES, ["id", "text", "metadata", "provenance"], where)
        found = {row["id"]: row for row in rows}
        return [_document(found[id_]) for id_ in dict.fromkeys(ids) if id_ in found]

    def positions(self) -> Positions:
        """See `BaseSnapshot.positions`."""
        found: Positions = np.sort(numbers(self._tables.arrow(PASSAGES, ["position"])["position"]))
        return found

    def check_field(self, field: str, place: str = "field") -> None:
        """See `BaseSnapshot.check_field`."""
        if field in self._fields or not len(self):
            return
        if not self._tables.count(PASSAGES, has_field(field)):
            listed = self._tables.arrow(PASSAGES, ["keys"])["keys"]
            keys = sorted({key for part in listed.chunks for key in part.flatten().to_pylist()})
            names = ", ".join(key.decode("utf-8", "surrogatepass") for key in keys[:20]) or "none"
            raise InputError(f"{place}: no passage has the metadata field {field!r}; known fields: {names}")
        self._fields.add(field)

    def sources(self) -> list[str]:
        """See `BaseSnapshot.sources`."""
        return sorted(row["name"] for row in self._tables.rows(SOURCES, ["name"]))

    def source_text(self, source: str) -> str | None:
        """See `BaseSnapshot.source_text`."""
        rows = self._tables.rows(SOURCES, ["name", "text"], f"name_key = {key_of(source)}")
        return next((row["text"] for row in rows if row["name"] == source), None)

    def _of_source(self, source: str, filter: Filter | None) -> list[tuple[int, bool]]:
        where, condition = f"source_key = {key_of(source)}", self._condition(filter)
        rows = [row for row in self._tables.rows(PASSAGES, ["position", "source", "start"], where) if row["source"] == source]
        passed = {row["position"] for row in rows}
        if condition is not None:
            passed = {row["position"] for row in self._tables.rows(PASSAGES, ["position"], f"{where} AND ({condition})")}
        # a passage without an offset comes first
        rows.sort(key=lambda row: (-1 if row["start"] is None else row["start"], row["position"]))
        return [(row["position"], row["position"] in passed) for row in rows]

    def _condition(self, filter: Filter | None) -> str | None:
        if not filter:
            return None
        condition = to_sql(filter)
        for field in dict.fromkeys(condition.fields):
            self.check_field(field, "filter")
        return condition.sql


def _document(row: Mapping[str, Any]) -> Document:
    return to_document(row["id"], row["text"], row["metadata"], row["provenance"])
