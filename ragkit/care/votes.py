"""A log of votes on passages: JSON lines, or a table of an SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ragkit.care.importance import Vote
from ragkit.errors import InputError
from ragkit.evaluation.datasets import read_jsonl

_MAGIC = b"SQLite format 3\0"


def read_votes(path: Path) -> list[Vote]:
    """The votes in a file, in order.

    A JSONL file has an object with `question`, `passage` (an id) and `vote` (1 or -1) on each line, an SQLite file a table
    `feedback` with these columns. Raises `InputError`, naming the file, if it cannot be read or holds something else.
    """
    try:
        with path.open("rb") as file:
            is_database = file.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise InputError(f"--feedback: cannot read {path}: {error.strerror or error}") from None
    rows = _from_database(path) if is_database else _from_lines(path)
    return [_vote(f"{path}, record {number}", row) for number, row in enumerate(rows, 1)]


def _from_lines(path: Path) -> Iterator[Any]:
    for record in read_jsonl(path, "--feedback"):
        if not isinstance(record, dict) or not {"question", "passage", "vote"} <= record.keys():
            raise InputError(f"--feedback: {path}: a record is no object with question, passage and vote: {str(record)[:80]}")
        yield record["question"], record["passage"], record["vote"]


def _from_database(path: Path) -> list[Any]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT question, passage, vote FROM feedback ORDER BY rowid").fetchall()
    except sqlite3.Error as error:
        raise InputError(
            f"--feedback: {path}: {error}; it needs a table feedback with the columns question, passage and vote"
        ) from None


def _vote(where: str, row: Any) -> Vote:
    question, passage, value = row
    if not isinstance(question, str) or not isinstance(passage, str) or isinstance(value, bool) or value not in (1, -1):
        raise InputError(f"--feedback: {where}: question and passage must be strings, and vote 1 or -1, not {row!r:.120}")
    return Vote(question, passage, int(value))
