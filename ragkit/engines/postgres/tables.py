"""The tables of a store: passages, sources, and one table for each index, numbered in the order of their names' settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ragkit.engines.base import EngineIndex, Indexes
from ragkit.engines.postgres.address import Address
from ragkit.engines.postgres.connections import VECTOR_VERSION, use_schema
from ragkit.errors import InputError, StoreError
from ragkit.indexes.kinds import choose
from ragkit.store.sparse_index import SparseIndex
from ragkit.store.text_index import DenseIndex, LexicalIndex

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composed

FORMAT = 2
_DIMENSIONS = 16_000
_HNSW_DIMENSIONS = {"float32": 2_000, "float16": 4_000}
_TABLES = """
CREATE TABLE ragkit_store (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  format integer NOT NULL, split text,
  next_position bigint NOT NULL DEFAULT 0, passages bigint NOT NULL DEFAULT 0);
CREATE TABLE ragkit_indexes (
  number integer PRIMARY KEY, name text NOT NULL, settings text NOT NULL,
  documents bigint NOT NULL DEFAULT 0, length double precision NOT NULL DEFAULT 0, hnsw boolean NOT NULL DEFAULT false);
CREATE TABLE ragkit_passages (
  position bigint PRIMARY KEY, key uuid NOT NULL UNIQUE, id text NOT NULL, digest text NOT NULL, source text, start bigint,
  text text NOT NULL, metadata text NOT NULL, fields jsonb NOT NULL, provenance text);
CREATE INDEX ON ragkit_passages (digest);
CREATE INDEX ON ragkit_passages USING hash (source);
CREATE INDEX ON ragkit_passages USING gin (fields);
CREATE TABLE ragkit_sources (name text NOT NULL, file text NOT NULL, digest text NOT NULL, text text NOT NULL);
CREATE INDEX ON ragkit_sources USING hash (name);
CREATE INDEX ON ragkit_sources USING hash (file);
"""
_ALL = "ragkit_store, ragkit_indexes, ragkit_passages, ragkit_sources"


def exist(connection: Connection[Any], schema: str) -> bool:
    """Whether the schema holds a store."""
    found = connection.execute(
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = 'ragkit_store'",
        [schema],
    )
    return found.fetchone() is not None


def create(connection: Connection[Any], address: Address, indexes: Indexes) -> None:
    """Make the tables in the address's schema. Raises `InputError` for settings that cannot be had here."""
    for name in indexes.settings:
        _check(name, indexes[name])
    needs_vectors = any(settings["kind"] != LexicalIndex.kind for settings in indexes.settings.values())
    if needs_vectors:
        check_vectors(connection, address.name)
    use_schema(connection, address.schema)
    connection.execute(_TABLES)
    connection.execute("INSERT INTO ragkit_store (format) VALUES (%s)", [FORMAT])
    for number, (name, settings) in enumerate(indexes.settings.items()):
        connection.execute(
            "INSERT INTO ragkit_indexes (number, name, settings) VALUES (%s, %s, %s)", [number, name, json.dumps(settings)]
        )
        for statement in _tables_of(number, indexes[name]):
            connection.execute(statement)


def drop(connection: Connection[Any], schema: str) -> None:
    """Remove the tables from the schema, which the connection uses; the schema too, unless it holds more or is another's."""
    from psycopg import errors
    from psycopg.sql import SQL, Identifier

    for (number,) in connection.execute("SELECT number FROM ragkit_indexes").fetchall():
        for kind in ("index", "terms"):
            connection.execute(SQL("DROP TABLE IF EXISTS {}").format(table(kind, number)))
    connection.execute(f"DROP TABLE {_ALL}")
    if schema != "public":
        with suppress(errors.DependentObjectsStillExist, errors.InsufficientPrivilege), connection.transaction():
            connection.execute(SQL("DROP SCHEMA {}").format(Identifier(schema)))


