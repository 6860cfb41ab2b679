"""Encoders that are another one, but for what they change."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from ragkit.documents.tokens import Tokenizer
from ragkit.encoders.base import Encoder, Progress, Vectors


class EncoderOver(ABC):
    """Base of an `Encoder` that asks another one. Its vectors are the other's, so it goes by the other's fingerprint."""

    @property
    @abstractmethod
    def encoder(self) -> Encoder:
        """Who is asked."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.encoder.dimension

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """See `Encoder.fingerprint`."""
        return self.encoder.fingerprint

    @property
    def tokenizer(self) -> Tokenizer:
        """See `Encoder.tokenizer`."""
        return self.encoder.tokenizer

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.encode_queries`."""
        return self.encoder.encode_queries(texts)

    async def aencode_queries(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.aencode_queries`."""
        return await self.encoder.aencode_queries(texts)

    def encode_documents(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """See `Encoder.encode_documents`."""
        return self.encoder.encode_documents(texts, progress)
