"""Each sentence is encoded once, however many questions and pruners ask for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragkit.encoders.base import Encoder, Progress, Vectors
from ragkit.encoders.over import EncoderOver


class EncodeOnce(EncoderOver):
    """An `Encoder` that remembers the vectors of documents for as long as it lives."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[str, Vectors] = {}

    @property
    def encoder(self) -> Encoder:
        """See `EncoderOver.encoder`."""
        return self._encoder

    def encode_documents(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """See `Encoder.encode_documents`; `progress` is only told of texts that are new."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.encode_documents(new, progress), strict=True))
        vectors: Vectors = np.array([self._known[text] for text in texts], np.float32).reshape(len(texts), self.dimension)
        return vectors
