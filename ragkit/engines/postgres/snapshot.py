"""What readers see of a store in PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray

from ragkit.corpus.filters import Condition, Filter
from ragkit.corpus.patterns import Pattern
from ragkit.corpus.rows import to_document
from ragkit.documents.spans import Span
from ragkit.engines.base import EngineSnapshot, Indexes
from ragkit.engines.postgres import search
from ragkit.engines.postgres.characters import encodable, read, written
from ragkit.engines.postgres.filters import text_of_field, to_sql
from ragkit.engines.postgres.keys import keys
from ragkit.engines.postgres.tables import numbers, table, vector_type
from ragkit.errors import InputError, StaleSnapshotError
from ragkit.indexes.base import Positions, Ranking
from ragkit.sparse_vectors import SparseVectors
from ragkit.store.sparse_index import SparseIndex
from ragkit.store.text_index import DenseIndex, LexicalIndex

if TYPE_CHECKING:
    from psycopg import Connection

_PAGE = 1_000  # passages that an exact search reads at a time


class PostgresSnapshot(EngineSnapshot):
    """The state of the database in one transaction; or, outside `PostgresStore.read`, in one for each question."""

    engine = "PostgreSQL"

    def __init__(self, indexes: Indexes, connection: Callable[[], AbstractContextManager[Connection[Any]]]) -> None:
        """`connection` gives one that is in a transaction, or begins one."""
        super().__init__(indexes)
        self._connection = connection
        self._numbers = numbers(indexes.settings)

    # -- searching ----------------------------------------------------------------------------------------------------

    def _worded(
        self, name: str, index: LexicalIndex, questions: Sequence[Mapping[str, int]], k: int, filter: Filter | None
    ) -> list[Ranking]:
        with self._connection() as connection:
            condition = self._condition(connection, filter)
            return search.search_words(connection, self._numbers[name], index.index, questions, k, condition)

    def _nearest(
        self, name: str, index: DenseIndex, vectors: NDArray[np.float32], k: int, filter: Filter | None
    ) -> list[Ranking]:
        number = self._numbers[name]
        with self._connection() as connection:
            condition = self._condition(connection, filter)
            row = connection.execute("SELECT hnsw FROM ragkit_indexes WHERE number = %s", [number]).fetchone()
            how = search.search_graph if row and row[0] else search.search_vectors
            return how(connection, number, vector_type(index), vectors, k, condition)

    def _weighted(self, name: str, index: SparseIndex, vectors: SparseVectors, k: int, filter: Filter | None) -> list[Ranking]:
        with self._connection() as connection:
            condition = self._condition(connection, filter)
            return search.search_sparse(connection, self._numbers[name], index.encoder.vocabulary, vectors, k, condition)

    def find(
        self, pattern: Pattern, filter: Filter | None = None, seconds: float | None = None
    ) -> Iterator[tuple[int, list[Span]]]:
        """See `BaseSnapshot.find`. For a literal the server looks for it, for others every passage is fetched."""
        stop = None if seconds is None else time.monotonic() + seconds
        literal = written(pattern.text) if not pattern.regex and not pattern.ignore_case and encodable(pattern.text) else None
        last = -1
        while True:
            with self._connection() as connection:
                condition = self._condition(connection, filter) or Condition("true", [], [])
                rows = connection.execute(
                    "SELECT position, text FROM ragkit_passages AS p WHERE position > %s "
                    f"AND (%s::text IS NULL OR strpos(text, %s) > 0) AND {condition.sql} ORDER BY position LIMIT %s",
                    [last, literal, literal, *condition.parameters, _PAGE],
                ).fetchall()
            for last, text in rows:
                if stop is not None and time.monotonic() > stop:
                    raise InputError(f"pattern: took longer than {seconds:g} s; make it simpler, or allow more time")
                if spans := pattern.spans(read(text)):
                    yield last, spans
            if len(rows) < _PAGE:
                return

    def vectors(self, name: str, positions: Positions) -> NDArray[np.float32]:
        """See `BaseSnapshot.vectors`."""
        index = self._dense(name)
        with self._connection() as connection:
            return stored_vectors(connection, self._numbers[name], index.encoder.dimension, positions)

    # -- passages -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """See `BaseSnapshot.__len__`."""
        with self._connection() as connection:
            return count(connection)

    def documents(self, positions: Iterable[int]) -> list[Document]:
        """See `BaseSnapshot.documents`."""
        wanted = [int(position) for position in positions]
        if not wanted:
            return []
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT position, id, text, metadata, provenance FROM ragkit_passages WHERE position = ANY(%s)", [wanted]
            ).fetchall()
        found = {position: (read(id_), read(text), metadata, record) for position, id_, text, metadata, record in rows}
        missing = len(set(wanted) - found.keys())
        if missing:
            raise StaleSnapshotError(f"{missing} passages have been deleted since they were found; search again")
        return [to_document(*found[position]) for position in wanted]

    def get(self, ids: Sequence[str]) -> list[Document]:
        """See `BaseSnapshot.get`."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT id, text, metadata, provenance FROM ragkit_passages WHERE key = ANY(%s)", [keys(ids)]
            ).fetchall()
        found = {read(id_): (read(text), metadata, record) for id_, text, metadata, record in rows}
        return [to_document(id_, *found[id_]) for id_ in dict.fromkeys(ids) if id_ in found]

    def positions(self) -> Positions:
        """See `BaseSnapshot.positions`."""
        with self._connection() as connection:
            rows = connection.execute("SELECT position FROM ragkit_passages ORDER BY position", binary=True).fetchall()
        return np.fromiter((position for (position,) in rows), np.int64, len(rows))

    def check_field(self, field: str, place: str = "field") -> None:
        """See `BaseSnapshot.check_field`."""
        with self._connection() as connection:
            check_field(connection, field, place)

    def sources(self) -> list[str]:
        """See `BaseSnapshot.sources`."""
        with self._connection() as connection:
            rows = connection.execute('SELECT name FROM ragkit_sources ORDER BY name COLLATE "C"').fetchall()
        return [read(name) for (name,) in rows]

    def source_text(self, source: str) -> str | None:
        """See `BaseSnapshot.source_text`."""
        with self._connection() as connection:
            row = connection.execute("SELECT text FROM ragkit_sources WHERE name = %s LIMIT 1", [written(source)]).fetchone()
        return None if row is None else read(row[0])

    def _of_source(self, source: str, filter: Filter | None) -> list[tuple[int, bool]]:
        with self._connection() as connection:
            condition = self._condition(connection, filter) or Condition("true", [], [])
            rows: list[tuple[int, bool]] = connection.execute(
                f"SELECT position, {condition.sql} FROM ragkit_passages AS p WHERE source = %s "
                "ORDER BY start NULLS FIRST, position",
                [*condition.parameters, written(source)],
            ).fetchall()
        return rows

    def _condition(self, connection: Connection[Any], filter: Filter | None) -> Condition | None:
        if not filter:
            return None
        condition = to_sql(filter)
        for field in dict.fromkeys(condition.fields):
            check_field(connection, field, "filter")
        return condition


