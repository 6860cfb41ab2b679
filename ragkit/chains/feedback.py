"""What people thought of answers, in an SQLite file that several processes may share, for `ragkit tidy` and for tuning."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ragkit.errors import InputError, RagkitError

if TYPE_CHECKING:
    from ragkit.chains.conversation import Turn

_MARK = 0x7261676E  # tells the file from any other database
_VERSION = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS ratings (
  turn TEXT PRIMARY KEY, time TEXT NOT NULL, rating INTEGER NOT NULL CHECK (rating IN (1, -1)),
  question TEXT NOT NULL, standalone TEXT NOT NULL, answer TEXT NOT NULL,
  shown TEXT NOT NULL, cited TEXT NOT NULL, judged TEXT NOT NULL
)
"""
# a vote for each passage that was judged, as `ragkit.care.votes` reads them; a view has no rowid but the one it names
_VIEW = """
CREATE VIEW IF NOT EXISTS feedback AS
SELECT ratings.rowid AS rowid, standalone AS question, passages.value AS passage, rating AS vote
FROM ratings, json_each(ratings.judged) AS passages
"""


class FeedbackLog:
    """Thumbs up and down, one row for each answer that somebody rated, in the table `ratings`.

    Each operation has a connection and a transaction of its own: threads and processes may share the file, and one that is
    killed leaves whole rows. The file is a feedback file of `ragkit tidy --feedback`: the view `feedback` holds a vote for
    each passage that was judged. Raises `RagkitError`, naming the file, if it is damaged, something else, or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self._open() as connection:
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            mark = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if tables and (mark, version) != (_MARK, _VERSION):
                raise RagkitError(f"path: {self.path} is a database, but no feedback log of this version; give another path")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA application_id = {_MARK}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute(_TABLE)
            connection.execute(_VIEW)
            connection.commit()

    def rate(self, turn: Turn, rating: Literal[1, -1], numbers: Sequence[int] | None = None) -> None:
        """Log what somebody thought of an answer: 1 if it helped, -1 if not. Rating a turn again replaces what was said before.

        `numbers` are those of the passages that it was about; None is all that the answer cites. Raises `InputError` for
        another rating, and for a number that the context did not give out.
        """
        if isinstance(rating, bool) or rating not in (1, -1):
            raise InputError(f"rating: must be 1 or -1, not {rating!r}")
        ids = {passage.n: passage.id for passage in turn.answer.context.passages}
        # also what an answer cites in vain: that is what a thumb down is about
        named = [n for claim in turn.answer.claims for n in claim.cited]
        cited = list(dict.fromkeys([*(ids[n] for n in named), *(citation.id for citation in turn.answer.citations)]))
        unknown = [n for n in numbers or () if n not in ids]
        if unknown:
            raise InputError(f"numbers: there is no passage {unknown[0]}; the answer was made from {len(ids)}")
        judged = cited if numbers is None else list(dict.fromkeys(ids[n] for n in numbers))
        row = (
            turn.id,
            datetime.now(UTC).isoformat(timespec="milliseconds"),
            rating,
            *map(_storable, (turn.question, turn.standalone, turn.answer.text)),
            *map(json.dumps, (list(ids.values()), cited, judged)),
        )
        with self._open() as connection, connection:
            connection.execute(f"INSERT OR REPLACE INTO ratings VALUES ({', '.join('?' * len(row))})", row)

    def rows(self) -> list[dict[str, Any]]:
        """All ratings, oldest first, by the names of the columns; `shown`, `cited` and `judged` are lists of passage ids."""
        with self._open() as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute("SELECT * FROM ratings ORDER BY rowid").fetchall()
        lists = ("shown", "cited", "judged")
        return [{name: json.loads(row[name]) if name in lists else row[name] for name in row.keys()} for row in found]  # noqa: SIM118

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60, isolation_level="IMMEDIATE")) as connection:
                yield connection
        except (sqlite3.Error, OSError, json.JSONDecodeError) as error:
            raise RagkitError(
                f"path: the feedback log {self.path} cannot be used: {error}; if it is damaged, delete it or give another path"
            ) from error


def _storable(text: str) -> str:
    """SQLite takes no lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")
