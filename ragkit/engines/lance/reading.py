"""Tables of LanceDB at chosen versions, read as Arrow and numpy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragkit.engines.lance.place import Place, translated
from ragkit.engines.lance.tables import PASSAGES, among_each
from ragkit.errors import InputError
from ragkit.indexes.base import Positions

_BATCH = 10_000


class Tables:
    """The tables of a store, each at its version, or at its latest. Safe to read from several threads."""

    def __init__(self, place: Place, connection: Any, versions: Mapping[str, int] | None = None) -> None:
        self._place, self._connection, self._versions = place, connection, versions
        self._opened: dict[str, Any] = {}
        self._lock = RLock()

    def __getitem__(self, name: str) -> Any:
        """The table of that name; nobody else has this handle."""
        with self._lock, translated(self._place):
            if name not in self._opened:
                table = self._connection.open_table(name)
                if self._versions is not None:
                    table.checkout(self._versions[name])
                self._opened[name] = table
            return self._opened[name]

    def count(self, name: str, where: str | None = None) -> int:
        """Number of rows, of all or of those that meet a condition."""
        with translated(self._place):
            return int(self[name].count_rows(where))

    def rows(self, name: str, columns: Sequence[str], where: str | None = None) -> list[dict[str, Any]]:
        """Rows as mappings, in no order."""
        found: list[dict[str, Any]] = self.arrow(name, columns, where).to_pylist()
        return found

    def arrow(self, name: str, columns: Sequence[str] | None, where: str | None = None) -> Any:
        """Rows as an Arrow table, in no order; None are all columns."""
        query = self[name].search()
        with translated(self._place):
            if where is not None:
                query = query.where(where)
            return (query if columns is None else query.select(list(columns))).to_arrow()

    def batches(self, columns: Sequence[str], where: str) -> Iterator[Any]:
        """Passages as Arrow batches, in no order."""
        query = self[PASSAGES].search()
        with translated(self._place):
            yield from query.where(where).select(list(columns)).to_batches(batch_size=_BATCH)

    def at(self, positions: Sequence[int], columns: Sequence[str] | None) -> list[Any]:
        """Arrow tables that together have the passages at these positions, as far as they are there, in no order."""
        return [self.arrow(PASSAGES, columns, where) for where in among_each("position", positions)]

    def vectors(self, column: str, dimension: int, positions: Positions) -> NDArray[np.float32]:
        """The vectors [n, dimension] at these positions. Raises `InputError` if one is not there."""
        wanted, back = np.unique(np.asarray(positions, np.int64), return_inverse=True)
        parts = self.at(wanted.tolist(), ["position", column])
        found = np.concatenate([np.empty(0, np.int64), *(numbers(part["position"]) for part in parts)])
        if len(found) != len(wanted):
            raise InputError("positions: there is no vector at one of them")
        vectors = [np.empty((0, dimension), np.float32), *(matrix(part[column], dimension) for part in parts)]
        return np.concatenate(vectors)[np.argsort(found)][back]


def numbers(column: Any) -> NDArray[Any]:
    """A column of numbers, none of which is null."""
    values: NDArray[Any] = column.to_numpy() if hasattr(column, "chunks") else column.to_numpy(zero_copy_only=False)
    return values


def matrix(column: Any, dimension: int) -> NDArray[np.float32]:
    """A column of vectors, [n, dimension]."""
    arrays = column.chunks if hasattr(column, "chunks") else [column]
    parts = [numbers(array.flatten()).astype(np.float32).reshape(-1, dimension) for array in arrays]
    return np.concatenate([np.empty((0, dimension), np.float32), *parts])


def lists(column: Any) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """A column of lists, all in one batch: where each begins in what follows, with the end [n + 1], and what is in them."""
    import pyarrow.compute as pc

    lengths = numbers(pc.list_value_length(column)).astype(np.int64)
    return np.append(0, np.cumsum(lengths)).astype(np.int64), numbers(column.flatten())