def check_field(connection: Connection[Any], field: str, place: str) -> None:
    """Raise `InputError`, which begins with `place`, if there are passages but none with this metadata field."""
    query = "SELECT EXISTS (SELECT 1 FROM ragkit_passages WHERE fields ? %s), EXISTS (SELECT 1 FROM ragkit_passages)"
    known, some = connection.execute(query, [text_of_field(field)]).fetchone() or (False, False)
    if known or not some:
        return
    fields = connection.execute(
        'SELECT DISTINCT name COLLATE "C" AS name FROM ragkit_passages, jsonb_object_keys(fields) AS name ORDER BY name LIMIT 20'
    ).fetchall()
    names = ", ".join(read(name) for (name,) in fields) or "none"
    raise InputError(f"{place}: no passage has the metadata field {field!r}; known fields: {names}")


def stored_vectors(connection: Connection[Any], number: int, dimension: int, positions: Positions) -> NDArray[np.float32]:
    """The vectors [n, dimension] of a dense index. Raises `InputError` if one is not there."""
    from psycopg.sql import SQL

    query = SQL("SELECT position, vector_send(vector::vector) FROM {} WHERE position = ANY(%s)").format(table("index", number))
    found = dict(connection.execute(query, [np.asarray(positions).tolist()], binary=True).fetchall())
    missing = {int(position) for position in positions} - found.keys()
    if missing:
        raise InputError("positions: there is no vector at one of them")
    return np.array([search.sent_vector(found[int(position)]) for position in positions], np.float32).reshape(-1, dimension)


def count(connection: Connection[Any]) -> int:
    """Number of passages, which writers keep up: PostgreSQL would count them one by one."""
    row = connection.execute("SELECT passages FROM ragkit_store").fetchone()
    return int(row[0]) if row else 0
