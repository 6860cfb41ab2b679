"""A store in PostgreSQL: the tables of one schema, read in transactions that see one state, written in one that sees all."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, CancelledError, Semaphore
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ragkit.engines.base import EngineStore, Indexes
from ragkit.engines.postgres import tables
from ragkit.engines.postgres.address import Address
from ragkit.engines.postgres.connections import (
    ASYNC_READERS,
    Reading,
    check_installed,
    check_table,
    connect,
    readers,
    table_number,
    translated,
    use_schema,
)
from ragkit.engines.postgres.draft import PostgresDraft
from ragkit.engines.postgres.snapshot import PostgresSnapshot
from ragkit.errors import InputError, StoreError
from ragkit.store.loader import AnyEncoder
from ragkit.store.text_index import TextIndex

if TYPE_CHECKING:
    from psycopg import Connection

T = TypeVar("T")

_ENDERS = 4  # threads


class PostgresStore(EngineStore):
    """Passages and their indexes in one schema of a database, for any number of readers and writers.

    Each `read` sees the database as it was at its first question to it. Writers, of this process and others, take turns; what one
    writes is seen by readers when its `write` ends, all at once, and by nobody if it raises.
    """

    def __init__(self, address: Address, indexes: Indexes, number: int | None) -> None:
        """Use `PostgresStore.create` or `PostgresStore.open` instead."""
        super().__init__(indexes)
        self._address, self._number = address, number
        self._pool = readers(address)
        self._snapshot = PostgresSnapshot(indexes, self._connection)
        self._turns: dict[AbstractEventLoop, Semaphore] = {}
        self._turning = Lock()
        # threads of its own: those of the event loop may all be waiting for what is to be ended. They last as long as the store
        self._enders = ThreadPoolExecutor(_ENDERS, "ragkit-postgres")

    @classmethod
    def open(cls, url: str, *, encoder: AnyEncoder | Mapping[str, AnyEncoder] = None) -> Self:
        """See `EngineStore.open`."""
        check_installed()
        address = Address.parse(url)
        with connect(address) as connection, translated(address):
            if not tables.exist(connection, address.schema):
                raise StoreError(f"no index at {address.name}; build one with: ragkit index PATH --store URL")
            use_schema(connection, address.schema)
            settings, number = tables.read_settings(connection, address.name), table_number(connection)
        return cls(address, Indexes(settings, encoder), number)

    @classmethod
    def create(cls, url: str, indexes: Mapping[str, TextIndex]) -> Self:
        """See `EngineStore.create`; makes the schema too, if it is not there yet."""
        from psycopg import errors
        from psycopg.sql import SQL, Identifier

        check_installed()
        address, made = Address.parse(url), Indexes.of(indexes)
        with connect(address) as connection, translated(address):
            encoding = connection.info.parameter_status("server_encoding")
            if encoding != "UTF8":
                raise StoreError(f"{address.name}: the database has encoding {encoding}; make one with encoding UTF8")
            try:
                with connection.transaction():
                    if not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [address.schema]).fetchone():
                        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(address.schema)))
                    if tables.exist(connection, address.schema):
                        raise InputError(f"there is already an index at {address.name}; open it, or choose another schema")
                    tables.create(connection, address, made)
                    number = table_number(connection)
            except (errors.UniqueViolation, errors.DuplicateTable, errors.DuplicateSchema):
                # of two that create one at the same time
                raise InputError(f"there is already an index at {address.name}; open it, or choose another schema") from None
        return cls(address, made, number)

    @classmethod
    def exists(cls, url: str) -> bool:
        """See `EngineStore.exists`."""
        check_installed()
        address = Address.parse(url)
        with connect(address) as connection, translated(address):
            return tables.exist(connection, address.schema)

    @property
    def name(self) -> str:
        """See `BaseStore.name`."""
        return self._address.name

    @property
    def snapshot(self) -> PostgresSnapshot:
        """See `BaseStore.snapshot`: each question to it sees what is published then."""
        return self._snapshot

    def refresh(self) -> bool:
        """See `BaseStore.refresh`; there is nothing to move on to, for every read sees what is published."""
        return False

    def read(self, use: Callable[[Any], T]) -> T:
        """See `BaseStore.read`; in one transaction."""
        reading = Reading(self._address, self._pool, self._number)
        try:
            return use(PostgresSnapshot(self._indexes, reading.connection))
        finally:
            reading.close()

    async def aread(self, use: Callable[[Any], Awaitable[T]]) -> T:
        """See `BaseStore.aread`; in one transaction. Cancelled, it has the server drop what it is at."""
        async with self._turn():
            reading = Reading(self._address, self._pool, self._number)
            end = reading.close
            try:
                return await use(PostgresSnapshot(self._indexes, reading.connection))
            except CancelledError:
                end = reading.abandon
                raise
            finally:
                # whoever is cancelled twice does not wait, but the connection is given back all the same
                await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._enders, end))

    @contextmanager
    def write(self) -> Iterator[PostgresDraft]:
        """See `BaseStore.write`; waits until other writers have finished."""
        with self._one_write(), connect(self._address) as connection:
            with translated(self._address):
                use_schema(connection, self._address.schema)
                # a model may take its time between two statements
                connection.execute("SET idle_in_transaction_session_timeout = 0")
                connection.execute("BEGIN")
                check_table(connection, self._address, self._number)
                draft = PostgresDraft(self._indexes, self._address, connection)
            yield draft  # what the caller's own database raises is not ours; after an error the connection rolls back
            with translated(self._address):
                draft.finish()
                connection.commit()

    def close(self) -> None:
        """See `BaseStore.close`."""
        self._pool.close()

    def discard(self) -> None:
        """See `BaseStore.discard`; the schema goes too, if nothing else is in it."""
        self.close()
        with connect(self._address) as connection, translated(self._address), connection.transaction():
            use_schema(connection, self._address.schema)
            check_table(connection, self._address, self._number)
            tables.drop(connection, self._address.schema)

    def _turn(self) -> Semaphore:
        """What the reads of the running event loop wait for."""
        with self._turning:
            for loop in [loop for loop in self._turns if loop.is_closed()]:
                del self._turns[loop]
            return self._turns.setdefault(asyncio.get_running_loop(), Semaphore(ASYNC_READERS))

    @contextmanager
    def _connection(self) -> Iterator[Connection[Any]]:
        reading = Reading(self._address, self._pool, self._number)
        try:
            with reading.connection() as connection:
                yield connection
        finally:
            reading.close()
