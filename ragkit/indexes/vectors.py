"""Vectors as rows of a few immutable files, read in place: what exact scores are computed from."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError

Precision = Literal["float32", "float16"]
Rows = NDArray[np.int64]

_LARGEST = 2**18  # rows of a chunk; larger ones are not merged, so that no change costs more than this
_GROWTH = 2  # a chunk is merged with the one before it unless that is so many times its size
_BLOCK = 2**14


class _File(NamedTuple):
    """A file, and which one it was: another may have taken its name since."""

    path: Path
    identity: tuple[int, int]

    @classmethod
    def of(cls, path: Path) -> Self:
        status = path.stat()
        return cls(path, (status.st_dev, status.st_ino))

    def linked(self, path: Path) -> bool:
        """Whether it could be given this name, too."""
        try:
            if _File.of(self.path) != self:
                return False
            os.link(self.path, path)
        except OSError:  # other file system, or the generation it lay in is gone
            return False
        return True


@dataclass
class _Chunk:
    """Rows that follow one another, and the file that holds them, if one does."""

    rows: NDArray[Any]
    file: _File | None = None


class Vectors:
    """Row after row of one dimension, appended, never changed.

    The rows lie in chunks, each one a file once it is saved; saving again links to the files that are there, so that what was
    added is all that is written.
    """

    def __init__(self, dimension: int, precision: Precision = "float32") -> None:
        """With precision "float16" files are half as large, and each component is rounded to 11 bits."""
        self.dimension, self.precision = dimension, precision
        self.longest = 0.0
        """The greatest Euclidean length of a row."""
        self._chunks: list[_Chunk] = []
        self._starts = np.zeros(1, np.int64)
        self._numbered = 0

    def __len__(self) -> int:
        return int(self._starts[-1])

    def check(self, vectors: NDArray[np.float32]) -> None:
        """Raise `InputError` if one of these rows [n, dimension] is too large for the precision."""
        # also for NaN, which no comparison is true of
        if vectors.size and not max(vectors.max(), -vectors.min()) <= np.finfo(self.precision).max:
            raise InputError(f"vectors: too large for precision={self.precision!r}; use 'float32'")

    def append(self, vectors: NDArray[np.float32]) -> None:
        """Add rows [n, dimension]. Raises `InputError` if one is too large for the precision."""
        self.check(vectors)
        rows = vectors.astype(self.precision)
        if len(rows):
            self.longest = max(self.longest, float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64).max())))
            self._chunks += [_Chunk(rows[first : first + _LARGEST]) for first in range(0, len(rows), _LARGEST)]
            self._merge()

    def keep(self, live: NDArray[np.bool_]) -> None:
        """Drop the rows that are not `live` [rows]; those after them move up."""
        kept = []
        for chunk, first in zip(self._chunks, self._starts, strict=False):
            mask = live[first : first + len(chunk.rows)]
            if mask.all():
                kept.append(chunk)
            elif mask.any():
                kept.append(_Chunk(np.asarray(chunk.rows)[mask]))
        self._chunks = kept
        self._merge()

    def take(self, rows: Rows) -> NDArray[np.float32]:
        """The vectors of these rows, [n, dimension]."""
        vectors = np.empty((len(rows), self.dimension), np.float32)
        where = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(where):
            here = where == number
            vectors[here] = self._chunks[number].rows[rows[here] - self._starts[number]]
        return vectors

    def blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """All rows in order, some thousands at a time, in their precision; with the number of the first."""
        for chunk, start in zip(self._chunks, self._starts, strict=False):
            for first in range(0, len(chunk.rows), _BLOCK):
                yield int(start) + first, np.asarray(chunk.rows[first : first + _BLOCK])

    def save(self, directory: Path) -> dict[str, Any]:
        """Write one .npy file per chunk into `directory`; returns what `load` needs to find them."""
        names = []
        for chunk in self._chunks:
            if chunk.file is None:
                self._numbered += 1
            path = directory / (chunk.file.path.name if chunk.file else f"vectors-{self._numbered:06}.npy")
            if chunk.file is None or not chunk.file.linked(path):
                np.save(path, chunk.rows, allow_pickle=False)
            chunk.file = _File.of(path)
            names.append(path.name)
        return {"chunks": names, "numbered": self._numbered, "longest": self.longest}

    @classmethod
    def load(cls, directory: Path, dimension: int, precision: Precision, layout: dict[str, Any]) -> Self:
        """Read what `save` wrote; the rows stay on disk."""
        vectors = cls(dimension, precision)
        vectors.longest, vectors._numbered = layout["longest"], layout["numbered"]
        vectors._chunks = [_Chunk(_mapped(directory / name), _File.of(directory / name)) for name in layout["chunks"]]
        vectors._place()
        return vectors

    def _merge(self) -> None:
        merged: list[_Chunk] = []
        for chunk in self._chunks:
            merged.append(chunk)
            while len(merged) > 1 and _due(merged[-2], merged[-1]):
                last = merged.pop()
                merged[-1] = _Chunk(np.concatenate([merged[-1].rows, last.rows]))
        self._chunks = merged
        self._place()

    def _place(self) -> None:
        self._starts = np.concatenate([[0], np.cumsum([len(chunk.rows) for chunk in self._chunks])]).astype(np.int64)


def _due(first: _Chunk, second: _Chunk) -> bool:
    return len(first.rows) < _GROWTH * len(second.rows) and len(first.rows) + len(second.rows) <= _LARGEST


def _mapped(file: Path) -> Any:
    rows = np.load(file, mmap_mode="r")
    with suppress(AttributeError, OSError, ValueError):  # a hint, not offered everywhere
        rows._mmap.madvise(mmap.MADV_RANDOM)  # else each row that is looked up brings its neighbours into memory
    return rows
