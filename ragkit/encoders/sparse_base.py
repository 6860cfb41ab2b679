"""The contract of a learned sparse encoder, and what a user may pass as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ragkit.documents.tokens import Tokenizer
from ragkit.encoders.base import Progress
from ragkit.errors import InputError
from ragkit.sparse_vectors import SparseVectors


class TermEncoder(Protocol):
    """Text to weighted terms of one vocabulary; scores are inner products. Queries and documents may be encoded differently."""

    @property
    def vocabulary(self) -> int:
        """Number of terms; term ids are below it."""
        ...

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """JSON-serialisable facts that are equal if and only if two encoders give the same vectors."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer whose tokens sizes are counted in."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> SparseVectors:
        """Weighted terms of questions; weights are positive."""
        ...

    async def aencode_queries(self, texts: Sequence[str]) -> SparseVectors:
        """Weighted terms of questions, without blocking the event loop."""
        ...

    def encode_documents(self, texts: Sequence[str], progress: Progress | None = None) -> SparseVectors:
        """Weighted terms of passages; weights are positive."""
        ...

    def terms(self, ids: Sequence[int]) -> list[str]:
        """What the vocabulary calls these terms."""
        ...


SparseEncoderLike = TermEncoder | str | Path
"""What may be given wherever a learned sparse encoder is needed."""


def as_sparse_encoder(value: SparseEncoderLike | Any) -> TermEncoder:
    """An encoder as it is, or a model by its folder or hub name.

    Raises `InputError` for anything else; there is no default model.
    """
    if isinstance(value, str | Path):
        from ragkit.encoders.sparse import SparseEncoder

        return SparseEncoder(value)
    methods = ("encode_queries", "aencode_queries", "encode_documents", "terms")
    if all(hasattr(type(value), method) for method in methods):
        encoder: TermEncoder = value
        return encoder
    given = "None" if value is None else f"{type(value).__name__}, which is no sparse encoder"
    raise InputError(
        f"encoder: learned sparse retrieval needs a SparseEncoder or the folder or hub name of a sparse model, not {given}"
    )
