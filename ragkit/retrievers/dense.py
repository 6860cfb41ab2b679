"""Dense retrieval."""

from __future__ import annotations

from typing import Any, Literal

from ragkit.encoders.factory import EncoderLike, as_encoder
from ragkit.errors import InputError
from ragkit.retrievers.single import IndexRetriever
from ragkit.store.text_index import DenseIndex, TextIndex


class DenseRetriever(IndexRetriever):
    """Ranks passages by the inner product of their vector with the question's (cosine, if the encoder normalises).

    Options of `from_documents`: `encoder` (an `Encoder`, a LangChain `Embeddings`, a path or a hub name; default: the packaged
    all-MiniLM-L6-v2) and `index_kind` ("flat" or "ivf").
    """

    index_name: str = "dense"
    """Which of the store's indexes to search."""

    @property
    def score_floor(self) -> float | None:
        """The lowest cosine."""
        return -1.0

    @classmethod
    def indexes(
        cls, *, encoder: EncoderLike = None, index_kind: Literal["flat", "ivf"] = "flat", **unknown: Any
    ) -> dict[str, TextIndex]:
        """See `StoreRetriever.indexes`."""
        if unknown:
            raise InputError(
                f"unknown option {next(iter(unknown))!r}; a dense retriever takes encoder, index_kind and its fields"
            )
        return {"dense": DenseIndex(as_encoder(encoder), index_kind)}
