"""The contract of a dense encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ragkit.documents.tokens import Tokenizer

Vectors = NDArray[np.float32]
Progress = Callable[[int], None]
"""Called with the number of texts finished since the last call."""


@runtime_checkable
class Encoder(Protocol):
    """Text to vectors of shape [n, dimension], float32. Queries and documents may be encoded differently."""

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

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions."""
        ...

    async def aencode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, without blocking the event loop."""
        ...

    def encode_documents(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """Vectors of passages."""
        ...
