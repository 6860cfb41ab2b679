"""Connections to a PostgreSQL server, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any

from ragkit.engines.postgres.address import Address
from ragkit.errors import MissingExtraError, StoreError

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg_pool import ConnectionPool

_READERS = 16
_SECONDS = 30.0
VECTOR_VERSION = (0, 8)
"""The oldest pgvector that goes on with an approximate search when a filter leaves too little."""


def check_installed() -> None:
    """Raise `MissingExtraError` without psycopg and its pool."""
    try:
        import psycopg
        import psycopg_pool
    except ImportError as error:
        raise MissingExtraError("a store in PostgreSQL", "postgres") from error
    del psycopg, psycopg_pool


@contextmanager
def told(address: Address) -> Iterator[None]:
    """Raises the server's errors as `StoreError`s of one line, without the password."""
    import psycopg
    from psycopg_pool import PoolTimeout

    try:
        yield
    except PoolTimeout:
        raise StoreError(
            f"{address.name} gave no connection within {_SECONDS:g} s; are there more readers than it takes?"
        ) from None
    except psycopg.Error as error:
        message = " ".join(str(error).split())
        if address.password:
            message = message.replace(address.password, "***")
        raise StoreError(f"{address.name}: {message}") from None


def connect(address: Address) -> Connection[Any]:
    """A connection of its own, in autocommit mode. Raises `StoreError` if the server cannot be reached, or refuses."""
    import psycopg

    with told(address):
        return psycopg.connect(address.conninfo, autocommit=True, connect_timeout=10, client_encoding="utf8")


def readers(address: Address) -> ConnectionPool[Connection[Any]]:
    """A pool whose connections see one state of the database in each transaction."""
    from psycopg_pool import ConnectionPool

    return ConnectionPool(
        address.conninfo,
        kwargs={"client_encoding": "utf8", "connect_timeout": 10},
        min_size=0,
        max_size=_READERS,
        max_idle=60,
        timeout=_SECONDS,
        configure=lambda connection: _prepare_reader(connection, address.schema),
        check=ConnectionPool.check_connection,
        open=True,
        name="ragkit",
    )


def use_schema(connection: Connection[Any], schema: str) -> None:
    """Have the schema's tables, and pgvector's types and operators wherever they are, found by their names."""
    rows = connection.execute(
        "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
    ).fetchall()
    path = ", ".join('"' + name.replace('"', '""') + '"' for name in dict.fromkeys([schema, *(name for (name,) in rows)]))
    # compiling a query takes longer than any of ours runs
    connection.execute("SELECT set_config('search_path', %s, false), set_config('jit', 'off', false)", [path])


def _prepare_reader(connection: Connection[Any], schema: str) -> None:
    from psycopg import IsolationLevel

    use_schema(connection, schema)
    connection.commit()
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    connection.read_only = True


class Reading:
    """One read: everything in it sees the database as it was at its first question to it.

    A connection is taken then, and not while a question is still being encoded. Threads take turns.
    """

    def __init__(self, address: Address, pool: ConnectionPool[Connection[Any]]) -> None:
        self._address, self._pool = address, pool
        self._connection: Connection[Any] | None = None
        self._lock = RLock()

    @contextmanager
    def connection(self) -> Iterator[Connection[Any]]:
        """The connection, for one thread at a time."""
        with self._lock, told(self._address):
            if self._connection is None:
                self._connection = self._pool.getconn()
            yield self._connection

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            if self._connection is not None:
                connection, self._connection = self._connection, None
                with told(self._address):
                    if not connection.closed:
                        connection.rollback()
                    self._pool.putconn(connection)
