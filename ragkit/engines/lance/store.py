"""A store in LanceDB."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from threading import RLock
from typing import Any, Self

from ragkit.engines.base import EngineStore, Indexes
from ragkit.engines.lance import upkeep
from ragkit.engines.lance.draft import LanceDraft
from ragkit.engines.lance.place import Place, check_installed, connect, translated
from ragkit.engines.lance.snapshot import LanceSnapshot
from ragkit.engines.lance.tables import DATA, PUBLISHED, State, check, schemas
from ragkit.engines.lance.turns import LOCK, turn
from ragkit.errors import InputError, StaleSnapshotError, StoreError
from ragkit.store.loader import AnyEncoder
from ragkit.store.locking import locked
from ragkit.store.text_index import TextIndex

_log = logging.getLogger(__name__)
_TRIES = 10


class LanceStore(EngineStore):
    """Passages and their indexes in a LanceDB database, in a directory or in object storage; see `Place` for the URL.

    Readers see one published generation, whatever is written; `refresh` moves on. One writer at a time, in whatever process:
    another is refused with a `StoreError`. What a generation consisted of is kept until two later ones have been published.
    """

    def __init__(self, place: Place, connection: Any, indexes: Indexes) -> None:
        """Use `LanceStore.create` or `LanceStore.open` instead."""
        super().__init__(indexes)
        self._place, self._connection = place, connection
        self._lock = RLock()
        with translated(place):
            self._published = connection.open_table(PUBLISHED)
        self._snapshot: LanceSnapshot | None = self._latest()

    @classmethod
    def open(cls, url: str, *, encoder: AnyEncoder | Mapping[str, AnyEncoder] = None) -> Self:
        """See `EngineStore.open`."""
        check_installed()
        place = Place.parse(url)
        if not _there(place):
            raise StoreError(f"no index at {place.name}; build one with: ragkit index PATH --store URL")
        connection = connect(place)
        with translated(place):
            state = _read(place, connection.open_table(PUBLISHED))
        return cls(place, connection, Indexes(state.settings, encoder))

    @classmethod
    def create(cls, url: str, indexes: Mapping[str, TextIndex]) -> Self:
        """See `EngineStore.create`; makes the directory too. Other tables may be in the same database."""
        check_installed()
        place, made = Place.parse(url), Indexes.of(indexes)
        check(made)
        taken = InputError(f"there is already an index at {place.name}; open it, or choose another directory")
        if _there(place):
            raise taken
        connection = connect(place)
        if place.path is not None:
            with translated(place):
                place.path.mkdir(parents=True, exist_ok=True)
        with locked(place.path / LOCK, place.name) if place.path else nullcontext():
            if _there(place):
                raise taken
            state = State({name: dict(its) for name, its in made.settings.items()})
            layout = schemas(made)
            with translated(place):
                for name in DATA:
                    table = _created(connection, name, layout[name])
                    state.versions[name], state.times[name] = int(table.version), time.time()
                row = {"generation": state.generation, "state": state.to_json(), "writer": "", "until": 0.0}
                connection.create_table(PUBLISHED, [row], schema=layout[PUBLISHED])
        return cls(place, connection, made)

    @classmethod
    def exists(cls, url: str) -> bool:
        """See `EngineStore.exists`."""
        check_installed()
        return _there(Place.parse(url))

    @property
    def name(self) -> str:
        """See `BaseStore.name`."""
        return self._place.name

    @property
    def snapshot(self) -> LanceSnapshot:
        """See `BaseStore.snapshot`."""
        if self._snapshot is None:
            raise StoreError(f"{self.name} is closed; open it again")
        return self._snapshot

    def refresh(self) -> bool:
        """See `BaseStore.refresh`."""
        with self._lock:
            before, now = self.snapshot, self._latest()
            if now.state == before.state:
                return False
            self._snapshot = now
            return True

    @contextmanager
    def write(self) -> Iterator[LanceDraft]:
        """See `BaseStore.write`. Raises `StoreError` if another process is writing.

        Once the changes are published nothing is raised for want of cleaning up: it is logged, and left to the next writer.
        """
        with self._one_write():
            _ = self.snapshot  # closed, it takes no changes either
            with translated(self._place):
                published = self._connection.open_table(PUBLISHED)
            with turn(self._place, published) as mine:
                draft = LanceDraft(self._indexes, self._place, self._connection, self._state(published), mine)
                yield draft
                if draft.finish():
                    try:
                        upkeep.prune(self._place, published, time.time() - upkeep.ROW_SECONDS)
                    except StoreError:
                        _log.warning("published, but old versions are still there", exc_info=True)
            self.refresh()

    def close(self) -> None:
        """See `BaseStore.close`."""
        self._snapshot = None

    def discard(self) -> None:
        """See `BaseStore.discard`; the directory goes too, if nothing else is in it."""
        self.close()
        with translated(self._place):
            for name in (PUBLISHED, *DATA):
                self._connection.drop_table(name, ignore_missing=True)
        if self._place.path is not None:
            (self._place.path / LOCK).unlink(missing_ok=True)
            with suppress(OSError):
                self._place.path.rmdir()

    def _latest(self) -> LanceSnapshot:
        """The published generation. A writer may clean up between a look at the row and one at the tables, but not for long."""
        tries = 0
        while True:
            try:
                with self._lock:
                    state = self._state(self._published)
                return LanceSnapshot(self._indexes, self._place, self._connection, state)
            except StaleSnapshotError:
                tries += 1
                if tries == _TRIES:
                    raise

    def _state(self, published: Any) -> State:
        """What is published. Raises `StoreError` if the store was made anew with other indexes, or other encoders."""
        state = _read(self._place, published)
        if state.settings != self._indexes.settings:
            raise StoreError(f"{self.name} was made anew, with other indexes, after it was opened; open it again")
        return state


def _created(connection: Any, name: str, schema: Any) -> Any:
    """An empty table, in the place of one that somebody left who was interrupted while creating a store."""
    try:
        return connection.create_table(name, schema=schema)
    except ValueError as error:
        if "already exists" not in str(error):
            raise
        return connection.create_table(name, schema=schema, mode="overwrite")


def _read(place: Place, published: Any) -> State:
    with translated(place):
        published.checkout_latest()
        (row,) = published.search().select(["state"]).to_arrow().to_pylist() or [None]
    if row is None:
        raise StoreError(f"{place.name} is damaged: nothing says what is published; index again")
    return State.from_json(row["state"], place.name)


def _there(place: Place) -> bool:
    if place.path is not None and not (place.path / f"{PUBLISHED}.lance").is_dir():
        return False  # to connect would make the directory
    connection = connect(place)
    with translated(place):
        try:
            connection.open_table(PUBLISHED)
        except ValueError as error:
            if "was not found" in str(error):
                return False
            raise
    return True
