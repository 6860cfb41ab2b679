"""What a user may pass as an encoder, turned into one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from langchain_core.embeddings import Embeddings

from ragkit.encoders.base import Encoder
from ragkit.encoders.dense import DenseEncoder
from ragkit.encoders.langchain import EmbeddingsEncoder
from ragkit.errors import InputError

EncoderLike = Encoder | Embeddings | str | Path | None
"""What may be given wherever an encoder is needed."""


def as_encoder(value: EncoderLike = None) -> Encoder:
    """An encoder as it is, LangChain embeddings adapted, a model by its folder or hub name, or the default for None.

    Raises `InputError` for anything else.
    """
    if value is None:
        return _default()
    if isinstance(value, str | Path):
        return DenseEncoder(value)
    if isinstance(value, Embeddings):
        return EmbeddingsEncoder(value)
    # not isinstance(value, Encoder): before Python 3.12 that reads the properties, which may load a model or call a service
    if all(hasattr(type(value), method) for method in ("encode_queries", "aencode_queries", "encode_documents")):
        return value
    raise InputError(f"encoder: {type(value).__name__} is neither an encoder, LangChain embeddings, nor a model's name")


@cache
def _default() -> DenseEncoder:
    """One for the whole process: index, retriever and pruner then share the loaded weights."""
    return DenseEncoder()
