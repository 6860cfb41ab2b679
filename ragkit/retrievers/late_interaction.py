"""Late-interaction retrieval."""

from __future__ import annotations

from typing import Any

from ragkit.encoders.multi_vector_base import MultiVectorEncoderLike, as_multi_vector_encoder
from ragkit.retrievers.base import UnknownOptionError
from ragkit.retrievers.single import IndexRetriever
from ragkit.store.multi_vector_index import LateInteractionIndex
from ragkit.store.text_index import TextIndex

_OPTIONS = ("candidates", "precision", "repetitions", "bits", "projected", "final", "seed")


class LateInteractionRetriever(IndexRetriever):
    """Ranks passages by MaxSim between the question's token vectors and theirs (ColBERT).

    Candidates come from one vector per passage (MUVERA); only their token vectors are read. Options of `from_documents`:
    `encoder` (a `ColBERTEncoder`, or the folder or hub name of a model; None is all-MiniLM-L6-v2), and `candidates`, `precision`,
    `repetitions`, `bits`, `projected`, `final` and `seed` of `MultiVectorIndex`.
    """

    index_name: str = "late-interaction"
    """Which of the store's indexes to search."""

    @classmethod
    def indexes(cls, *, encoder: MultiVectorEncoderLike = None, **options: Any) -> dict[str, TextIndex]:
        """See `StoreRetriever.indexes`."""
        if unknown := options.keys() - set(_OPTIONS):
            raise UnknownOptionError(min(unknown))
        return {"late-interaction": LateInteractionIndex(as_multi_vector_encoder(encoder), **options)}
