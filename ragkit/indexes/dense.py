"""The dense index: inner products over float32 vectors with faiss, flat (exact) or inverted lists (approximate)."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError
from ragkit.indexes.base import Positions, Ranking, empty_ranking, top_k

faiss: Any = import_module("faiss")  # its type stubs leave out the Python layer over the C++ library

Kind = Literal["flat", "ivf"]
_POINTS_PER_LIST = 39  # below this, faiss's k-means has too little to learn a list from
_MARGIN = 8  # how many more than k are asked for at first: most ties at the cut end within it


class FaissIndex:
    """Dense retrieval by inner product; implements `Index` for float32 vectors of one dimension.

    "flat" compares a query with every vector. "ivf" compares it with the vectors of the `probes` most promising of `lists`
    inverted lists, which are learned from the first vectors that are added: about 4 * sqrt(n) of them, and as few as needed
    to have 39 vectors in each. Scores are computed again in float64 for what faiss finds, so that equal vectors have equal
    scores and their order is that of their positions.

    Searching from several threads is safe; adding and removing is for one thread at a time, without searches beside it.
    Raises `InputError` for an unknown kind or a number below 1.
    """

    def __init__(self, dimension: int, kind: Kind = "flat", lists: int | None = None, probes: int = 16) -> None:
        if kind not in get_args(Kind):
            raise InputError(f"kind: {kind!r} is not one of {', '.join(get_args(Kind))}")
        for field, value in (("dimension", dimension), ("lists", lists), ("probes", probes)):
            if value is not None and value < 1:
                raise InputError(f"{field}: must be at least 1, not {value}")
        self.dimension, self.kind, self.lists, self.probes = dimension, kind, lists, probes
        self._index: Any = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension)) if kind == "flat" else None
        self._positions = np.empty(0, np.int64)  # ascending
        self._writable = True

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, positions: Positions, vectors: NDArray[np.float32]) -> None:
        """Add vectors [n, dimension]. Raises `InputError` for taken positions, a wrong shape, NaN or infinity."""
        self._require_writable()
        positions = np.ascontiguousarray(positions, np.int64)
        vectors = self._checked(vectors, "vectors")
        if len(positions) != len(vectors):
            raise InputError(f"positions: {len(positions)} positions for {len(vectors)} vectors")
        merged = np.sort(np.concatenate([self._positions, positions]))
        if (np.diff(merged) == 0).any():
            raise InputError("positions: a position is already taken or given twice")
        if len(positions):
            if self._index is None:
                self._index = _trained(vectors, self.lists)
            self._index.add_with_ids(vectors, positions)
            self._positions = merged

    def remove(self, positions: Positions) -> None:
        """Forget vectors; positions that are not there are ignored."""
        self._require_writable()
        present = np.intersect1d(self._positions, positions)
        if len(present):
            self._index.remove_ids(faiss.IDSelectorArray(present))
            self._positions = np.setdiff1d(self._positions, present, assume_unique=True)

    def reconstruct(self, positions: Positions) -> NDArray[np.float32]:
        """The vectors at these positions, [n, dimension]. Raises `InputError` if one is not there."""
        positions = np.ascontiguousarray(positions, np.int64)
        if not np.isin(positions, self._positions).all():
            raise InputError("positions: there is no vector at one of them")
        vectors = np.empty((len(positions), self.dimension), np.float32)
        if len(positions):
            self._index.reconstruct_batch(positions, vectors)
        return vectors

    def search(self, queries: NDArray[np.float32], k: int, allowed: Positions | None = None) -> list[Ranking]:
        """For each row of `queries` [n, dimension] at most `k` vectors, best first; see `Index.search`."""
        if k < 1:
            raise InputError(f"k: must be at least 1, not {k}")
        queries = self._checked(queries, "queries")
        if allowed is not None:
            allowed = np.intersect1d(self._positions, allowed)
        available = len(self) if allowed is None else len(allowed)
        if not available:
            return [empty_ranking() for _ in queries]
        params = self._parameters(allowed)
        rankings: dict[int, Ranking] = {}
        wanted = k + _MARGIN
        while open_queries := [i for i in range(len(queries)) if i not in rankings]:
            wanted = min(wanted, available)
            scores, found = self._index.search(queries[open_queries], wanted, params=params)
            for i, row_scores, row in zip(open_queries, scores, found, strict=True):
                real = row >= 0
                complete = wanted == available or not real.all()
                ranking = self._rank(queries[i], row[real], row_scores[real], k, complete)
                if ranking is not None:
                    rankings[i] = ranking
            wanted *= 4
        return [rankings[i] for i in range(len(queries))]

    def save(self, directory: Path) -> None:
        """Write the index into an existing, empty directory: vectors.faiss, positions.npy and settings.json."""
        if self._index is not None:
            faiss.write_index(self._index, str(directory / "vectors.faiss"))
        np.save(directory / "positions.npy", self._positions, allow_pickle=False)
        settings = {field: getattr(self, field) for field in ("dimension", "kind", "lists", "probes")}
        (directory / "settings.json").write_text(json.dumps(settings), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, *, writable: bool = False) -> Self:
        """Read what `save` wrote; the vectors stay on disk unless `writable`, and only then can it be changed."""
        index = cls(**json.loads((directory / "settings.json").read_text(encoding="utf-8")))
        index._positions = np.load(directory / "positions.npy")
        file = directory / "vectors.faiss"
        if len(index._positions) or file.is_file():  # only an index that never held anything has no such file
            index._index = faiss.read_index(str(file), 0 if writable else faiss.IO_FLAG_MMAP_IFC)
        index._writable = writable
        return index

    def _rank(
        self, query: NDArray[np.float32], found: Positions, rough: NDArray[np.float32], k: int, complete: bool
    ) -> Ranking | None:
        """The exact top `k` of what faiss found, or None if what it left out could belong there."""
        vectors = self.reconstruct(found)
        if not complete:
            # the bound on the rounding error of a float32 inner product
            slack = self.dimension * 1.2e-7 * float(np.linalg.norm(query) * np.linalg.norm(vectors, axis=1).max())
            if rough[-1] >= rough[k - 1] - slack:
                return None
        return top_k(found, np.einsum("nd,d->n", vectors, query, dtype=np.float64), k)

    def _parameters(self, allowed: Positions | None) -> Any:
        selection: dict[str, Any] = {}
        if allowed is not None:
            bits = np.zeros(int(allowed[-1]) + 1, bool)
            bits[allowed] = True
            selection["sel"] = faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little"))
        if self.kind == "flat":
            return faiss.SearchParameters(**selection)
        return faiss.SearchParametersIVF(nprobe=min(self.probes, self._index.nlist), **selection)

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


def _trained(vectors: NDArray[np.float32], lists: int | None) -> Any:
    """An empty index of inverted lists, with at most one list per vector."""
    wanted = lists or min(int(4 * len(vectors) ** 0.5), len(vectors) // _POINTS_PER_LIST)
    count = max(1, min(wanted, len(vectors)))
    dimension = vectors.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, count, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # faiss would print a warning otherwise
    index.train(vectors)
    index.set_direct_map_type(faiss.DirectMap.Hashtable)
    return index
