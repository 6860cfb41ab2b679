"""Joins a learned sparse encoder to the inverted index."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ragkit.corpus.rows import IndexedText
from ragkit.encoders.base import Progress
from ragkit.encoders.sparse_base import TermEncoder
from ragkit.errors import InputError, StoreError
from ragkit.indexes.base import Positions, Ranking
from ragkit.sparse_vectors import SparseVectors

if TYPE_CHECKING:
    from ragkit.indexes.impact import ImpactIndex


class SparseIndex:
    """Weighted terms of a learned sparse encoder in the inverted index; a `TextIndex`."""

    kind = "sparse"

    def __init__(self, encoder: TermEncoder, ceiling: float | None = None, index: ImpactIndex | None = None) -> None:
        """`ceiling` keeps weights in 8 bits, see `ImpactIndex`; `index` is one that is there already, with its own."""
        from ragkit.indexes.impact import ImpactIndex

        self.encoder = encoder
        self.index = ImpactIndex(ceiling) if index is None else index

    @property
    def settings(self) -> dict[str, Any]:
        """See `TextIndex.settings`."""
        return {"encoder": dict(self.encoder.fingerprint), "impact": self.index.settings}

    def __len__(self) -> int:
        return len(self.index)

    def prepare(
        self, texts: Sequence[IndexedText], twins: Sequence[int | None], progress: Progress | None = None
    ) -> SparseVectors:
        """See `TextIndex.prepare`; each distinct text is encoded once, twins too, for the index does not give vectors back."""
        distinct = {text: row for row, text in enumerate(dict.fromkeys(text.whole for text in texts))}
        vectors = self.encoder.encode_documents(list(distinct), progress)
        fine = np.isfinite(vectors.weights).all() and (vectors.weights >= 0).all() and (vectors.terms >= 0).all()
        if len(vectors) != len(distinct) or not fine:
            raise InputError(
                f"encoder {self.encoder.fingerprint.get('model')!r}: gave {len(vectors)} vectors for {len(distinct)} texts, or "
                "term ids or weights that are negative or not finite"
            )
        if progress and len(distinct) < len(texts):
            progress(len(texts) - len(distinct))
        return vectors.take(np.array([distinct[text.whole] for text in texts], np.int64))

    def add(self, positions: Positions, prepared: SparseVectors) -> None:
        """See `TextIndex.add`."""
        self.index.add(positions, prepared)

    def remove(self, positions: Positions) -> None:
        """See `TextIndex.remove`."""
        self.index.remove(positions)

    def search(self, queries: Sequence[str], k: int, allowed: Positions | None = None) -> list[Ranking]:
        """See `TextIndex.search`."""
        return self.index.search(self.query_vectors(queries), k, allowed)

    async def asearch(self, queries: Sequence[str], k: int, allowed: Positions | None = None) -> list[Ranking]:
        """See `TextIndex.asearch`."""
        vectors = await self.aquery_vectors(queries)
        return await asyncio.to_thread(self.index.search, vectors, k, allowed)

    def query_vectors(self, queries: Sequence[str]) -> SparseVectors:
        """See `VectorIndex.query_vectors`."""
        return self.encoder.encode_queries(queries)

    async def aquery_vectors(self, queries: Sequence[str]) -> SparseVectors:
        """See `VectorIndex.aquery_vectors`."""
        return await self.encoder.aencode_queries(queries)

    def passage_vectors(self, texts: Sequence[IndexedText], twins: Sequence[int | None]) -> SparseVectors:
        """See `VectorIndex.passage_vectors`."""
        return self.prepare(texts, twins)

    def search_vectors(self, vectors: SparseVectors, k: int, allowed: Positions | None = None) -> list[Ranking]:
        """See `VectorIndex.search_vectors`."""
        return self.index.search(vectors, k, allowed)

    def save(self, directory: Path) -> None:
        """See `TextIndex.save`."""
        self.index.save(directory)

    @classmethod
    def load(cls, directory: Path, settings: Mapping[str, Any], encoder: Callable[[], Any], *, writable: bool = False) -> Self:
        """See `TextIndex.load`."""
        from ragkit.indexes.impact import ImpactIndex

        own: TermEncoder = encoder()
        check_encoder(settings["encoder"], own.fingerprint)
        return cls(own, index=ImpactIndex.load(directory, writable=writable))


def check_encoder(built: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise `StoreError` if an index was built with another encoder than the given one, by their fingerprints."""
    differing = sorted(key for key in built.keys() | given.keys() if built.get(key) != given.get(key))
    # a digest of the weights says more than the name of the folder they lie in
    if differing and not (differing == ["model"] and "digest" in given):
        raise StoreError(
            f"this index was built with encoder {built.get('model')!r}, not {given.get('model')!r} "
            f"(different: {', '.join(differing)}); open it with that encoder, or index again"
        )
