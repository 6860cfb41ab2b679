"""Joins a learned sparse encoder to the inverted index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ragkit.corpus.rows import IndexedText
from ragkit.encoders.base import Progress
from ragkit.encoders.sparse_base import TermEncoder
from ragkit.errors import InputError
from ragkit.sparse_vectors import SparseVectors
from ragkit.store.encoded_index import EncodedVectorIndex, check_encoder

if TYPE_CHECKING:
    from ragkit.indexes.impact import ImpactIndex


class SparseIndex(EncodedVectorIndex):
    """Weighted terms of a learned sparse encoder in the inverted index; a `TextIndex`."""

    kind = "sparse"
    encoder: TermEncoder
    index: ImpactIndex

    def __init__(self, encoder: TermEncoder, ceiling: float | None = None, index: ImpactIndex | None = None) -> None:
        """`ceiling` keeps weights in 8 bits, see `ImpactIndex`; `index` is one that is there already, with its own."""
        from ragkit.indexes.impact import ImpactIndex

        self.encoder = encoder
        self.index = ImpactIndex(ceiling) if index is None else index

    @property
    def settings(self) -> dict[str, Any]:
        """See `TextIndex.settings`."""
        return {"encoder": dict(self.encoder.fingerprint), "impact": self.index.settings}

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

    @classmethod
    def load(cls, directory: Path, settings: Mapping[str, Any], encoder: Callable[[], Any], *, writable: bool = False) -> Self:
        """See `TextIndex.load`."""
        from ragkit.indexes.impact import ImpactIndex

        own: TermEncoder = encoder()
        check_encoder(settings["encoder"], own.fingerprint)
        return cls(own, index=ImpactIndex.load(directory, writable=writable))

    @classmethod
    def empty(cls, settings: Mapping[str, Any], encoder: Callable[[], Any]) -> Self:
        """One with these settings and no texts. Raises `StoreError` if they are those of another encoder."""
        from ragkit.indexes.impact import ImpactIndex

        own: TermEncoder = encoder()
        check_encoder(settings["encoder"], own.fingerprint)
        return cls(own, index=ImpactIndex(**settings["impact"]))
