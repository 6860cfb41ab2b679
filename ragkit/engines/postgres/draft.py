"""One transaction that writes to a store in PostgreSQL."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from ragkit.corpus.changes import Change, SourceText
from ragkit.corpus.rows import Row
from ragkit.engines.base import EngineDraft, Indexes, Seen
from ragkit.engines.postgres.address import Address
from ragkit.engines.postgres.characters import read, written
from ragkit.engines.postgres.connections import translated
from ragkit.engines.postgres.filters import fields_of
from ragkit.engines.postgres.keys import key_of, keys
from ragkit.engines.postgres.search import sparse_text, stored_term, vector_text
from ragkit.engines.postgres.snapshot import count, stored_vectors
from ragkit.engines.postgres.tables import numbers, table, vector_type, wants_hnsw
from ragkit.indexes.base import Positions
from ragkit.sparse_vectors import SparseVectors
from ragkit.store.text_index import DenseIndex, LexicalIndex

if TYPE_CHECKING:
    from psycopg import Connection

_COLUMNS = ("position", "key", "id", "digest", "source", "start", "text", "metadata", "fields", "provenance")
_MANY = 1_000  # changed passages from which on the planner is told of it
# what the terms of the removed passages were counts no more
_REMOVE_WORDS = """
WITH gone AS (DELETE FROM {index} WHERE position = ANY(%(positions)s) RETURNING terms, length),
counted AS (SELECT term, count(*) AS n FROM gone, jsonb_object_keys(terms) AS term GROUP BY term),
lowered AS (
  UPDATE {terms} AS t SET documents = t.documents - c.n FROM counted AS c WHERE t.term = c.term RETURNING t.term, t.documents)
UPDATE ragkit_indexes SET documents = documents - (SELECT count(*) FROM gone),
  length = length - (SELECT coalesce(sum(length), 0) FROM gone) WHERE number = %(number)s
