"""LangChain's Embeddings as an encoder, and an encoder as LangChain's Embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings

from ragkit.documents.tokens import RegexTokenizer, Tokenizer
from ragkit.encoders.base import Encoder, Progress, Vectors
from ragkit.errors import InputError

_MODEL_ATTRIBUTES = ("model", "model_name", "model_id", "deployment")


class EmbeddingsEncoder:
    """Any LangChain `Embeddings` as an `Encoder`: hosted models, or a class of the user's own.

    Vectors are taken as they come, not normalised. `name` says what the vectors are, for the fingerprint; without it the
    class's name and the first of its attributes `model`, `model_name`, `model_id` and `deployment` that holds a text do.
    Give a name where other settings change the vectors. `dimension` is found by the first call if it is not given: reading
    it before costs one call. `tokenizer` counts the sizes of passages; LangChain does not tell the model's own.

    The encode methods raise `InputError` if the embeddings return too few vectors, vectors of another length, NaN or
    infinity; errors of the embeddings themselves pass through.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        name: str | None = None,
        dimension: int | None = None,
        tokenizer: Tokenizer | None = None,
        batch_size: int = 256,
    ) -> None:
        """`batch_size` is the number of passages in one call of `embed_documents`."""
        if not isinstance(embeddings, Embeddings):
            raise InputError(f"embeddings: {type(embeddings).__name__} is no langchain_core Embeddings")
        if batch_size < 1:
            raise InputError(f"batch_size: must be at least 1, not {batch_size}")
        self.embeddings = embeddings
        self._name = name
        self._dimension = dimension
        self._tokenizer = tokenizer or RegexTokenizer()
        self._batch_size = batch_size

    @property
    def dimension(self) -> int:
        """Length of a vector; embeds a word to find out if it is not known yet."""
        if self._dimension is None:
            self.encode_queries(["length"])
        assert self._dimension is not None
        return self._dimension

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """The name, or the class and its model attribute."""
        if self._name is not None:
            return {"kind": "langchain", "name": self._name}
        values = (getattr(self.embeddings, attribute, None) for attribute in _MODEL_ATTRIBUTES)
        model = next((value for value in values if isinstance(value, str)), None)
        return {"kind": "langchain", "class": type(self.embeddings).__qualname__, "model": model}

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer given to the constructor."""
        return self._tokenizer

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, one `embed_query` each."""
        return self._checked([self.embeddings.embed_query(text) for text in texts], len(texts))

    async def aencode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, through the embeddings' own async method, all at once."""
        vectors = await asyncio.gather(*(self.embeddings.aembed_query(text) for text in texts))
        return self._checked(vectors, len(texts))

    def encode_documents(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """Vectors of passages, in batches."""
        batches = []
        for start in range(0, len(texts), self._batch_size):
            batch = list(texts[start : start + self._batch_size])
            batches.append(self._checked(self.embeddings.embed_documents(batch), len(batch)))
            if progress:
                progress(len(batch))
        return np.concatenate(batches) if batches else self._checked([], 0)

    def _checked(self, vectors: Sequence[Sequence[float]], expected: int) -> Vectors:
        source = f"embeddings: {type(self.embeddings).__name__} returned"
        if len(vectors) != expected:
            raise InputError(f"{source} {len(vectors)} vectors for {expected} texts")
        if not expected:
            return np.empty((0, self.dimension), np.float32)
        lengths = {len(vector) for vector in vectors}
        dimension = self._dimension or max(lengths)
        if lengths != {dimension} or not dimension:
            found = ", ".join(map(str, sorted(lengths)))
            raise InputError(f"{source} vectors of length {found}, not all of length {dimension}")
        array = np.asarray(vectors, np.float32)
        if not np.isfinite(array).all():
            raise InputError(f"{source} NaN or infinity")
        self._dimension = dimension
        return array


class EncoderEmbeddings(Embeddings):
    """An `Encoder` for places that take LangChain's `Embeddings`, such as its vector stores."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of passages."""
        vectors: list[list[float]] = self.encoder.encode_documents(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Vector of a question."""
        vector: list[float] = self.encoder.encode_queries([text])[0].tolist()
        return vector

    async def aembed_query(self, text: str) -> list[float]:
        """Vector of a question, without blocking the event loop."""
        vector: list[float] = (await self.encoder.aencode_queries([text]))[0].tolist()
        return vector
