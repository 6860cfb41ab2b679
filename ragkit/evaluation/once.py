"""Each sentence is encoded once, however many questions and pruners ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ragkit.documents.tokens import Tokenizer
from ragkit.encoders.base import Encoder, Progress, Vectors


class EncodeOnce:
    """An `Encoder` that remembers the vectors of documents for as long as it lives."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[str, Vectors] = {}

    @property
    def dimension(self) -> int:
        """See `Encoder.dimension`."""
        return self._encoder.dimension

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """See `Encoder.fingerprint`."""
        return self._encoder.fingerprint

    @property
    def tokenizer(self) -> Tokenizer:
        """See `Encoder.tokenizer`."""
        return self._encoder.tokenizer

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.encode_queries`."""
        return self._encoder.encode_queries(texts)

    async def aencode_queries(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.aencode_queries`."""
        return await self._encoder.aencode_queries(texts)

    def encode_documents(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """See `Encoder.encode_documents`; `progress` is only told of texts that are new."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.encode_documents(new, progress), strict=True))
        vectors: Vectors = np.array([self._known[text] for text in texts], np.float32).reshape(len(texts), self.dimension)
        return vectors
