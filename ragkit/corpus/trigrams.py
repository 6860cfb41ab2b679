"""Which passages contain a string: an optional full-text table of trigrams in the corpus's database.

A position's indexed text never changes and the position is never given again, so the table needs no generations: it knows every
position below a watermark, which moves on in small transactions when a generation is sealed, and a reader looks the candidates
up among the live rows of its own generation. Positions above the watermark are candidates, always. So a table that lags behind,
after a kill or a writer without the extension, costs time and never a result.

The table holds no text (FTS5, contentless) and of each trigram only where it occurs (detail=none). Texts are folded before
they are indexed, more coarsely than any search ignores case, and candidates are verified on the text itself.
"""

from __future__ import annotations

import sqlite3
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import cache

from ragkit.corpus.patterns import Alternatives
from ragkit.errors import StoreError

_TABLE = (
    "CREATE VIRTUAL TABLE trigrams USING fts5(text, content='', columnsize=0, detail=none, tokenize='trigram case_sensitive 1')"
)
# characters that are new in a version of Unicode fold differently in it, and a row is deleted by the trigrams it was added with
_FOLDING = int(unicodedata.unidata_version.replace(".", ""))
_MOST_TRIGRAMS = 64


def check_available() -> None:
    """Raise `StoreError` if this Python's SQLite has no trigram index."""
    problem = _problem()
    if problem:
        raise StoreError(
            f"the index for exact search needs SQLite >= 3.34 with FTS5; this Python has {sqlite3.sqlite_version} ({problem}): "
            "use another Python, or go without that index, which only makes exact search slower"
        )


class Trigrams:
    """The table of one database; every method belongs in a transaction of the caller's."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """`db` may or may not have the table."""
        self._db = db

    @property
    def writable(self) -> bool:
        """Whether there is a table, and this Python can write it."""
        return bool(self._counter("folding")) and not _problem()

    @property
    def foreign(self) -> bool:
        """Whether there is no table, or one made under another version of Unicode: one must be created."""
        return self._counter("folding") != _FOLDING

    @property
    def known(self) -> int:
        """Every position below this one is in the table; 0 if there is no table that this Python can use."""
        return self._counter("trigrams") if self._counter("folding") == _FOLDING and not _problem() else 0

    def create(self) -> None:
        """Make the table, empty; one that is there already is emptied."""
        self._db.execute("DROP TABLE IF EXISTS trigrams")
        self._db.execute(_TABLE)
        self._set("folding", _FOLDING)
        self._set("trigrams", 0)

    def add(self, rows: Iterable[tuple[int, str]], known: int) -> None:
        """Add texts by position, each position once; from now on the table knows all positions below `known`."""
        self._db.executemany("INSERT INTO trigrams (rowid, text) VALUES (?, ?)", ((at, fold(text)) for at, text in rows))
        self._set("trigrams", known)

    def remove(self, rows: Iterable[tuple[int, str]]) -> None:
        """Forget positions below `known`; the text must be the one that was added."""
        self._db.executemany(
            "INSERT INTO trigrams (trigrams, rowid, text) VALUES ('delete', ?, ?)", ((at, fold(text)) for at, text in rows)
        )

    def candidates(self, needs: Alternatives) -> list[int] | None:
        """The positions below `known`, ascending, that may hold what `needs` asks for; None if that cannot be told."""
        query = _query(needs)
        if query is None:
            return None
        return [at for (at,) in self._db.execute("SELECT rowid FROM trigrams WHERE trigrams MATCH ? ORDER BY rowid", (query,))]

    def _counter(self, name: str) -> int:
        row = self._db.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def _set(self, name: str, value: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", (name, value))


def fold(text: str) -> str:
    """The text as it is indexed. Where a search takes two characters for the same, this makes them the same; it goes character
    by character, so if a text contains a string, its fold contains the string's.

    `re.IGNORECASE` takes i for the dotless and for the dotted İ, of which casefold makes an i with a combining dot. A NUL would
    end the text for SQLite.
    """
    return text.casefold().replace("\u0307", "").replace("ı", "i").replace("\0", "\1")


def _query(needs: Alternatives) -> str | None:
    alternatives = [_trigrams(literals) for literals in needs]
    if not all(alternatives) or sum(map(len, alternatives)) > _MOST_TRIGRAMS:
        return None
    return " OR ".join(f"({' AND '.join(map(_quoted, trigrams))})" for trigrams in alternatives)


def _trigrams(literals: Sequence[str]) -> list[str]:
    """Trigrams of the literals: all of a short one, every third of a long one, where more cost more than they spare."""
    chosen: dict[str, None] = {}
    for literal in map(fold, literals):
        count = len(literal) - 2
        if count > 0:
            starts = (*range(0, count - 1, min(3, max(1, count // 8))), count - 1)
            chosen |= dict.fromkeys(literal[start : start + 3] for start in starts)
    return list(chosen)[:_MOST_TRIGRAMS]


def _quoted(trigram: str) -> str:
    # no passage holds a lone surrogate, so whatever stands for it finds nothing that counts
    text = trigram.encode("utf-8", "replace").decode("utf-8").replace('"', '""')
    return f'"{text}"'


@cache
def _problem() -> str:
    with closing(sqlite3.connect(":memory:")) as db:
        try:
            db.execute(_TABLE)
        except sqlite3.Error as error:
            return str(error)
    return ""
