"""Terms and their ids: what is new in memory, all the rest in immutable files that are mapped rather than read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError
from ragkit.linking import link

Bytes = NDArray[np.uint8]

_CONTENTS = "vocabulary.json"
_GROWTH = 2
"""Of two neighbouring chunks the earlier has at least so many times the terms of the later: their number is logarithmic."""
_AT_ONCE = 2**16
"""Terms hashed at a time, so that memory stays bounded."""

_SEEN = 2**16
"""Terms of the chunks that are kept at hand."""


class Vocabulary:
    """Terms and their ids, numbered from 0 in the order in which they first came; an id never changes.

    A term is any string: lone surrogates, nothing at all, a megabyte. Lookups may run in several threads, also beside `add` or
    `save`, which themselves take one thread at a time.
    """

    def __init__(self, terms: Iterable[str] = ()) -> None:
        self._state = _State((), {}, {})
        self.add(list(terms))

    def __len__(self) -> int:
        return len(self._state)

    def add(self, tokens: Sequence[str]) -> NDArray[np.int32]:
        """The id of each token, [tokens]; tokens that are new get the next ids."""
        state = self._state
        ids = state.lookup(tokens)
        unknown = np.flatnonzero(ids < 0)
        if len(unknown):
            new, first = state.new, state.first
            ids[unknown] = [new.setdefault(tokens[at], first + len(new)) for at in unknown.tolist()]
        return ids

    def lookup(self, tokens: Sequence[str]) -> NDArray[np.int32]:
        """The ids of the tokens that are known, in order, repeats included."""
        ids = self._state.lookup(tokens)
        return ids[ids >= 0]

    def add_all(self, documents: Sequence[Sequence[str]]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """`add` for many documents: `starts` [documents + 1] and `ids`; document i has `ids[starts[i]:starts[i + 1]]`."""
        return _starts(documents), self.add(list(chain.from_iterable(documents)))

    def lookup_all(self, documents: Sequence[Sequence[str]]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Like `add_all`, but tokens that are not known have the id -1 and stay unknown."""
        return _starts(documents), self._state.lookup(list(chain.from_iterable(documents)))

    def terms(self, ids: Sequence[int] | NDArray[np.integer[Any]]) -> list[str]:
        """The terms that have these ids. Raises `InputError` for an id that has not been given."""
        state = self._state
        wanted = np.asarray(ids, np.int64)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(state):
            raise InputError(f"ids: must be from 0 to {len(state) - 1}, the ids given so far")
        new = list(state.new)
        owner = np.searchsorted([*(chunk.first for chunk in state.chunks), state.first], wanted, side="right") - 1
        return [
            new[id_ - state.first] if at == len(state.chunks) else state.chunks[at].term(id_)
            for at, id_ in zip(owner.tolist(), wanted.tolist(), strict=True)
        ]

    def save(self, directory: Path) -> None:
        """Write into an existing directory that holds none of these files yet.

        What is on disk already, after `load` or an earlier `save`, becomes hard links where the file system lets us, and copies
        where not; only new terms are written, and chunks that have to be merged with them.
        """
        state = self._state
        chunks = list(state.chunks)
        if state.new:
            chunks.append(_Chunk.build(state.first, list(state.new)))
        while len(chunks) > 1 and len(chunks[-2]) < _GROWTH * len(chunks[-1]):
            chunks[-2:] = [_Chunk.merge(*chunks[-2:])]
        chunks = [chunk.save(directory) for chunk in chunks]
        (directory / _CONTENTS).write_text(json.dumps([[chunk.first, len(chunk)] for chunk in chunks]), encoding="utf-8")
        # one assignment: a lookup beside this one sees the state before or the state after
        self._state = _State(tuple(chunks), {}, {})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """What `save` wrote; the terms stay on disk, memory-mapped. Raises `ValueError` for files that do not fit together."""
        vocabulary = cls()
        contents = json.loads((directory / _CONTENTS).read_text(encoding="utf-8"))
        chunks = tuple(_Chunk.load(directory, first, size) for first, size in contents)
        if [chunk.first for chunk in chunks] != [sum(map(len, chunks[:at])) for at in range(len(chunks))]:
            raise ValueError(f"the chunks of terms in {directory} do not follow one another")
        vocabulary._state = _State(chunks, {}, {})
        return vocabulary


