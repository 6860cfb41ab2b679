"""What keeps the tables fast and small: compaction, LanceDB's own indexes, and the removal of versions nobody reads any more.

It is done by a writer, before it publishes, once there were 32 writes since the last time, or more than a tenth of all passages
(and than 10,000) have changed. What an index does not know yet LanceDB finds by reading it, so nothing is ever missing.
"""

from __future__ import annotations

import time
from datetime import timedelta
from math import isqrt
from typing import Any

import numpy as np

from ragkit.engines.base import Indexes
from ragkit.engines.lance.place import Place, translated
from ragkit.engines.lance.reading import Tables, numbers
from ragkit.engines.lance.tables import DATA, PASSAGES, TERMS, State, wants_lists
from ragkit.store.text_index import DenseIndex, LexicalIndex

WORDS_FROM = 50_000
"""Passages from which on a full-text index proposes the candidates of BM25."""
LOOKUP_FROM = 50_000
"""Passages from which on positions, ids, digests and sources are looked up in B-trees."""
ROW_SECONDS = 60.0
"""How long old versions of the row that says what is published are kept, for readers that are just looking at it."""
_WRITES = 32
_CHANGED, _SHARE = 10_000, 0.1
_GROWTH = 4  # a vector index is built anew when there are so many times the passages that it was built for
_LEAST_PROBES = 16
_SLACK = 1.0  # seconds that the clocks of two writers may differ
_LOOKED_UP = {PASSAGES: ("position", "key", "digest", "source_key"), TERMS: ("term",)}


def due(state: State) -> bool:
    """Whether it is time."""
    return state.writes >= _WRITES or state.changed > max(_CHANGED, _SHARE * state.passages)


def lists(count: int) -> int:
    """How many inverted lists a vector index over so many passages has."""
    return max(isqrt(count), 1)


def probes(count: int) -> int:
    """How many of its lists are searched."""
    return max(lists(count) // 4, _LEAST_PROBES)


def put_in_order(place: Place, tables: Tables, indexes: Indexes, state: State, kept: dict[str, float]) -> None:
    """Compact and index the tables at their latest version, and remove versions from before the times in `kept`, by table."""
    if _compact_terms(place, tables):
        state.indexed.pop("term", None)  # an index does not outlive the rows that it was built for
    _build(place, tables, indexes, state)
    for name in DATA:
        prune(place, tables[name], kept[name])
    state.writes = state.changed = 0


def prune(place: Place, table: Any, kept: float) -> None:
    """Compact a table, bring its indexes up to date, and remove its versions from before a time, in seconds."""
    age = timedelta(seconds=max(time.time() - kept, 0.001) + _SLACK)
    with translated(place):
        # nobody else writes while the lock is held, so a file that no version has is one that a killed writer left
        table.optimize(cleanup_older_than=age, delete_unverified=place.path is not None)


def _build(place: Place, tables: Tables, indexes: Indexes, state: State) -> None:
    from lancedb.index import FTS, BTree, IvfSq

    wanted: dict[tuple[str, str], Any] = {}
    if state.passages >= LOOKUP_FROM:
        wanted.update({(table, column): BTree() for table, columns in _LOOKED_UP.items() for column in columns})
    for number, name in enumerate(indexes.settings):
        if indexes.settings[name]["kind"] == LexicalIndex.kind and state.passages >= WORDS_FROM:
            # the terms are analysed already: what separates them is all it has to know
            wanted[PASSAGES, f"words_{number}"] = FTS(
                base_tokenizer="whitespace",
                lower_case=False,
                stem=False,
                remove_stop_words=False,
                ascii_folding=False,
                max_token_length=None,
            )
        if indexes.settings[name]["kind"] == DenseIndex.kind:
            index = indexes[name]
            assert isinstance(index, DenseIndex)
            column = f"vector_{number}"
            if state.passages >= _GROWTH * state.indexed.get(column, 0) and wants_lists(index, state.passages):
                state.indexed.pop(column, None)
                wanted[PASSAGES, column] = IvfSq(distance_type="dot", num_partitions=lists(state.passages))
    for (table, column), config in wanted.items():
        if column not in state.indexed:
            with translated(place):
                tables[table].create_index(column, config=config, replace=True)
            state.indexed[column] = state.passages


def _compact_terms(place: Place, tables: Tables) -> bool:
    """Add the changes of each term up, once there are twice as many as terms; returns whether that was so."""
    import pyarrow as pa

    changes = tables.arrow(TERMS, ["number", "term", "documents"])
    keys = np.stack([numbers(changes["number"]).astype(np.int64), numbers(changes["term"])], axis=1)
    known, place_of = np.unique(keys, axis=0, return_inverse=True)
    if 2 * len(known) > len(keys):
        return False
    counts = np.bincount(place_of.ravel(), numbers(changes["documents"]), len(known)).astype(np.int64)
    left = counts > 0
    columns = [known[left, 0].astype(np.int32), known[left, 1], counts[left]]
    with translated(place):
        tables[TERMS].add(pa.table(list(map(pa.array, columns)), schema=changes.schema), mode="overwrite")
    return True
