"""Compact codes of vectors in faiss: they find candidates, whose exact scores come from the vectors themselves."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ragkit.indexes.kinds import Kind
from ragkit.indexes.kmeans import ROUNDS, assign, kmeans
from ragkit.indexes.vectors import Vectors

faiss: Any = import_module("faiss")  # its type stubs leave out the Python layer over the C++ library

Floats = NDArray[np.float32]

LEAST = 256
"""Fewer rows cannot be encoded: a product code has so many values per byte to learn."""
_FILE, _ROTATION = "codes.faiss", "rotation.npy"
_POINTS_PER_LIST = 39  # below this, k-means has too little to learn a list from
_SAMPLE = 256 * _POINTS_PER_LIST  # vectors that byte codes and product codes are learned from
_LINKS = 16  # per node and layer of a graph; twice as many in the lowest layer
_BREADTH = 80  # of the search for a new node's neighbours
_QUERY_BITS = 8
_WIDER = 8  # how much wider a graph is searched, at most, because a filter leaves out much of it


class Codes:
    """Codes of the rows of `Vectors`, by the same numbers: every row is encoded, whether it is still live or not.

    "hnsw": a graph (Malkov and Yashunin, 2018) over one byte per dimension; its recall falls under filters that leave little
    near the query. "ivf": inverted lists with one byte per dimension. "sq8": one byte per dimension, all compared. "ivfpq":
    inverted lists with product codes of a byte for 8 dimensions (Jégou et al., 2011). "binary": inverted lists with one bit per
    rotated dimension, which the query is compared with in 8 bits (RaBitQ: Gao and Long, 2024).
    """

    def __init__(self, kind: Kind, index: Any, rotation: Floats | None = None) -> None:
        """Use `build` or `load` instead."""
        self.kind, self._index, self._rotation = kind, index, rotation
        self._centroids = index.quantizer.reconstruct_n(0, index.nlist) if _has_lists(kind) else None

    @classmethod
    def build(cls, kind: Kind, vectors: Vectors, lists: int | None = None) -> Self:
        """Learn from a sample of at least `LEAST` rows, always the same, and encode all. `lists` defaults to 2 * sqrt(rows)."""
        rows, dimension = len(vectors), vectors.dimension
        random = np.random.default_rng(0)
        rotation = None
        if kind == "binary":
            rotation = np.linalg.qr(random.normal(size=(dimension, dimension)))[0].astype(np.float32)
        count = 0
        if _has_lists(kind):
            count = max(1, min(lists or int(2 * rows**0.5), rows // _POINTS_PER_LIST))
        size = min(rows, max(_SAMPLE, _POINTS_PER_LIST * count))
        sample = vectors.take(np.sort(random.choice(rows, size, replace=False)))
        if rotation is not None:
            sample = sample @ rotation
        index = _empty(kind, dimension, count)
        if count:
            index.quantizer.add(kmeans(sample, count))
        index.train(sample[random.choice(size, min(size, _SAMPLE), replace=False)])
        codes = cls(kind, index, rotation)
        for _, block in vectors.blocks():
            codes.add(block.astype(np.float32, copy=False))
        return codes

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, vectors: Floats) -> None:
        """Encode the next rows [n, dimension]."""
        vectors = self._turned(vectors)
        if self._centroids is None:
            self._index.add(vectors)
        else:
            # the centroids are compared here, since matrix products of faiss are slow in some builds
            nearest, pointer = assign(vectors, self._centroids), faiss.swig_ptr
            self._index.add_core(len(vectors), pointer(vectors), None, pointer(nearest))

    def candidates(
        self, queries: Floats, count: int, probes: int | None = None, chosen: NDArray[np.bool_] | None = None
    ) -> tuple[Floats, NDArray[np.int64]]:
        """The `count` best rows by approximate inner product, best first, and these products; -1 fills up.

        `probes` of the lists are looked into, by default a 32nd of them and at least 16. `chosen` [rows] leaves rows out.
        """
        queries = self._turned(queries)
        selection: dict[str, Any] = {}
        if chosen is not None:
            selection["sel"] = faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
        if self._centroids is not None:
            return self._probe(queries, count, probes or max(16, len(self._centroids) // 32), selection)
        params = faiss.SearchParameters(**selection)
        if self.kind == "hnsw":
            share = 1.0 if chosen is None else float(np.count_nonzero(chosen)) / len(chosen)
            params = faiss.SearchParametersHNSW(efSearch=int(count * min(1 / share, _WIDER)), **selection)
        scores, rows = self._index.search(queries, count, params=params)
        return scores, rows

    def save(self, directory: Path) -> None:
        """Write codes.faiss into a directory, and rotation.npy if there is one."""
        faiss.write_index(self._index, str(directory / _FILE))
        if self._rotation is not None:
            np.save(directory / _ROTATION, self._rotation, allow_pickle=False)

    @classmethod
    def load(cls, directory: Path, kind: Kind, *, writable: bool = False) -> Self:
        """Read what `save` wrote; the codes stay on disk unless `writable`."""
        index = faiss.read_index(str(directory / _FILE), 0 if writable else faiss.IO_FLAG_MMAP_IFC)
        return cls(kind, index, np.load(directory / _ROTATION) if (directory / _ROTATION).exists() else None)

    def _turned(self, vectors: Floats) -> Floats:
        return np.ascontiguousarray(vectors if self._rotation is None else vectors @ self._rotation, np.float32)

    def _probe(self, queries: Floats, count: int, probes: int, selection: dict[str, Any]) -> tuple[Floats, NDArray[np.int64]]:
        assert self._centroids is not None
        probes = min(probes, len(self._centroids))
        products = queries @ self._centroids.T
        lists = np.argpartition(-products, probes - 1, axis=1)[:, :probes]
        near = np.take_along_axis(products, lists, axis=1)
        order = np.argsort(-near, axis=1, kind="stable")
        lists = np.ascontiguousarray(np.take_along_axis(lists, order, axis=1), np.int64)
        near = np.ascontiguousarray(np.take_along_axis(near, order, axis=1), np.float32)
        if self.kind == "binary":
            params = faiss.IVFRaBitQSearchParameters()
            params.qb = _QUERY_BITS
            params.nprobe = probes
            if selection:
                params.sel = selection["sel"]
        else:
            params = faiss.SearchParametersIVF(nprobe=probes, **selection)
        scores, rows = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)
        pointer = faiss.swig_ptr
        self._index.search_preassigned_c(
            len(queries), pointer(queries), count, pointer(lists), pointer(near), pointer(scores), pointer(rows), False, params
        )
        return scores, rows


def _has_lists(kind: Kind) -> bool:
    return kind in ("ivf", "ivfpq", "binary")


def _empty(kind: Kind, dimension: int, lists: int) -> Any:
    metric, byte = faiss.METRIC_INNER_PRODUCT, faiss.ScalarQuantizer.QT_8bit
    if kind == "sq8":
        return faiss.IndexScalarQuantizer(dimension, byte, metric)
    if kind == "hnsw":
        graph = faiss.IndexHNSWSQ(dimension, byte, _LINKS, metric)
        graph.hnsw.efConstruction = _BREADTH
        return graph
    coarse = faiss.IndexFlatIP(dimension)
    if kind == "ivf":
        index = faiss.IndexIVFScalarQuantizer(coarse, dimension, lists, byte, metric, False)
    elif kind == "ivfpq":
        index = faiss.IndexIVFPQ(coarse, dimension, lists, _parts(dimension), 8, metric)
        index.pq.cp.niter = ROUNDS
        index.pq.cp.min_points_per_centroid = 1  # faiss would print a warning otherwise
    else:
        index = faiss.IndexIVFRaBitQ(coarse, dimension, lists, metric)
    coarse.this.disown()  # so that it lives as long as the index that uses it
    index.own_fields = True
    return index


def _parts(dimension: int) -> int:
    """Of how many bytes a product code consists: the most, so that each stands for at least 8 dimensions."""
    return next(parts for parts in range(max(dimension // 8, 1), 0, -1) if dimension % parts == 0)
