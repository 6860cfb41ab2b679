"""Passages and their sources in SQLite, with every row valid for a range of generations.

A row is visible at generation g if it was born at or before g and had not died by g. A writer works at generation g + 1: what
it inserts is invisible to readers at g until the store's manifest says g + 1, and a writer that was killed leaves only rows
that the next writer discards. A `position` is the number by which indexes know a passage; it is given once and never reused,
and a passage whose text changes gets a new one, so an index never has to change a vector in place.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray

from ragkit.corpus.changes import Change, SourceText, plan_upsert
from ragkit.corpus.filters import Filter, compile_filter
from ragkit.corpus.patterns import Alternatives, Pattern
from ragkit.corpus.rows import Row, to_document
from ragkit.corpus.trigrams import Trigrams, check_available
from ragkit.documents.spans import Span
from ragkit.errors import InputError, StaleSnapshotError, StoreError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS passages (
  position INTEGER NOT NULL, born INTEGER NOT NULL, died INTEGER,
  id TEXT NOT NULL, digest TEXT NOT NULL, source TEXT, text TEXT NOT NULL, metadata TEXT NOT NULL, provenance TEXT);
CREATE INDEX IF NOT EXISTS passages_position ON passages (position);
CREATE INDEX IF NOT EXISTS passages_id ON passages (id);
CREATE INDEX IF NOT EXISTS passages_digest ON passages (digest);
CREATE INDEX IF NOT EXISTS passages_source ON passages (source);
CREATE INDEX IF NOT EXISTS passages_died ON passages (died) WHERE died IS NOT NULL;
CREATE TABLE IF NOT EXISTS sources (
  name TEXT NOT NULL, born INTEGER NOT NULL, died INTEGER,
  file TEXT NOT NULL, digest TEXT NOT NULL, text BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS sources_name ON sources (name);
CREATE INDEX IF NOT EXISTS sources_file ON sources (file);
CREATE INDEX IF NOT EXISTS sources_died ON sources (died) WHERE died IS NOT NULL;
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
_CHUNK = 900
_TRIGRAM_BATCH = 4_000_000  # characters in one transaction, which is as long as readers may have to wait

Positions = NDArray[np.int64]
T = TypeVar("T")

_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_FULL")
"""How the names of those errors begin that say nothing against a file."""


class Corpus:
    """Passages at one generation. Safe to read from several threads; write from one thread at a time.

    `path=None` keeps everything in memory. Reads see exactly the rows of `generation`; writes belong to it too, so a writer
    opens the corpus at the generation it is about to publish.
    """

    def __init__(self, path: Path | None, generation: int, *, writable: bool = False) -> None:
        """Open the database; a writer opens it at the generation that it will write, and may create it.

        Raises `StoreError` if it is missing or damaged, or if it does not hold the generation before (a reader: this one).
        """
        self.path, self.generation = path, generation
        self._lock = threading.RLock()
        self._index_trigrams = False
        try:
            if path is None:
                self._db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
            else:
                mode = "rwc" if writable else "rw"
                self._db = sqlite3.connect(
                    f"{path.absolute().as_uri()}?mode={mode}",
                    uri=True,
                    timeout=60,
                    check_same_thread=False,
                    isolation_level=None,
                )
            # the cache of a connection refers back to it: without this it would stay open until a full garbage collection
            weakref.finalize(self, self._db.close)
            self._trigrams = Trigrams(self._db)
            if path is None or writable:
                self._db.executescript(_SCHEMA)
            written = self._counter("written")
            if not writable:
                self._check_readable()
        except sqlite3.Error as error:
            passing = path is not None and path.exists() and getattr(error, "sqlite_errorname", "").startswith(_PASSING)
            fix = "see who may use it, and whether there is room" if passing else "delete the index directory and index again"
            raise StoreError(f"cannot read {path}: {error}; {fix}") from error
        if path is not None and written < generation - writable:
            raise StoreError(f"{path} is older than the manifest beside it; restore both from one backup, or index again")

    def close(self) -> None:
        """Release the database; later reads fail."""
        self._db.close()

    # -- reading ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of passages."""
        return int(self._rows(f"SELECT count(*) FROM passages WHERE {self._live}")[0][0])

    def documents(self, positions: Iterable[int]) -> list[Document]:
        """The passages at these positions, in this order. Raises `StoreError` if one is gone."""
        wanted = [int(position) for position in positions]
        if not wanted:
            self._rows("SELECT 1")  # finding nothing in a generation that is gone must not go unnoticed
        found = {
            position: (id_, text, metadata, record)
            for chunk in _chunks(wanted)
            for position, id_, text, metadata, record in self._rows(
                "SELECT position, id, text, metadata, provenance FROM passages "
                f"WHERE position IN ({','.join(map(str, chunk))}) AND {self._live}"
            )
        }
        missing = len(set(wanted) - found.keys())
        if missing:
            raise StoreError(f"{missing} passages that the indexes know are not in {self._name}; index again")
        return [to_document(*found[position]) for position in wanted]

    def get(self, ids: Sequence[str]) -> list[Document]:
        """The passages with these ids, in this order; unknown ids are left out, repeated ones given once."""
        rows = self._by_id(ids, "text, metadata, provenance")
        return [to_document(id_, *rows[id_]) for id_ in dict.fromkeys(ids) if id_ in rows]

    def all_positions(self) -> Positions:
        """Every live position, ascending."""
        return self._positions("", [])

    def allowed(self, filter: Filter) -> Positions:
        """Ascending positions of the passages that pass the filter.

        Raises `InputError` for a malformed filter, or one that names a metadata field which no passage has.
        """
        condition = compile_filter(filter)
        for field in dict.fromkeys(condition.fields):
            self.check_field(field, "filter")
        return self._positions(f" AND {condition.sql}", condition.parameters)

    def check_field(self, field: str, place: str) -> None:
        """Raise `InputError`, which begins with `place`, if there are passages but none with this metadata field."""
        known = self._rows(
            f"SELECT 1 FROM passages WHERE {self._live} AND EXISTS (SELECT 1 FROM json_each(metadata) WHERE key = ?) LIMIT 1",
            [field],
        )
        if known or not len(self):
            return
        fields = self._rows(f"SELECT DISTINCT key FROM passages, json_each(metadata) WHERE {self._live} ORDER BY key LIMIT 20")
        names = ", ".join(key for (key,) in fields) or "none"
        raise InputError(f"{place}: no passage has the metadata field {field!r}; known fields: {names}")

    def find(
        self, pattern: Pattern, allowed: Positions | None = None, seconds: float | None = None
    ) -> Iterator[tuple[int, list[Span]]]:
        """Every passage that the pattern matches, by ascending position, with the spans of all matches in its text.

        `allowed` are the positions to look at. Raises `InputError` if it takes longer than `seconds`; that is noticed between
        two passages, for nothing can interrupt a regular expression at work in one.
        """
        stop = None if seconds is None else time.monotonic() + seconds
        for chunk in _chunks(self._candidates(pattern.needs, allowed).tolist()):
            marks = ",".join(map(str, chunk))
            for position, text in self._rows(
                f"SELECT position, text FROM passages WHERE position IN ({marks}) AND {self._live} ORDER BY position"
            ):
                if stop is not None and time.monotonic() > stop:
                    raise InputError(f"pattern: took longer than {seconds:g} s; make it simpler, or allow more time")
                if spans := pattern.spans(text):
                    yield position, spans

    def source_text(self, name: str) -> str | None:
        """The decoded text that offsets into source `name` refer to; None if there is no such source."""
        rows = self._rows(f"SELECT text FROM sources WHERE name = ? AND {self._live}", [name])
        return zlib.decompress(rows[0][0]).decode("utf-8") if rows else None

    def sources(self) -> list[str]:
        """Names of all sources, sorted."""
        return [name for (name,) in self._rows(f"SELECT name FROM sources WHERE {self._live} ORDER BY name")]

    def file_digests(self) -> dict[str, str]:
        """Digest of every file that has sources here."""
        return dict(self._rows(f"SELECT DISTINCT file, digest FROM sources WHERE {self._live}"))

    def ids_of_file(self, file: str) -> list[str]:
        """Ids of the passages whose source came from `file`, in order of position."""
        return [
            id_
            for (id_,) in self._rows(
                f"SELECT id FROM passages WHERE source IN (SELECT name FROM sources WHERE file = ? AND {self._live}) "
                f"AND {self._live} ORDER BY position",
                [file],
            )
        ]

    def positions_of_source(self, source: str) -> list[int]:
        """Positions of the passages of a source, in the order of its text."""
        rows = self._rows(
            f"SELECT position FROM passages WHERE source = ? AND {self._live} "
            "ORDER BY json_extract(provenance, '$.start'), position",
            [source],
        )
        return [position for (position,) in rows]

    # -- writing ------------------------------------------------------------------------------------------------------

    def plan(self, documents: Sequence[Document]) -> Change:
        """What an upsert of these documents would change; writes nothing but reserves positions.

        A document may be given twice. Raises `InputError` for different ones with the same id, and for metadata that JSON cannot
        hold exactly.
        """
        columns = f"position, {', '.join(Row._fields[1:])}"
        return plan_upsert(documents, lambda ids: self._by_id(ids, columns), self._twins, self._reserve)

    def apply(self, change: Change) -> None:
        """Write what `plan` found to be different."""
        with self._transaction():
            for _, row in change.rows:
                self._retire("passages", "id", row.id)
            self._db.executemany(
                f"INSERT INTO passages (born, position, {', '.join(Row._fields)}) "
                f"VALUES ({', '.join('?' * (2 + len(Row._fields)))})",
                [(self.generation, position, *row) for position, row in change.rows],
            )

    def delete(self, ids: Sequence[str]) -> Change:
        """Forget the passages with these ids; unknown ids are ignored."""
        known = self._by_id(ids, "position")
        gone = [id_ for id_ in dict.fromkeys(ids) if id_ in known]
        with self._transaction():
            for id_ in gone:
                self._retire("passages", "id", id_)
        return Change(gone, [], [], [known[id_][0] for id_ in gone])

    def replace_sources(self, sources: Mapping[str, Sequence[SourceText]]) -> None:
        """For each file, make these its sources, in place of those it had. No sources forgets the file."""
        with self._transaction():
            for file in sources:
                self._retire("sources", "file", file)
            self._db.executemany(
                "INSERT INTO sources (name, file, digest, text, born) VALUES (?, ?, ?, ?, ?)",
                [
                    (source.name, file, source.digest, zlib.compress(source.text.encode("utf-8"), 3), self.generation)
                    for file, its_sources in sources.items()
                    for source in its_sources
                ],
            )

    def index_trigrams(self) -> bool:
        """From the sealing of this generation on, keep a trigram index; returns whether there is none yet that knows all rows.

        A corpus in memory has none: `find` reads every passage there. Raises `StoreError` if SQLite cannot do that.
        """
        check_available()
        if self.path is None:
            return False
        self._index_trigrams = True
        with self._transaction():
            return self._trigrams.foreign or bool(self._beyond(self._trigrams.known).fetchone())

    def seal(self, oldest: int) -> None:
        """Mark this generation as written whole, and remove rows that no reader at `oldest` or later can see."""
        self._add_trigrams()
        with self._transaction():
            self._remove(f"died <= {oldest}")
            self._set("oldest", oldest)
            self._set("written", self.generation)

    def discard_after(self, generation: int) -> None:
        """Undo what a writer of a later, never published generation left behind."""
        with self._transaction():
            self._set("written", generation)
            self._set("oldest", min(self._counter("oldest"), generation))
            self._remove(f"born > {generation}")
            for table in ("passages", "sources"):
                self._db.execute(f"UPDATE {table} SET died = NULL WHERE died > ?", (generation,))

    # -- inside -------------------------------------------------------------------------------------------------------

    @property
    def _live(self) -> str:
        return f"(born <= {self.generation} AND (died IS NULL OR died > {self.generation}))"

    @property
    def _name(self) -> str:
        return "the corpus" if self.path is None else str(self.path)

    def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with self._reading():
            return self._db.execute(sql, parameters).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            nested = False
            try:
                nested = self._db.in_transaction
                if not nested:
                    self._db.execute("BEGIN")  # the check and the queries must see the same state
                self._check_readable()
                yield
            except sqlite3.Error as error:
                raise StoreError(f"cannot read {self._name}: {error}") from error
            except UnicodeEncodeError as error:
                raise InputError(f"{error.object!r} holds half of a surrogate pair, as no id and no source does") from None
            finally:
                self._leave(nested)

    def _leave(self, nested: bool) -> None:
        try:
            if not nested and self._db.in_transaction:
                self._db.execute("COMMIT")
        except sqlite3.ProgrammingError:  # the database is closed, which whoever asked has been told
            pass

    def _check_readable(self) -> None:
        if self._counter("oldest") > self.generation:
            raise StaleSnapshotError(f"generation {self.generation} of {self._name} has been replaced; open the index again")

    def _positions(self, condition: str, parameters: Sequence[Any]) -> Positions:
        rows = self._rows(f"SELECT position FROM passages WHERE {self._live}{condition} ORDER BY position", parameters)
        return np.fromiter((position for (position,) in rows), np.int64, len(rows))

    def _candidates(self, needs: Alternatives, allowed: Positions | None) -> Positions:
        """Ascending positions where a match may be: at least all those where one is; some may not be live."""
        with self._reading():
            known = self._trigrams.known
            found = self._trigrams.candidates(needs) if known else None
            if found is None:
                positions = self._positions("", [])
            else:
                positions = np.concatenate([np.asarray(found, np.int64), self._positions(" AND position >= ?", [known])])
        return positions if allowed is None else np.intersect1d(positions, allowed, assume_unique=True)

    def _add_trigrams(self) -> None:
        """In several transactions: until the last is done, what is missing still counts as unknown."""
        if not (self._index_trigrams or self._trigrams.writable):
            return
        with self._transaction():
            if self._trigrams.foreign:
                self._trigrams.create()
        more = True
        while more:
            with self._transaction():
                batch, size = [], 0
                for position, *row in self._beyond(self._trigrams.known):
                    batch.append((position, Row(*row).indexed.whole))
                    size += len(batch[-1][1])
                    if size >= _TRIGRAM_BATCH:
                        break
                more = bool(batch)
                if more:
                    self._trigrams.add(batch, batch[-1][0] + 1)

    def _beyond(self, known: int) -> sqlite3.Cursor:
        columns = ", ".join(Row._fields)
        return self._db.execute(
            f"SELECT position, {columns} FROM passages WHERE position >= ? GROUP BY position ORDER BY position", (known,)
        )

    def _remove(self, condition: str) -> None:
        """Delete rows of passages and sources; the trigrams of a position go with its last row."""
        if self._trigrams.writable and not self._trigrams.foreign:
            survivor = f"SELECT 1 FROM passages WHERE position = doomed.position AND ({condition}) IS NOT TRUE"
            last = self._db.execute(
                f"SELECT position, {', '.join(Row._fields)} FROM passages AS doomed "
                f"WHERE {condition} AND position < ? AND NOT EXISTS ({survivor}) GROUP BY position",
                (self._trigrams.known,),
            )
            self._trigrams.remove((position, Row(*row).indexed.whole) for position, *row in last)
        for table in ("passages", "sources"):
            self._db.execute(f"DELETE FROM {table} WHERE {condition}")

    def _by_id(self, ids: Sequence[str], columns: str) -> dict[str, tuple[Any, ...]]:
        found: dict[str, tuple[Any, ...]] = {}
        for chunk in _chunks(ids):
            marks = ",".join("?" * len(chunk))
            for id_, *values in self._rows(f"SELECT id, {columns} FROM passages WHERE id IN ({marks}) AND {self._live}", chunk):
                found[id_] = tuple(values)
        return found

    def _twins(self, digests: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for chunk in _chunks(digests):
            marks = ",".join("?" * len(chunk))
            # live rows only: the vector of a row that died earlier may be gone from the indexes
            found |= dict(
                self._rows(
                    f"SELECT digest, min(position) FROM passages WHERE digest IN ({marks}) AND {self._live} GROUP BY digest",
                    chunk,
                )
            )
        return found

    def _reserve(self, count: int) -> int:
        with self._transaction():
            first = self._counter("position")
            self._set("position", first + count)
        return first

    def _counter(self, name: str) -> int:
        rows = self._db.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchall()
        return int(rows[0][0]) if rows else 0

    def _set(self, name: str, value: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", (name, value))

    def _retire(self, table: str, column: str, value: str) -> None:
        self._db.execute(f"DELETE FROM {table} WHERE {column} = ? AND born = ?", (value, self.generation))
        self._db.execute(f"UPDATE {table} SET died = ? WHERE {column} = ? AND died IS NULL", (self.generation, value))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise StoreError(f"cannot write {self._name}: {error}") from error
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