class _State(NamedTuple):
    """Chunks with the ids from 0 to `first`, and the terms that are in none of them."""

    chunks: tuple[_Chunk, ...]
    new: dict[str, int]
    seen: dict[str, int]
    """Terms of the chunks that were looked up lately: questions repeat their words, and an id never changes."""

    @property
    def first(self) -> int:
        """The first id that no chunk has."""
        return self.chunks[-1].first + len(self.chunks[-1]) if self.chunks else 0

    def __len__(self) -> int:
        return self.first + len(self.new)

    def lookup(self, tokens: Sequence[str]) -> NDArray[np.int32]:
        """The id of each token, -1 for one that has none."""
        ids = np.fromiter(map(self.new.get, tokens, map(self.seen.get, tokens, repeat(-1))), np.int32, len(tokens))
        open_ = np.flatnonzero(ids < 0).tolist() if self.chunks else []
        if open_:
            found = self._search(list(dict.fromkeys(tokens[at] for at in open_)))
            ids[open_] = [found.get(tokens[at], -1) for at in open_]
            if len(self.seen) + len(found) > _SEEN:
                self.seen.clear()
            self.seen.update(islice(found.items(), _SEEN))
        return ids

    def _search(self, tokens: Sequence[str]) -> dict[str, int]:
        """Those of these distinct tokens that are in a chunk, with their ids."""
        terms = _Terms.of(tokens)
        hashes = terms.hashes()
        ids = np.full(len(tokens), -1, np.int32)
        for chunk in self.chunks:
            np.maximum(ids, chunk.find(terms, hashes), out=ids)
        return {token: id_ for token, id_ in zip(tokens, ids.tolist(), strict=True) if id_ >= 0}


class _Terms(NamedTuple):
    """Term i is `blob[offsets[i]:offsets[i + 1]]` in UTF-8; there is a byte after the last."""

    offsets: NDArray[np.int64]
    blob: Bytes

    @classmethod
    def of(cls, terms: Sequence[str]) -> Self:
        encoded = [term.encode("utf-8", "surrogatepass") for term in terms]
        offsets = np.cumsum([0, *map(len, encoded)])
        return cls(offsets, np.frombuffer(b"".join([*encoded, b"\0"]), np.uint8))

    def hashes(self) -> NDArray[np.uint64]:
        """[terms] see `hash_terms`."""
        count = len(self.offsets) - 1
        parts = [
            hash_terms(self.offsets[at : min(at + _AT_ONCE, count) + 1], self.blob) for at in range(0, max(count, 1), _AT_ONCE)
        ]
        return np.concatenate(parts)


