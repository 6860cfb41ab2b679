"""A table of answers in an SQLite file, which threads and processes may share."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ragkit.errors import RagkitError

_OURS = 0x7261676C  # "ragl": marks the file, so that no other database is taken for a cache
_VERSION = 1
_AT_ONCE = 500  # variables in one statement


class AnswerTable:
    """Keys to JSON values. Each operation has a connection of its own, so a fork or a thread needs no care.

    Raises `RagkitError`, naming the file, if it is damaged, something else, or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self._open() as connection:
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            mark = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if tables and (mark, version) != (_OURS, _VERSION):
                raise RagkitError(f"path: {self.path} is a database, but no answer cache of this version; give another path")
            connection.execute(f"PRAGMA application_id = {_OURS}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values of those keys that are there."""
        rows: list[tuple[str, str]] = []
        with self._open() as connection:
            for start in range(0, len(keys), _AT_ONCE):
                part = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                rows += connection.execute(f"SELECT key, value FROM answers WHERE key IN ({marks})", part)
            return {key: json.loads(value) for key, value in rows}

    def put(self, values: Mapping[str, Any]) -> None:
        """Add values, in one transaction; a key that is there keeps what it has."""
        with self._open() as connection:
            rows = [(key, json.dumps(value)) for key, value in values.items()]
            connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)

    def __len__(self) -> int:
        with self._open() as connection:
            count: int = connection.execute("SELECT count(*) FROM answers").fetchone()[0]
        return count

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
                yield connection
        except (sqlite3.Error, OSError, json.JSONDecodeError) as error:
            raise RagkitError(
                f"path: the answer cache {self.path} cannot be used: {error}; if it is damaged, delete it or give another path"
            ) from error
