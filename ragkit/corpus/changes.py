"""What an upsert changes, found without writing anything: the same for every place that passages are kept in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.documents import Document

from ragkit.corpus.rows import IndexedText, Row, to_row
from ragkit.documents.provenance import SCORE_KEY, content_id, ensure_id
from ragkit.errors import InputError


class Addition(NamedTuple):
    """A passage that the indexes must learn: `twin` is a known position with the same indexed text, if there is one."""

    position: int
    text: IndexedText
    twin: int | None


class Change(NamedTuple):
    """What an upsert or delete touches: ids in the order given, rows to write by position, and what it means for the indexes."""

    ids: list[str]
    rows: list[tuple[int, Row]]
    additions: list[Addition]
    removed: list[int]


class SourceText(NamedTuple):
    """A decoded source: its name, a digest of the file it came from and of how that was read, and its text."""

    name: str
    digest: str
    text: str


def plan_upsert(
    documents: Sequence[Document],
    known: Callable[[Sequence[str]], Mapping[str, tuple[Any, ...]]],
    twins: Callable[[Sequence[str]], Mapping[str, int]],
    reserve: Callable[[int], int],
) -> Change:
    """What an upsert of these documents would change.

    `known` gives what is stored under these ids, as (position, digest, source, text, metadata, provenance), each as in a `Row`;
    `twins` the lowest position with each of these digests; `reserve` the first of so many new positions. A document may be
    given twice. Raises `InputError` for different ones with the same id, and for metadata that JSON cannot hold exactly.
    """
    rows: dict[str, Row] = {}
    for row in map(to_row, map(ensure_id, documents)):
        if row.id in rows and _content(row) != _content(rows[row.id]):
            raise InputError(
                f"documents: two of them have the id {row.id!r}, and different text or metadata; give each an id of its own"
            )
        rows[row.id] = row
    stored = known(list(rows))
    fresh = [row for row in rows.values() if row.id not in stored or stored[row.id][1] != row.digest]
    alike = twins([row.digest for row in fresh])
    first = reserve(len(fresh))
    new = {row.id: first + n for n, row in enumerate(fresh)}
    different = []
    for row in rows.values():
        position = new[row.id] if row.id in new else stored[row.id][0]
        if stored.get(row.id) != (position, *row[1:]):
            different.append((position, row))
    return Change(
        list(rows),
        different,
        [Addition(new[row.id], row.indexed, alike.get(row.digest)) for row in fresh],
        [stored[row.id][0] for row in fresh if row.id in stored],
    )


def _content(row: Row) -> str:
    """A hash of what documents without an id get theirs from, so that two of these which have the same one are no conflict."""
    metadata = json.loads(row.metadata)
    return content_id(row.text, {key: value for key, value in metadata.items() if key != SCORE_KEY})
