"""Connections to a PostgreSQL server, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import RLock
from typing import TYPE_CHECKING, Any

from ragkit.engines.postgres.address import Address
from ragkit.errors import MissingExtraError, StoreError

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg_pool import ConnectionPool

_READERS = 16
ASYNC_READERS = 12
"""Reads of an event loop at a time. Each holds a connection and needs a thread for its next step, so that threads that wait for
connections must never be all there are; the other connections are for reads that have a thread of their own."""
_SECONDS = 30.0
_CANCEL, _BETWEEN = 5.0, 0.02  # seconds: for asking the server to drop a statement, and until it is asked again
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
def translated(address: Address) -> Iterator[None]:
    """Raises the server's errors as `StoreError`s of one line, without the password."""
    import psycopg
    from psycopg_pool import PoolClosed, PoolTimeout

    try:
        yield
    except PoolClosed:
        raise StoreError(f"{address.name} is closed; open it again") from None
    except PoolTimeout:
        connect(address).close()  # it may say why there was none
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

    with translated(address):
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


def table_number(connection: Connection[Any]) -> int | None:
    """The server's number for a store's first table: one that is made anew has another. None if there is none.

    The question keeps the table from being deleted until the transaction ends.
    """
    from psycopg.errors import UndefinedTable

    with suppress(UndefinedTable):
        (number,) = connection.execute("SELECT tableoid::bigint FROM ragkit_store").fetchone() or (None,)
        return number
    return None


def check_table(connection: Connection[Any], address: Address, number: int | None) -> None:
    """Raise `StoreError` if the schema's store is not the one whose `table_number` was this.

    Another one would have other encoders. And where there is none any more, the names of its tables may be found in the schema
    of pgvector, and be those of a store that this one's users must not see.
    """
    if table_number(connection) != number:
        raise StoreError(f"{address.name} was deleted, or made anew, after it was opened; open it again")


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

    def __init__(self, address: Address, pool: ConnectionPool[Connection[Any]], number: int | None) -> None:
        """`number` is the store's `table_number`."""
        self._address, self._pool, self._number = address, pool, number
        self._connection: Connection[Any] | None = None
        self._closed = False
        self._lock = RLock()

    @contextmanager
    def connection(self) -> Iterator[Connection[Any]]:
        """The connection, for one thread at a time. Raises `StoreError` after the end."""
        with self._lock, translated(self._address):
            if self._connection is None and not self._closed:
                self._connection = self._pool.getconn()
                try:
                    check_table(self._connection, self._address, self._number)
                except BaseException:
                    self.close()
                    raise
            if self._closed or self._connection is None:
                raise StoreError(f"{self._address.name}: this read has ended")
            yield self._connection

    def close(self) -> None:
        """Give the connection back, once nobody is using it."""
        with self._lock:
            self._closed = True
            if self._connection is not None:
                connection, self._connection = self._connection, None
                with translated(self._address):
                    if not connection.closed:
                        connection.rollback()
                    self._pool.putconn(connection)

    def abandon(self) -> None:
        """Give the connection back at once: the server drops the statement that it is at."""
        import psycopg

        self._closed = True
        # again, should the first time be between two statements
        while not self._lock.acquire(timeout=_BETWEEN):
            if (connection := self._connection) is not None:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=_CANCEL)
        try:
            self.close()
        finally:
            self._lock.release()