@dataclass(frozen=True)
class _Chunk:
    """The terms with the ids from `first` on. Its arrays never change, and neither do its files."""

    first: int
    hashes: NDArray[np.uint64]
    """[terms] ascending."""
    ids: NDArray[np.int32]
    """[terms] that of the term with each hash; ascending among equal hashes."""
    offsets: NDArray[np.int64]
    """[terms + 1] into `blob`, in the order of the ids."""
    blob: Bytes
    home: Path | None = None
    """Where its files are."""

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def build(cls, first: int, terms: Sequence[str]) -> Self:
        flat = _Terms.of(terms)
        hashes = flat.hashes()
        order = np.argsort(hashes, kind="stable")
        return cls(first, hashes[order], (first + order).astype(np.int32), flat.offsets, flat.blob)

    @classmethod
    def merge(cls, earlier: Self, later: Self) -> Self:
        hashes = np.concatenate([earlier.hashes, later.hashes])
        order = np.argsort(hashes, kind="stable")
        size = earlier.offsets[-1]
        return cls(
            earlier.first,
            hashes[order],
            np.concatenate([earlier.ids, later.ids])[order],
            np.concatenate([earlier.offsets, later.offsets[1:] + size]),
            np.concatenate([earlier.blob[:size], later.blob]),
        )

    def term(self, id_: int) -> str:
        start, end = self.offsets[id_ - self.first : id_ - self.first + 2].tolist()
        return self.blob[start:end].tobytes().decode("utf-8", "surrogatepass")

    def find(self, terms: _Terms, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The id of each term, -1 for one that is not here."""
        ids = np.full(len(hashes), -1, np.int32)
        places = np.searchsorted(self.hashes, hashes)
        rows = np.arange(len(hashes))
        # terms with one hash lie side by side: each round compares the next of them, and nearly always there is but one
        while True:
            within = places < len(self)
            rows, places = rows[within], places[within]
            equal = self.hashes[places] == hashes[rows]
            rows, places = rows[equal], places[equal]
            if not len(rows):
                return ids
            candidates = self.ids[places]
            same = _same(terms, rows, _Terms(self.offsets, self.blob), candidates.astype(np.int64) - self.first)
            ids[rows[same]] = candidates[same]
            rows, places = rows[~same], places[~same] + 1

    def save(self, directory: Path) -> Self:
        """Have the files in `directory` too; the chunk whose home it is."""
        for name in _ARRAYS:
            file = directory / _file(self.first, len(self), name)
            if self.home is None or not link(self.home / file.name, file):
                np.save(file, getattr(self, name), allow_pickle=False)
        return replace(self, home=directory)

    @classmethod
    def load(cls, directory: Path, first: int, size: int) -> Self:
        # views that are no np.memmap, whose every slice costs microseconds
        arrays = {name: np.load(directory / _file(first, size, name), mmap_mode="r").view(np.ndarray) for name in _ARRAYS}
        chunk = cls(first, **arrays, home=directory)
        if [len(chunk.hashes), len(chunk.ids), len(chunk.offsets)] != [size, size, size + 1]:
            raise ValueError(f"{directory / _file(first, size, 'ids')} or a file beside it has not {size} terms")
        return chunk


_ARRAYS = tuple(field.name for field in fields(_Chunk) if field.name not in ("first", "home"))


def hash_terms(offsets: NDArray[np.int64], blob: Bytes) -> NDArray[np.uint64]:
    """64-bit hashes of the terms `blob[offsets[i]:offsets[i + 1]]`, [terms]; the same on every machine.

    A polynomial in the bytes, each replaced by a random number, with its bits mixed by the finaliser of SplitMix64 (Steele,
    Lea and Flood 2014).
    """
    lengths = np.diff(offsets)
    place = np.arange(offsets[0], offsets[-1]) - np.repeat(offsets[:-1], lengths)
    powers = np.cumprod(np.full(lengths.max(initial=0) + 1, _BASE, np.uint64), dtype=np.uint64)
    sums = np.append(np.uint64(0), np.cumsum(_RANDOM[blob[offsets[0] : offsets[-1]]] * powers[place], dtype=np.uint64))
    ends = offsets - offsets[0]
    return _mixed(sums[ends[1:]] - sums[ends[:-1]] + lengths.astype(np.uint64))


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


_BASE = np.uint64(0x9E3779B97F4A7C15)
_RANDOM = _mixed(_BASE * np.arange(1, 257, dtype=np.uint64))


def _same(left: _Terms, rows: NDArray[np.int64], right: _Terms, others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether term `rows[i]` of the left is term `others[i]` of the right."""
    starts, lengths = left.offsets[rows], left.offsets[rows + 1] - left.offsets[rows]
    same: NDArray[np.bool_] = lengths == right.offsets[others + 1] - right.offsets[others]
    starts, lengths, there = starts[same], lengths[same], right.offsets[others[same]]
    ends = np.append(0, np.cumsum(lengths))
    steps = np.arange(ends[-1]) - np.repeat(ends[:-1], lengths)
    differ = left.blob[np.repeat(starts, lengths) + steps] != right.blob[np.repeat(there, lengths) + steps]
    differences = np.append(0, np.cumsum(differ))
    same[same] = differences[ends[1:]] == differences[ends[:-1]]
    return same


def _file(first: int, size: int, name: str) -> str:
    # a range of ids always has the same terms, so the name says what is inside
    return f"terms-{first}-{first + size}.{name}.npy"


def _starts(documents: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, documents)])
