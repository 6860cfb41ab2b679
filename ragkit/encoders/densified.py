"""Sparse vectors made dense and short, so that a sparse model can live in an index of dense vectors.

"Densifying Sparse Representations for Passage Retrieval by Representational Slicing" (Lin and Lin, 2021, arXiv:2112.04666): the
vocabulary is cut into slices; of each slice a text keeps its largest weight, and which of the slice's terms has it. Two texts
are compared by the gated inner product, which counts a slice only where both have kept the same term.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragkit.documents.tokens import Tokenizer
from ragkit.encoders.base import Encoder, Progress, Vectors
from ragkit.encoders.sparse_base import TermEncoder
from ragkit.errors import InputError
from ragkit.sparse_vectors import SparseVectors

Indices = NDArray[np.int32]


def densify(vectors: SparseVectors, vocabulary: int, slices: int) -> tuple[Vectors, Indices]:
    """The largest weight of each slice, [n, slices] float32, and the place of its term in the slice, [n, slices] int32.

    Term t is the one at place t // slices of slice t % slices. Of equal weights the lower term is kept. A slice in which a text
    has no term has the weight 0 and the place -1. Raises `InputError` if there are not between 1 and `vocabulary` slices, if a
    term is not below `vocabulary`, or if a weight is negative.
    """
    if not 1 <= slices <= vocabulary:
        raise InputError(f"slices: must be from 1 to the {vocabulary} terms of the vocabulary, not {slices}")
    terms, weights = vectors.terms, vectors.weights
    if len(terms) and not 0 <= terms.min() <= terms.max() < vocabulary:
        raise InputError(f"vectors: a term is not one of the {vocabulary} of the vocabulary")
    if (weights < 0).any():
        raise InputError("vectors: a weight is negative")
    owners = np.repeat(np.arange(len(vectors)), np.diff(vectors.starts))
    # the last of several assignments to one place stays: that of the largest weight and, among equals, of the lowest term
    order = np.lexsort((-terms, weights))
    places = owners[order], terms[order] % slices
    values, indices = np.zeros((len(vectors), slices), np.float32), np.full((len(vectors), slices), -1, np.int32)
    values[places], indices[places] = weights[order], terms[order] // slices
    return values, indices


def gated_inner_product(query_values: Vectors, query_indices: Indices, values: Vectors, indices: Indices) -> NDArray[np.float64]:
    """Scores of documents [n, slices] for one query [slices], all as `densify` gives them: [n] float64.

    The sum over slices of the product of the weights, where the places agree. It is the inner product of the sparse vectors,
    but for what was lost where several terms of a text share a slice; with as many slices as terms nothing is.
    """
    return np.where(indices == query_indices, values, np.float32(0)).astype(np.float64) @ query_values.astype(np.float64)


class DensifiedEncoder:
    """A sparse model as an `Encoder`: the densified weights, and behind them, if given, the vector of a dense encoder.

    An inner product of such vectors is the sum over slices of the products of weights plus `weight` times the dense encoder's
    score. The index knows nothing of places, so this is an approximation: it also counts slices in which query and document
    have kept different terms. Weights are not negative, so it is never below the gated score, and the more slices there are for
    the terms that a text has, the closer it comes. Take more candidates than needed from the index, and rescore them
    with `gated_inner_product` on what `densify_queries` and `densify_documents` give, plus `weight` times the dense score. If the
    k-th best rescored candidate then scores at least as high as the lowest candidate did in the index, no other text beats the k
    best.
    """

    def __init__(self, sparse: TermEncoder, slices: int = 768, *, dense: Encoder | None = None, weight: float = 1.0) -> None:
        """`weight` of the dense encoder's score beside the sparse one's; it goes into the vectors of queries only."""
        if slices < 1:
            raise InputError(f"slices: must be at least 1, not {slices}")
        if not 0 <= weight < float("inf"):
            raise InputError(f"weight: must be a number from 0 on, not {weight}")
        self.sparse, self.dense, self.slices, self.weight = sparse, dense, slices, weight

    def __repr__(self) -> str:
        return f"DensifiedEncoder({self.sparse!r}, {self.slices}, dense={self.dense!r}, weight={self.weight})"

    @property
    def dimension(self) -> int:
        """Length of a vector: the slices, and the dense encoder's dimension."""
        return self.slices + (0 if self.dense is None else self.dense.dimension)

    @property
    def tokenizer(self) -> Tokenizer:
        """The sparse model's tokenizer."""
        return self.sparse.tokenizer

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """The encoders' fingerprints, the number of slices and the weight."""
        sparse = dict(self.sparse.fingerprint)
        dense = None if self.dense is None else dict(self.dense.fingerprint)
        facts = {"kind": "densified", "model": sparse.get("model"), "slices": self.slices, "sparse": sparse, "dense": dense}
        return facts if dense is None else facts | {"weight": self.weight}

    def densify_queries(self, texts: Sequence[str]) -> tuple[Vectors, Indices]:
        """Densified weights of questions and their places, see `densify`."""
        return densify(self.sparse.encode_queries(texts), self.sparse.vocabulary, self.slices)

    def densify_documents(self, texts: Sequence[str], progress: Progress | None = None) -> tuple[Vectors, Indices]:
        """Densified weights of passages and their places, see `densify`."""
        return densify(self.sparse.encode_documents(texts, progress), self.sparse.vocabulary, self.slices)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, [n, dimension] float32."""
        values, _ = self.densify_queries(texts)
        return values if self.dense is None else self._joined(values, self.dense.encode_queries(texts), self.weight)

    async def aencode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, without blocking the event loop."""
        if self.dense is None:
            return await asyncio.to_thread(self.encode_queries, texts)
        vectors, dense = await asyncio.gather(self.sparse.aencode_queries(texts), self.dense.aencode_queries(texts))
        values, _ = await asyncio.to_thread(densify, vectors, self.sparse.vocabulary, self.slices)
        return self._joined(values, dense, self.weight)

    def encode_documents(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """Vectors of passages, [n, dimension] float32; progress is that of the sparse model."""
        values, _ = self.densify_documents(texts, progress)
        return values if self.dense is None else self._joined(values, self.dense.encode_documents(texts), 1.0)

    @staticmethod
    def _joined(values: Vectors, dense: Vectors, weight: float) -> Vectors:
        return np.concatenate([values, np.asarray(dense, np.float32) * np.float32(weight)], axis=1)
