"""The dense index: vectors and their exact scores, with compact codes before them once there are many."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Self, get_args

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError
from ragkit.indexes.base import Positions, Ranking, empty_ranking, top_k
from ragkit.indexes.codes import LEAST, Codes
from ragkit.indexes.kinds import DEPTHS, IndexKind, Kind, choose
from ragkit.indexes.scan import scan
from ragkit.indexes.vectors import Precision, Rows, Vectors

CODES_FROM = 10_000
_DEAD = 0.25  # share of removed rows at which they are dropped and the codes built anew
_GROWTH = 4  # factor of growth at which the codes are built anew: what they learned no longer fits
_AT_ONCE = 10_000
_SETTINGS, _POSITIONS, _LIVE = "settings.json", "positions.npy", "live.npy"


class _Present(NamedTuple):
    """The positions that are there, ascending, and their rows; None if position i of them is row i."""

    positions: Positions
    rows: Rows | None

    def find(self, positions: Positions) -> Rows:
        """The rows of those positions that are there, in the order of the positions."""
        if not len(self.positions):
            return np.empty(0, np.int64)
        at = np.minimum(np.searchsorted(self.positions, positions), len(self.positions) - 1)
        at = at[self.positions[at] == positions]
        rows: Rows = at if self.rows is None else self.rows[at]
        return rows


class FaissIndex:
    """Dense retrieval by inner product; implements `Index` for float vectors of one dimension.

    Two tiers (as in BiDR: Xiao et al., "Progressively Optimized Bi-Granular Document Representation for Scalable Embedding Based
    Retrieval", WWW 2022): compact codes find candidates, and the vectors, which stay on disk once they are saved and loaded,
    give the candidates' final scores, in float64; so equal vectors have equal scores, and their order is that of their
    positions. Kind "flat" has no codes and is exact; see `Codes` for the others. "auto" asks `choose` whenever codes are built.

    Searches are exact below `codes_from` vectors, whatever the kind, and under filters that leave no more than that; and where
    the codes find fewer than k, unless there is no filter and `probes` says where to look. Codes are built by the first search
    or save that needs them, and anew when the collection has grown fourfold since, or a quarter of its rows has been removed;
    until then removed rows are marked.

    Searching from several threads is safe; adding and removing is for one thread at a time, without searches beside it.
    """

    def __init__(
        self,
        dimension: int,
        kind: IndexKind = "flat",
        *,
        lists: int | None = None,
        probes: int | None = None,
        oversample: int | None = None,
        precision: Precision = "float32",
        codes_from: int = CODES_FROM,
    ) -> None:
        """`lists` and `probes` are for kinds with inverted lists (defaults: see `Codes`).

        `oversample` times k candidates are looked up (default: `DEPTHS`). `precision` is that of the vectors; "float16" halves
        them on disk. Raises `InputError` for an unknown kind or precision or a number below 1.
        """
        kinds = ("auto", *get_args(Kind))
        if kind not in kinds:
            raise InputError(f"kind: {kind!r} is not one of {', '.join(kinds)}")
        if precision not in get_args(Precision):
            raise InputError(f"precision: {precision!r} is not one of {', '.join(get_args(Precision))}")
        numbers = {"dimension": dimension, "lists": lists, "probes": probes, "oversample": oversample, "codes_from": codes_from}
        for field, value in numbers.items():
            if value is not None and value < 1:
                raise InputError(f"{field}: must be at least 1, not {value}")
        self.dimension, self.kind, self.lists, self.probes = dimension, kind, lists, probes
        self.oversample, self.precision, self.codes_from = oversample, precision, codes_from
        self._vectors = Vectors(dimension, precision)
        self._positions = np.empty(0, np.int64)  # [rows]
        self._live = np.empty(0, np.bool_)  # [rows]
        self._present: _Present | None = None
        self._codes: Codes | None = None
        self._built = 0  # rows when the codes were built
        self._writable = True
        self._lock = Lock()

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments."""
        fields = ("dimension", "kind", "lists", "probes", "oversample", "precision", "codes_from")
        return {field: getattr(self, field) for field in fields}

    @property
    def built_kind(self) -> Kind:
        """The kind that is in use now; "flat" as long as there are no codes."""
        _, codes = self._ready()
        return "flat" if codes is None else codes.kind

    def __len__(self) -> int:
        return len(self._places().positions)

    def check(self, vectors: NDArray[np.float32]) -> None:
        """Raise `InputError` if `add` would refuse vectors: for their shape, NaN, infinity, or as too large for the precision."""
        self._vectors.check(self._checked(vectors, "vectors"))

    def add(self, positions: Positions, vectors: NDArray[np.float32]) -> None:
        """Add vectors [n, dimension]. Raises `InputError` for taken positions, a wrong shape, NaN or infinity."""
        self._require_writable()
        positions = np.ascontiguousarray(positions, np.int64)
        vectors = self._checked(vectors, "vectors")
        if len(positions) != len(vectors):
            raise InputError(f"positions: {len(positions)} positions for {len(vectors)} vectors")
        with self._lock:
            if len(np.unique(positions)) < len(positions) or len(self._places().find(positions)):
                raise InputError("positions: a position is already taken or given twice")
            self._vectors.append(vectors)
            self._positions = np.concatenate([self._positions, positions])
            self._live = np.concatenate([self._live, np.ones(len(positions), np.bool_)])
            self._present = None

    def remove(self, positions: Positions) -> None:
        """Forget vectors; positions that are not there are ignored."""
        self._require_writable()
        with self._lock:
            rows = self._places().find(np.unique(np.asarray(positions, np.int64)))
            if len(rows):
                self._live[rows] = False
                self._present = None

    def reconstruct(self, positions: Positions) -> NDArray[np.float32]:
        """The vectors at these positions, [n, dimension]. Raises `InputError` if one is not there."""
        rows = self._places().find(np.asarray(positions, np.int64))
        if len(rows) < len(positions):
            raise InputError("positions: there is no vector at one of them")
        return self._vectors.take(rows)

    def search(self, queries: NDArray[np.float32], k: int, allowed: Positions | None = None) -> list[Ranking]:
        """For each row of `queries` [n, dimension] at most `k` vectors, best first; see `Index.search`."""
        if k < 1:
            raise InputError(f"k: must be at least 1, not {k}")
        queries = self._checked(queries, "queries")
        present, codes = self._ready()
        rows = present.rows if allowed is None else present.find(np.unique(np.asarray(allowed, np.int64)))
        available = len(present.positions) if rows is None else len(rows)
        if not available:
            return [empty_ranking() for _ in queries]
        chosen = None
        if rows is not None and len(rows) < len(self._positions):
            chosen = np.zeros(len(self._positions), np.bool_)
            chosen[rows] = True
        k = min(k, available)
        if codes is None or (allowed is not None and available <= self.codes_from):
            return self._exact(queries, k, chosen)
        enough = k if allowed is not None or self.probes is None else 0
        return self._approximate(codes, queries, k, available, chosen, enough)

    def save(self, directory: Path) -> None:
        """Write the index into an existing, empty directory; vectors that are on disk already are linked to."""
        _, codes = self._ready()
        if codes is not None:
            codes.save(directory)
        np.save(directory / _POSITIONS, self._positions, allow_pickle=False)
        if not self._live.all():
            np.save(directory / _LIVE, self._live, allow_pickle=False)
        layout = {"codes": codes.kind if codes is not None else None, "built": self._built}
        layout["vectors"] = self._vectors.save(directory)  # type: ignore[assignment]
        (directory / _SETTINGS).write_text(json.dumps({"settings": self.settings, **layout}), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, *, writable: bool = False) -> Self:
        """Read what `save` wrote; the vectors stay on disk, and the codes unless `writable`. Only then can it be changed."""
        layout = json.loads((directory / _SETTINGS).read_text(encoding="utf-8"))
        index = cls(**layout["settings"])
        index._vectors = Vectors.load(directory, index.dimension, index.precision, layout["vectors"])
        index._positions = np.load(directory / _POSITIONS, mmap_mode="r")
        if len(index._positions) != len(index._vectors):
            raise ValueError(f"the files in {directory} do not fit together")
        marked = (directory / _LIVE).exists()
        index._live = np.load(directory / _LIVE) if marked else np.ones(len(index._positions), np.bool_)
        if layout["codes"] is not None:
            index._codes = Codes.load(directory, layout["codes"], writable=writable)
        index._built, index._writable = layout["built"], writable
        return index

    def _exact(self, queries: NDArray[np.float32], k: int, chosen: NDArray[np.bool_] | None) -> list[Ranking]:
        found = scan(self._vectors, queries, k, chosen)
        return [self._rank(query, rows, k) for query, rows in zip(queries, found, strict=True)]

    def _approximate(
        self,
        codes: Codes,
        queries: NDArray[np.float32],
        k: int,
        available: int,
        chosen: NDArray[np.bool_] | None,
        enough: int,
    ) -> list[Ranking]:
        """Those that find fewer than `enough` hits are searched exactly."""
        factor, least = DEPTHS[codes.kind]
        wanted = max((self.oversample or factor) * k, 1 if self.oversample else least)
        rankings: dict[int, Ranking] = {}
        while open_queries := [i for i in range(len(queries)) if i not in rankings]:
            wanted = min(wanted, available)
            scores, found = codes.candidates(queries[open_queries], wanted, self.probes, chosen)
            for i, rough, row in zip(open_queries, scores, found, strict=True):
                real = row[row >= 0]
                if len(real) == wanted < available and rough[-1] == rough[k - 1]:
                    continue  # so many have one code, most likely one vector: more candidates, to have the lowest positions
                rankings[i] = self._rank(queries[i], real, k)
            wanted *= 4
        short = [i for i, ranking in rankings.items() if len(ranking.positions) < enough]
        if short:
            rankings.update(zip(short, self._exact(queries[short], k, chosen), strict=True))
        return [rankings[i] for i in range(len(queries))]

    def _rank(self, query: NDArray[np.float32], rows: Rows, k: int) -> Ranking:
        scores = np.einsum("nd,d->n", self._vectors.take(rows), query, dtype=np.float64)
        return top_k(np.asarray(self._positions[rows]), scores, k)

    def _places(self) -> _Present:
        if self._present is None:
            positions, rows = self._positions, None
            if not self._live.all() or (np.diff(positions) <= 0).any():
                rows = np.flatnonzero(self._live)
                rows = rows[np.argsort(positions[rows], kind="stable")]
                positions = positions[rows]
            self._present = _Present(np.asarray(positions), rows)
        return self._present

    def _ready(self) -> tuple[_Present, Codes | None]:
        """What a search needs, after dropping rows and building codes where these are due."""
        with self._lock:
            if self._writable:
                self._tidy()
            return self._places(), self._codes

    def _tidy(self) -> None:
        rows, live = len(self._live), int(np.count_nonzero(self._live))
        if live < (1 - _DEAD) * rows:
            self._vectors.keep(self._live)
            self._positions, self._live = self._positions[self._live], np.ones(live, np.bool_)
            self._present, self._codes = None, None
        if self._codes is not None and live < _GROWTH * self._built:
            while (known := len(self._codes)) < rows:
                self._codes.add(self._vectors.take(np.arange(known, min(known + _AT_ONCE, rows))))
            return
        kind = choose(live) if self.kind == "auto" else self.kind
        self._codes = None
        if kind != "flat" and live >= max(self.codes_from, LEAST):
            self._codes, self._built = Codes.build(kind, self._vectors, self.lists), live

    def _checked(self, vectors: NDArray[Any], field: str) -> NDArray[np.float32]:
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise InputError(f"{field}: have shape {vectors.shape}, the index takes [n, {self.dimension}]")
        if not np.isfinite(vectors).all():
            raise InputError(f"{field}: hold NaN or infinity")
        return vectors

    def _require_writable(self) -> None:
        if not self._writable:
            raise InputError("writable: this index was loaded to be read; load it with writable=True to change it")
