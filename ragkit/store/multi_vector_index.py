"""Joins a late-interaction encoder to the index of its vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ragkit.corpus.rows import IndexedText
from ragkit.encoders.base import Progress
from ragkit.encoders.multi_vector_base import MultiVectorEncoder
from ragkit.errors import InputError
from ragkit.store.encoded_index import EncodedIndex, check_encoder

if TYPE_CHECKING:
    from ragkit.indexes.multi_vector import MultiVectorIndex

_CHUNK = 2048  # texts whose vectors are in float32 at a time


class LateInteractionIndex(EncodedIndex):
    """Token vectors of a late-interaction encoder, ranked by MaxSim; a `TextIndex`."""

    kind = "late-interaction"
    encoder: MultiVectorEncoder
    index: MultiVectorIndex

    def __init__(self, encoder: MultiVectorEncoder, index: MultiVectorIndex | None = None, **options: Any) -> None:
        """`options` are those of `MultiVectorIndex`; `index` is one that is there already, with its own."""
        from ragkit.indexes.multi_vector import MultiVectorIndex

        self.encoder = encoder
        self.index = MultiVectorIndex(encoder.dimension, **options) if index is None else index

    @property
    def settings(self) -> dict[str, Any]:
        """See `TextIndex.settings`."""
        return {"encoder": dict(self.encoder.fingerprint), "vectors": self.index.settings}

    def prepare(self, texts: Sequence[IndexedText], twins: Sequence[int | None], progress: Progress | None = None) -> list[Any]:
        """See `TextIndex.prepare`; a text whose twin is indexed is not encoded again. Returns a matrix for each text."""
        matrices: list[Any] = [None] * len(texts)
        known = [(row, twin) for row, twin in enumerate(twins) if twin is not None]
        if known:
            positions = np.array([twin for _, twin in known], np.int64)
            for (row, _), matrix in zip(known, self.index.vectors(positions), strict=True):
                matrices[row] = matrix
        fresh = [row for row, twin in enumerate(twins) if twin is None]
        for start in range(0, len(fresh), _CHUNK):
            rows = fresh[start : start + _CHUNK]
            encoded = self.encoder.encode_documents([texts[row].whole for row in rows], progress)
            name = self.encoder.fingerprint.get("model")
            if len(encoded) != len(rows):
                raise InputError(f"encoder {name!r}: gave {len(encoded)} matrices for {len(rows)} texts")
            for row, matrix in zip(rows, self.index.stored(encoded, f"encoder {name!r}: vectors"), strict=True):
                matrices[row] = matrix
        return matrices

    @classmethod
    def load(cls, directory: Path, settings: Mapping[str, Any], encoder: Callable[[], Any], *, writable: bool = False) -> Self:
        """See `TextIndex.load`."""
        from ragkit.indexes.multi_vector import MultiVectorIndex

        own: MultiVectorEncoder = encoder()
        check_encoder(settings["encoder"], own.fingerprint)
        return cls(own, MultiVectorIndex.load(directory, writable=writable))
