"""One immutable part of an inverted index: documents as rows, ordered by position, and their postings in blocks."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ragkit.indexes import kernels
from ragkit.indexes.base import Positions
from ragkit.indexes.bm25_formulas import Saturation
from ragkit.linking import link
from ragkit.sparse_vectors import SparseVectors

_SMALL = 32_768  # rows


@dataclass(frozen=True)
class Segment:
    """Term i of `terms` has the entries `entry_starts[i]:entry_starts[i + 1]`, one for each block of documents it is in.

    Entry j is about block `blocks[j]`; its postings are `firsts[j]:firsts[j + 1]`. A posting is a document's place within the
    block, the value (BM25: the frequency) and a bound: what the value is worth, rounded up to 255ths of the term's peak.
    """

    positions: Positions
    """[rows] ascending."""
    lengths: NDArray[np.float32]
    """[rows] sum of the document's weights."""
    terms: NDArray[np.int32]
    """[terms] ids, ascending."""
    peaks: NDArray[np.float64]
    """[terms] the highest worth in this segment, at the mean length at which it was built."""
    entry_starts: NDArray[np.int64]
    """[terms + 1]."""
    blocks: NDArray[np.int32]
    """[entries] ascending within a term."""
    maxima: NDArray[np.uint8]
    """[entries] the highest bound in the entry."""
    firsts: NDArray[np.uint32]
    """[entries + 1]."""
    postings: NDArray[np.uint16]
    """[postings] place << 8 | bound, ascending within an entry."""
    values: NDArray[Any]
    """[postings] uint8 where that loses nothing, else float32."""
    shift: int = field(default=0)
    """A block has 2 ** shift rows."""
    home: _Home | None = field(default=None, compare=False)
    """Where these arrays are files, if anywhere."""

    def __post_init__(self) -> None:
        # compiled functions take writable and read-only arrays as different types: with one type they are compiled once
        for name in _ARRAYS:
            array = np.asarray(getattr(self, name)).view()  # the caller's own array stays writable
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @classmethod
    def build(cls, positions: Positions, vectors: SparseVectors, formula: Saturation, length_unit: float) -> Self:
        """From documents in ascending order of position; a relative length is a length times `length_unit`."""
        terms, local = _number(vectors.terms)
        lengths = np.add.reduceat(np.append(vectors.weights, np.float32(0)), vectors.starts[:-1], dtype=np.float64)
        lengths = np.where(np.diff(vectors.starts) > 0, lengths, 0).astype(np.float32)
        starts, rows, values = kernels.invert(vectors.starts, local, vectors.weights, len(terms))
        shift = _shift(len(positions))
        peaks, entry_starts, blocks, maxima, firsts, postings = kernels.encode(
            starts, rows, values, lengths, length_unit, tuple(map(float, formula)), shift
        )
        if len(values) and values.max() <= 255 and not (values % 1).any():
            values = values.astype(np.uint8)
        return cls(positions, lengths, terms, peaks, entry_starts, blocks, maxima, firsts, postings, values, shift)

    def vectors(self) -> SparseVectors:
        """The documents, as they were given to `build`."""
        sizes = kernels.row_sizes(self.shift, len(self.positions), self.entry_starts, self.blocks, self.firsts, self.postings)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        terms, weights = np.empty(len(self.values), np.int32), np.empty(len(self.values), np.float32)
        kernels.decode(
            self.shift, self.entry_starts, self.blocks, self.firsts, self.postings, self.values, starts, terms, weights
        )
        return SparseVectors(starts, self.terms[terms], weights)

    def live_frequencies(self, terms: NDArray[np.int64], live: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many of the live rows each of these (the segment's own) terms is in."""
        counts: NDArray[np.int64] = kernels.live_frequencies(
            terms, self.shift, self.entry_starts, self.blocks, self.firsts, self.postings, live
        )
        return counts

    def frequencies(self, terms: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many rows each of these (the segment's own) terms is in."""
        first, last = self.firsts[self.entry_starts[terms]], self.firsts[self.entry_starts[terms + 1]]
        counts: NDArray[np.int64] = (last - first).astype(np.int64)
        return counts

    def find(self, terms: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The segment's own number of each term id, and whether it has the term."""
        if not len(self.terms):
            return np.zeros(len(terms), np.int64), np.zeros(len(terms), np.bool_)
        at = np.minimum(np.searchsorted(self.terms, terms), len(self.terms) - 1)
        return at, self.terms[at] == terms

    def rows_of(self, positions: Positions) -> NDArray[np.int64]:
        """The rows at those of the positions that are here."""
        at = np.minimum(np.searchsorted(self.positions, positions), len(self.positions) - 1)
        rows: NDArray[np.int64] = at[self.positions[at] == positions]
        return rows

    def save(self, directory: Path) -> None:
        """Write one .npy file per array into a new directory, or link to the files that are there already."""
        directory.mkdir()
        linked = self.home is not None and self.home.intact()
        for name in _ARRAYS:
            file = directory / f"{name}.npy"
            if not (linked and self.home and link(self.home.directory / file.name, file)):
                np.save(file, getattr(self, name), allow_pickle=False)
        object.__setattr__(self, "home", _Home.of(directory))

    @classmethod
    def load(cls, directory: Path, shift: int) -> Self:
        """Read what `save` wrote, with the segment's `shift`; the arrays stay on disk.

        Raises `ValueError` for files that do not fit together; what is wrong inside of one, only its digest tells.
        """
        arrays: dict[str, Any] = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        segment = cls(**arrays, shift=shift, home=_Home.of(directory))
        sizes = {name: len(array) for name, array in arrays.items()}
        fit = (
            0 < shift <= kernels.MAX_SHIFT
            and sizes["positions"] == sizes["lengths"]
            and sizes["terms"] == sizes["peaks"] == sizes["entry_starts"] - 1
            and sizes["blocks"] == sizes["maxima"] == sizes["firsts"] - 1 == segment.entry_starts[-1]
            and sizes["postings"] == sizes["values"] == segment.firsts[-1]
        )
        if not fit:
            raise ValueError(f"the files in {directory} do not fit together")
        return segment


class _Home(NamedTuple):
    """A directory with a segment's files, and which file one of them was: another may have taken its name since."""

    directory: Path
    file: tuple[int, int, int]

    @classmethod
    def of(cls, directory: Path) -> Self:
        return cls(directory, _identity(directory))

    def intact(self) -> bool:
        try:
            return _identity(self.directory) == self.file
        except OSError:  # the generation it lay in is gone
            return False


def _identity(directory: Path) -> tuple[int, int, int]:
    status = (directory / "postings.npy").stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns  # numbers of files are used again


_ARRAYS = [f.name for f in fields(Segment) if f.name not in ("shift", "home")]


def _shift(rows: int) -> int:
    """Of large segments few blocks are looked at: small ones have tight bounds, but very many take time themselves.

    Of small segments nearly all are looked at, and then large ones are cheaper.
    """
    if rows < _SMALL:
        return 7
    return min(max(int(np.log2(rows / _SMALL)), 5), kernels.MAX_SHIFT)


def _number(terms: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The distinct ids, ascending, and each entry's place among them."""
    if not len(terms) or len(terms) < terms.max():
        distinct, local = np.unique(terms, return_inverse=True)
        return distinct.astype(np.int32), local.astype(np.int32)
    present = np.zeros(terms.max() + 1, np.bool_)  # sorting many millions takes seconds
    present[terms] = True
    return np.flatnonzero(present).astype(np.int32), (np.cumsum(present) - 1).astype(np.int32)[terms]
