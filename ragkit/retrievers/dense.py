"""Dense retrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ragkit.encoders.factory import EncoderLike, as_encoder
from ragkit.indexes.kinds import IndexKind
from ragkit.retrievers.base import UnknownOptionError
from ragkit.retrievers.single import IndexRetriever
from ragkit.store.text_index import DenseIndex, TextIndex

if TYPE_CHECKING:
    from ragkit.indexes.dense import FaissIndex


class DenseRetriever(IndexRetriever):
    """Ranks passages by the inner product of their vector with the question's (cosine, if the encoder normalises).

    Options of `from_documents`: `encoder` (an `Encoder`, a LangChain `Embeddings`, a path or a hub name; default: the packaged
    all-MiniLM-L6-v2) and `index_kind`: "auto" (exact up to 100,000 passages, then codes that find candidates), "flat", "hnsw",
    "ivf", "sq8", "ivfpq" or "binary", see `indexes.codes.Codes`; or an empty `FaissIndex`, which has more options.
    """

    index_name: str = "dense"
    """Which of the store's indexes to search."""

    @property
    def score_floor(self) -> float | None:
        """The lowest cosine."""
        return -1.0

    @classmethod
    def indexes(
        cls, *, encoder: EncoderLike = None, index_kind: IndexKind | FaissIndex = "auto", **unknown: Any
    ) -> dict[str, TextIndex]:
        """See `StoreRetriever.indexes`."""
        if unknown:
            raise UnknownOptionError(next(iter(unknown)))
        return {"dense": DenseIndex(as_encoder(encoder), index_kind)}
