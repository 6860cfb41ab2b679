"""The contract of an encoder that gives one vector per token, and what a user may pass as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from ragkit.documents.spans import Span
from ragkit.documents.tokens import Tokenizer
from ragkit.encoders.base import Progress, Vectors
from ragkit.errors import InputError


class MultiVectorEncoder(Protocol):
    """Text to a matrix [vectors, dimension] of at least one vector of length 1; scores are MaxSim."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """JSON-serialisable facts that are equal if and only if two encoders give the same vectors."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer whose tokens sizes are counted in."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> list[Vectors]:
        """A matrix for each question."""
        ...

    async def aencode_queries(self, texts: Sequence[str]) -> list[Vectors]:
        """A matrix for each question, without blocking the event loop."""
        ...

    def encode_documents(self, texts: Sequence[str], progress: Progress | None = None) -> list[Vectors]:
        """A matrix for each passage."""
        ...

    def encode_spans(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[list[Vectors]]:
        """For each passage a matrix for each of its spans: the vectors of the tokens that end there, read in the passage."""
        ...


MultiVectorEncoderLike = MultiVectorEncoder | str | Path | None
"""What may be given wherever a late-interaction encoder is needed."""


def as_multi_vector_encoder(value: MultiVectorEncoderLike | Any = None) -> MultiVectorEncoder:
    """An encoder as it is, a model by its folder or hub name, or token vectors of the default model for None.

    Raises `InputError` for anything else.
    """
    if value is None:
        return _default()
    if isinstance(value, str | Path):
        from ragkit.encoders.multi_vector import ColBERTEncoder

        return ColBERTEncoder(value)
    if all(hasattr(type(value), method) for method in ("encode_queries", "aencode_queries", "encode_documents", "encode_spans")):
        encoder: MultiVectorEncoder = value
        return encoder
    raise InputError(
        f"encoder: late interaction needs a ColBERTEncoder or the folder or hub name of a model, not {type(value).__name__}"
    )


@cache
def _default() -> MultiVectorEncoder:
    """One for the whole process: index, reranker and pruner then share the loaded weights."""
    from ragkit.encoders.multi_vector import ColBERTEncoder

    return ColBERTEncoder()