def read_settings(connection: Connection[Any], place: str) -> dict[str, dict[str, Any]]:
    """The settings of each index, in order. Raises `StoreError` for another format version, or a pgvector that is too old."""
    (version,) = connection.execute("SELECT format FROM ragkit_store").fetchone() or (None,)
    if version != FORMAT:
        raise StoreError(f"{place} has format {version}, this ragkit reads format {FORMAT}; index into another schema")
    rows = connection.execute("SELECT name, settings FROM ragkit_indexes ORDER BY number").fetchall()
    settings = {name: json.loads(its) for name, its in rows}
    if any(its["kind"] != LexicalIndex.kind for its in settings.values()):
        check_vectors(connection, place)
    return settings


def table(kind: str, number: int) -> Composed:
    """The name of a table of an index, for `psycopg.sql`; `kind` is "index" or "terms"."""
    from psycopg.sql import SQL, Identifier

    return SQL("{}").format(Identifier(f"ragkit_{kind}_{number}"))


def vector_type(index: DenseIndex) -> str:
    """The type of the vectors of a dense index."""
    return "halfvec" if index.index.precision == "float16" else "vector"


def wants_hnsw(index: DenseIndex, count: int) -> bool:
    """Whether so many vectors are to be searched by an HNSW graph, rather than exactly."""
    if index.encoder.dimension > _HNSW_DIMENSIONS[index.index.precision]:
        return False
    match index.index.kind:
        case "hnsw":
            return count >= index.index.codes_from
        case "auto":
            return choose(count) != "flat"
    return False


def check_vectors(connection: Connection[Any], place: str) -> None:
    """See to it that the database has pgvector. Raises `StoreError` if it has not, or one that is too old."""
    import psycopg

    query = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    row = connection.execute(query).fetchone()
    if row is None:
        reason = ""
        try:
            with connection.transaction():
                connection.execute("CREATE EXTENSION vector")
        except psycopg.Error as error:
            reason = str(error).splitlines()[0]
        row = connection.execute(query).fetchone()  # it may be another's, who made it at the same time
        if row is None:
            raise StoreError(
                f"{place}: the database has no pgvector ({reason}); install it on the server, and have a superuser run "
                "CREATE EXTENSION vector"
            )
    version = tuple(int(part) for part in row[0].split(".")[:2])
    if version < VECTOR_VERSION:
        wanted = ".".join(map(str, VECTOR_VERSION))
        raise StoreError(f"{place}: has pgvector {'.'.join(map(str, version))}, needed is {wanted} or later; update it")


def _check(name: str, index: EngineIndex) -> None:
    where = f"indexes: {name!r}"
    if isinstance(index, DenseIndex):
        if index.index.kind not in ("auto", "flat", "hnsw"):
            raise InputError(f"{where} is of kind {index.index.kind!r}; PostgreSQL has auto, flat and hnsw")
        if index.encoder.dimension > _DIMENSIONS:
            raise InputError(f"{where} has {index.encoder.dimension} dimensions; pgvector takes up to {_DIMENSIONS}")
    elif index.index.budget is not None:
        raise InputError(f"{where}: has a budget, which only an index in a directory keeps; leave it out")
    elif isinstance(index, SparseIndex) and index.index.ceiling is not None:
        raise InputError(f"{where}: has a ceiling, but PostgreSQL keeps weights in 32 bits; leave it out")


def _tables_of(number: int, index: EngineIndex) -> list[Composed]:
    from psycopg.sql import SQL

    name = table("index", number)
    if isinstance(index, LexicalIndex):
        return [
            SQL("CREATE TABLE {} (position bigint PRIMARY KEY, terms jsonb NOT NULL, length double precision NOT NULL)").format(
                name
            ),
            SQL("CREATE INDEX ON {} USING gin (terms)").format(name),
            SQL('CREATE TABLE {} (term text COLLATE "C" PRIMARY KEY, documents bigint NOT NULL)').format(table("terms", number)),
        ]
    if isinstance(index, SparseIndex):
        kind = f"sparsevec({index.encoder.vocabulary})"
    else:
        kind = f"{vector_type(index)}({index.encoder.dimension})"
    return [SQL(f"CREATE TABLE {{}} (position bigint PRIMARY KEY, vector {kind} NOT NULL)").format(name)]


def numbers(settings: Mapping[str, Any]) -> dict[str, int]:
    """The number of each index's tables."""
    return {name: number for number, name in enumerate(settings)}
