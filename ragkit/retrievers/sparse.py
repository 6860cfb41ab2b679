"""Learned sparse retrieval."""

from __future__ import annotations

from typing import Any

from ragkit.encoders.sparse_base import SparseEncoderLike, as_sparse_encoder
from ragkit.retrievers.base import UnknownOptionError
from ragkit.retrievers.single import IndexRetriever
from ragkit.store.sparse_index import SparseIndex
from ragkit.store.text_index import TextIndex


class SparseRetriever(IndexRetriever):
    """Ranks passages by the inner product of their weighted terms with the question's. Returns only those that share a term.

    Options of `from_documents`: `encoder` (a `SparseEncoder`, or the folder or hub name of a sparse model; there is no default)
    and `ceiling` (a weight; those of passages are then kept in 8 bits, see `ImpactIndex`).
    """

    index_name: str = "sparse"
    """Which of the store's indexes to search."""

    @property
    def score_floor(self) -> float | None:
        """Weights are not negative."""
        return 0.0

    @classmethod
    def indexes(
        cls, *, encoder: SparseEncoderLike | None = None, ceiling: float | None = None, **unknown: Any
    ) -> dict[str, TextIndex]:
        """See `StoreRetriever.indexes`."""
        if unknown:
            raise UnknownOptionError(next(iter(unknown)))
        return {"sparse": SparseIndex(as_sparse_encoder(encoder), ceiling)}