RETURNING (SELECT array_agg(term) FROM lowered WHERE documents = 0)
"""
_COUNT_WORDS = """
INSERT INTO {terms} AS t (term, documents) SELECT * FROM unnest(%s::text[], %s::bigint[])
ON CONFLICT (term) DO UPDATE SET documents = t.documents + excluded.documents
"""


P = ParamSpec("P")
R = TypeVar("R")


def _asks(method: Callable[Concatenate[PostgresDraft, P], R]) -> Callable[Concatenate[PostgresDraft, P], R]:
    """A method whose errors are the server's; it raises them as ours."""

    @wraps(method)
    def asked(self: PostgresDraft, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with translated(self._address):
            return method(self, *args, **kwargs)

    return asked


class PostgresDraft(EngineDraft):
    """Changes are seen by others when the transaction is committed, all at once."""

    def __init__(self, indexes: Indexes, address: Address, connection: Connection[Any]) -> None:
        """Waits until no other writer is at work, in whatever process."""
        rows = connection.execute("SELECT split, next_position FROM ragkit_store FOR UPDATE").fetchall()
        split, self._next = rows[0]
        super().__init__(indexes, None if split is None else json.loads(split))
        self._address, self._connection = address, connection
        self._numbers = numbers(indexes.settings)
        self._changed = 0

    @_asks
    def __len__(self) -> int:
        return count(self._connection)

    @_asks
    def delete(self, ids: Sequence[str]) -> list[str]:
        """See `BaseDraft.delete`."""
        rows = self._connection.execute("SELECT id, position FROM ragkit_passages WHERE key = ANY(%s)", [keys(ids)]).fetchall()
        known = {read(id_): position for id_, position in rows}
        gone = [id_ for id_ in dict.fromkeys(ids) if id_ in known]
        with self._connection.transaction():
            self._remove([known[id_] for id_ in gone])
        return gone

    @_asks
    def replace_sources(self, sources: Mapping[str, Sequence[SourceText]]) -> None:
        """See `BaseDraft.replace_sources`."""
        if not sources:
            return
        rows = [
            (written(source.name), written(file), source.digest, written(source.text))
            for file, its_sources in sources.items()
            for source in its_sources
        ]
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute("DELETE FROM ragkit_sources WHERE file = ANY(%s)", [[written(file) for file in sources]])
            with cursor.copy("COPY ragkit_sources (name, file, digest, text) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)

    @_asks
    def split_with(self, settings: dict[str, Any]) -> None:
        """See `BaseDraft.split_with`."""
        self._connection.execute("UPDATE ragkit_store SET split = %s", [json.dumps(settings)])
        self.split = settings

    @_asks
    def file_digests(self) -> dict[str, str]:
        """See `BaseDraft.file_digests`."""
        rows = self._connection.execute("SELECT DISTINCT file, digest FROM ragkit_sources").fetchall()
        return {read(file): digest for file, digest in rows}

    @_asks
    def ids_of_file(self, file: str) -> list[str]:
        """See `BaseDraft.ids_of_file`."""
        rows = self._connection.execute(
            "SELECT id FROM ragkit_passages WHERE source IN (SELECT name FROM ragkit_sources WHERE file = %s) ORDER BY position",
            [written(file)],
        ).fetchall()
        return [read(id_) for (id_,) in rows]

    def finish(self) -> None:
        """What is due before the changes are published: graphs over many vectors, and what the planner knows of tables."""
        from psycopg.sql import SQL

        if not self._changed:
            return
        for name, number in self._numbers.items():
            index = self._indexes[name]
            if isinstance(index, DenseIndex):
                self._build_graph(number, index)
        if self._changed >= _MANY:
            for name in ("passages", *(f"index_{number}" for number in self._numbers.values())):
                self._connection.execute(SQL(f"ANALYZE ragkit_{name}"))

    def _build_graph(self, number: int, index: DenseIndex) -> None:
        from psycopg.sql import SQL

        row = self._connection.execute("SELECT hnsw FROM ragkit_indexes WHERE number = %s", [number]).fetchone()
        if row and not row[0] and wants_hnsw(index, len(self)):
            operators = f"{vector_type(index)}_ip_ops"
            self._connection.execute(SQL(f"CREATE INDEX ON {{}} USING hnsw (vector {operators})").format(table("index", number)))
            self._connection.execute("UPDATE ragkit_indexes SET hnsw = true WHERE number = %s", [number])

    # -- for `EngineDraft` --------------------------------------------------------------------------------------------

    @_asks
    def _stored(self, ids: Sequence[str]) -> Mapping[str, tuple[Any, ...]]:
        rows = self._connection.execute(
            "SELECT id, position, digest, source, text, metadata, provenance FROM ragkit_passages WHERE key = ANY(%s)",
            [keys(ids)],
        ).fetchall()
        return {
            read(id_): (position, digest, None if source is None else read(source), read(text), metadata, record)
            for id_, position, digest, source, text, metadata, record in rows
        }

    @_asks
    def _twins(self, digests: Sequence[str]) -> Mapping[str, int]:
        query = "SELECT digest, min(position) FROM ragkit_passages WHERE digest = ANY(%s) GROUP BY digest"
        return dict(self._connection.execute(query, [list(digests)]).fetchall())

    @_asks
    def _reserve(self, count: int) -> int:
        first: int = self._next
        self._next += count
        self._connection.execute("UPDATE ragkit_store SET next_position = %s", [self._next])
        return first

    @_asks
    def _vectors(self, name: str, positions: Positions) -> NDArray[np.float32]:
        index = self._indexes[name]
        assert isinstance(index, DenseIndex)
        return stored_vectors(self._connection, self._numbers[name], index.encoder.dimension, positions)

    @_asks
    def _write(self, change: Change, seen: Mapping[str, Seen]) -> None:
        added = [addition.position for addition in change.additions]
        with self._connection.transaction():
            self._remove(change.removed)
            self._write_rows(change.rows, set(added))
            self._count(len(added))
            for name, its in seen.items():
                self._write_index(self._numbers[name], self._indexes[name], added, its)
        self._changed += len(change.rows)

    def _remove(self, positions: Sequence[int]) -> None:
        from psycopg.sql import SQL

        if not positions:
            return
        self._changed += len(positions)
        given = list(positions)
        self._count(-self._connection.execute("DELETE FROM ragkit_passages WHERE position = ANY(%s)", [given]).rowcount)
        for name, number in self._numbers.items():
            index = table("index", number)
            if self._indexes.settings[name]["kind"] == LexicalIndex.kind:
                terms = table("terms", number)
                query = SQL(_REMOVE_WORDS).format(index=index, terms=terms)
                (unused,) = self._connection.execute(query, {"positions": given, "number": number}).fetchone() or (None,)
                self._connection.execute(SQL("DELETE FROM {} WHERE term = ANY(%s)").format(terms), [unused or []])
            else:
                self._connection.execute(SQL("DELETE FROM {} WHERE position = ANY(%s)").format(index), [given])

    def _count(self, more: int) -> None:
        self._connection.execute("UPDATE ragkit_store SET passages = passages + %s", [more])

    def _write_rows(self, rows: Sequence[tuple[int, Row]], added: set[int]) -> None:
        fresh = [_values(position, row) for position, row in rows if position in added]
        # the indexed text is the same: the passage keeps its position
        known = [_values(position, row) for position, row in rows if position not in added]
        with self._connection.cursor() as cursor:
            if fresh:
                with cursor.copy(f"COPY ragkit_passages ({', '.join(_COLUMNS)}) FROM STDIN") as copy:
                    for values in fresh:
                        copy.write_row(values)
            if known:
                changes = ", ".join(f"{column} = %s" for column in _COLUMNS[1:])
                cursor.executemany(
                    f"UPDATE ragkit_passages SET {changes} WHERE position = %s", [[*its[1:], its[0]] for its in known]
                )

    def _write_index(self, number: int, index: Any, positions: Sequence[int], seen: Seen) -> None:
        from psycopg.sql import SQL

        name = table("index", number)
        with self._connection.cursor() as cursor:
            if isinstance(seen, list):
                stored = [{stored_term(term): value for term, value in terms.items()} for terms in seen]
                with cursor.copy(SQL("COPY {} (position, terms, length) FROM STDIN").format(name)) as copy:
                    for position, terms in zip(positions, stored, strict=True):
                        numbers = {term: int(value) if value == int(value) else value for term, value in terms.items()}
                        copy.write_row((position, json.dumps(numbers, ensure_ascii=False), sum(terms.values())))
                counted = Counter(term for terms in stored for term in terms)
                cursor.execute(SQL(_COUNT_WORDS).format(terms=table("terms", number)), [list(counted), list(counted.values())])
                cursor.execute(
                    "UPDATE ragkit_indexes SET documents = documents + %s, length = length + %s WHERE number = %s",
                    [len(stored), sum(sum(terms.values()) for terms in stored), number],
                )
                return
            if isinstance(seen, SparseVectors):
                size = index.encoder.vocabulary
                texts = [sparse_text(*seen.row(row), size) for row in range(len(seen))]
            else:
                texts = [vector_text(vector) for vector in seen]
            with cursor.copy(SQL("COPY {} (position, vector) FROM STDIN").format(name)) as copy:
                for pair in zip(positions, texts, strict=True):
                    copy.write_row(pair)


def _values(position: int, row: Row) -> tuple[Any, ...]:
    """In the order of `_COLUMNS`."""
    record = json.loads(row.provenance) if row.provenance else {}
    source = None if row.source is None else written(row.source)
    start = record.get("start")
    return (
        position,
        key_of(row.id),
        written(row.id),
        row.digest,
        source,
        start,
        written(row.text),
        row.metadata,
        fields_of(row.metadata),
        row.provenance,
    )
