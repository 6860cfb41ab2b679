"""What a writer does to a store in LanceDB before it is published."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragkit.corpus.changes import Change, SourceText
from ragkit.engines.base import EngineDraft, Indexes, Seen
from ragkit.engines.lance import upkeep
from ragkit.engines.lance.place import Place, translated
from ragkit.engines.lance.reading import Tables, lists, numbers
from ragkit.engines.lance.rows import columns_of, passages_of
from ragkit.engines.lance.tables import DATA, PASSAGES, SOURCES, STORED, TERMS, State, among_each, key_of
from ragkit.engines.lance.tables import numbers as numbered
from ragkit.engines.lance.turns import Turn
from ragkit.errors import StoreError
from ragkit.indexes.base import Positions
from ragkit.store.text_index import DenseIndex, LexicalIndex


class LanceDraft(EngineDraft):
    """Every change is a version of a table at once, but no reader looks at versions that are not published."""

    def __init__(self, indexes: Indexes, place: Place, connection: Any, state: State, turn: Turn) -> None:
        """Undoes what a writer left that never published."""
        super().__init__(indexes, state.split)
        self._place, self._turn = place, turn
        self._started = time.time()
        self._kept = dict(state.times)
        self._state = copy.deepcopy(state)
        self._tables = Tables(place, connection)
        self._numbers = numbered(indexes.settings)
        self._terms: Counter[tuple[int, int]] = Counter()
        self._touched = False
        self._versions: dict[str, int] = {}
        for table in DATA:
            self._go_back(table, state.versions[table])

    def __len__(self) -> int:
        return self._state.passages

    def delete(self, ids: Sequence[str]) -> list[str]:
        """See `BaseDraft.delete`."""
        rows = self._by_key("key", ids, ["id", "position"])
        known = {row["id"]: row["position"] for row in rows}
        gone = [id_ for id_ in dict.fromkeys(ids) if id_ in known]
        positions = [known[id_] for id_ in gone]
        if positions:
            counted = self._counted(positions)
            self._exchange(PASSAGES, "position", positions, None)
            self._forget(positions, counted)
        return gone

    def replace_sources(self, sources: Mapping[str, Sequence[SourceText]]) -> None:
        """See `BaseDraft.replace_sources`."""
        import pyarrow as pa

        if not sources:
            return
        rows = [
            {
                "name_key": key_of(source.name),
                "file_key": key_of(file),
                "name": source.name,
                "file": file,
                "digest": source.digest,
                "text": source.text,
            }
            for file, its_sources in sources.items()
            for source in its_sources
        ]
        fresh = pa.Table.from_pylist(rows, schema=self._tables[SOURCES].schema)
        self._exchange(SOURCES, "file_key", sorted(map(key_of, sources)), fresh)

    def split_with(self, settings: dict[str, Any]) -> None:
        """See `BaseDraft.split_with`."""
        self._touched = self._touched or settings != self.split
        self._state.split = self.split = settings

    def file_digests(self) -> dict[str, str]:
        """See `BaseDraft.file_digests`."""
        return {row["file"]: row["digest"] for row in self._tables.rows(SOURCES, ["file", "digest"])}

    def ids_of_file(self, file: str) -> list[str]:
        """See `BaseDraft.ids_of_file`."""
        rows = self._tables.rows(SOURCES, ["name", "file"], f"file_key = {key_of(file)}")
        names = {row["name"] for row in rows if row["file"] == file}
        found = self._by_key("source_key", sorted(names), ["id", "position", "source"])
        return [row["id"] for row in sorted(found, key=lambda row: int(row["position"])) if row["source"] in names]

    def finish(self) -> bool:
        """Publish the changes, if there are any; returns whether the tables have been put in order with that."""
        import pyarrow as pa

        if not self._touched:
            return False
        state = self._state
        changes = [(number, term, count) for (number, term), count in self._terms.items() if count]
        if changes:
            schema, columns = self._tables[TERMS].schema, zip(*changes, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            self._exchange(TERMS, "term", [], pa.table(arrays, schema=schema))
        state.writes += 1
        in_order = upkeep.due(state)
        if in_order:
            self._turn.renew()
            upkeep.put_in_order(self._place, self._tables, self._indexes, state, self._kept)
        for table in DATA:
            with translated(self._place):
                version = int(self._tables[table].version)
            if version != state.versions[table]:
                state.versions[table], state.times[table] = version, self._started
        if self._tables.count(PASSAGES) != state.passages:
            raise self._taken_over()
        state.generation += 1
        self._turn.publish(state.generation, state.to_json())
        return in_order

    # -- for `EngineDraft` --------------------------------------------------------------------------------------------

    def _stored(self, ids: Sequence[str]) -> Mapping[str, tuple[Any, ...]]:
        rows = self._by_key("key", ids, ["id", *STORED])
        return {row["id"]: tuple(row[column] for column in STORED) for row in rows}

    def _twins(self, digests: Sequence[str]) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for row in self._listed("digest", list(dict.fromkeys(digests)), ["digest", "position"]):
            found[row["digest"]] = min(row["position"], found.get(row["digest"], row["position"]))
        return found

    def _reserve(self, count: int) -> int:
        first = self._state.next_position
        self._state.next_position += count
        return first

    def _vectors(self, name: str, positions: Positions) -> NDArray[np.float32]:
        index = self._indexes[name]
        assert isinstance(index, DenseIndex)
        return self._tables.vectors(f"vector_{self._numbers[name]}", index.encoder.dimension, positions)

    def _write(self, change: Change, seen: Mapping[str, Seen]) -> None:
        import pyarrow as pa

        rows = dict(change.rows)
        added = [addition.position for addition in change.additions]
        known = sorted(rows.keys() - set(added))
        fresh = [passages_of(added, rows, self._columns(seen), self._tables[PASSAGES].schema)] if added else []
        if known:
            old = pa.concat_tables(self._tables.at(known, None))
            positions = numbers(old["position"]).tolist()
            columns = {name: old[name] for name in old.column_names if name[-1].isdigit()}
            fresh.append(passages_of(positions, rows, columns, self._tables[PASSAGES].schema))
        gone = self._counted(change.removed)
        self._exchange(PASSAGES, "position", [*change.removed, *known], pa.concat_tables(fresh))
        self._forget(change.removed, gone)
        self._state.passages += len(added)
        self._state.changed += len(rows)
        for name, frequencies in seen.items():
            if isinstance(frequencies, list):
                self._state.lengths[name] = self._state.lengths.get(name, 0.0) + sum(sum(its.values()) for its in frequencies)
                number = self._numbers[name]
                self._terms.update((number, key_of(term)) for terms in frequencies for term in terms)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _columns(self, seen: Mapping[str, Seen]) -> dict[str, Any]:
        return {column: values for name, its in seen.items() for column, values in columns_of(self._numbers[name], its).items()}

    def _counted(self, positions: Sequence[int]) -> list[tuple[str, float, Counter[tuple[int, int]]]]:
        """The length of these passages and the terms they have, for each lexical index."""
        counted = []
        for name, number in self._numbers.items():
            if self._indexes.settings[name]["kind"] != LexicalIndex.kind:
                continue
            columns = [f"terms_{number}", f"length_{number}"]
            length, terms = 0.0, Counter[tuple[int, int]]()
            for part in self._tables.at(positions, columns):
                length += float(numbers(part[columns[1]]).sum())
                for chunk in part[columns[0]].chunks:
                    terms.update((number, term) for term in lists(chunk)[1].tolist())
            counted.append((name, length, terms))
        return counted

    def _forget(self, positions: Sequence[int], gone: list[tuple[str, float, Counter[tuple[int, int]]]]) -> None:
        self._state.passages -= len(positions)
        self._state.changed += len(positions)
        for name, length, terms in gone:
            self._state.lengths[name] = self._state.lengths.get(name, 0.0) - length
            self._terms.subtract(terms)

    def _exchange(self, name: str, column: str, gone: Sequence[int], fresh: Any) -> None:
        """Remove the rows that have one of these numbers, and add others; neither, if that fails."""
        self._turn.keep()
        table, before = self._tables[name], self._versions[name]
        self._touched = True
        try:
            with translated(self._place):
                for where in among_each(column, gone):
                    self._follow(name, table.delete(where).version)
                if fresh is not None and fresh.num_rows:
                    self._follow(name, table.add(fresh).version)
        except BaseException:
            self._turn.renew()  # or else the table is somebody else's by now
            self._go_back(name, before)
            raise

    def _follow(self, name: str, version: int) -> None:
        """Note the version that a change has made. Raises `StoreError` if somebody else has made one in between."""
        if version > self._versions[name] + 1:
            raise self._taken_over()
        self._versions[name] = version

    def _go_back(self, name: str, version: int) -> None:
        """Make the latest version the same as this one."""
        table = self._tables[name]
        with translated(self._place):
            if table.version != version:
                table.checkout(version)
                table.restore()
            self._versions[name] = int(table.version)

    def _taken_over(self) -> StoreError:
        return StoreError(f"another process is writing to {self._place.name}; nothing was published, write again")

    def _by_key(self, column: str, texts: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Passages by the keys of texts; others whose key is the same may be among them."""
        return self._listed(column, sorted(set(map(key_of, texts))), columns)

    def _listed(self, column: str, values: Sequence[Any], columns: Sequence[str]) -> list[dict[str, Any]]:
        return [row for where in among_each(column, values) for row in self._tables.rows(PASSAGES, columns, where)]
