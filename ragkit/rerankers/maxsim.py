"""Reranking by late interaction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr

from ragkit.compressor import Task
from ragkit.documents.provenance import passage_text
from ragkit.encoders.multi_vector_base import MultiVectorEncoder, as_multi_vector_encoder
from ragkit.indexes.base import Scores
from ragkit.indexes.maxsim import maxsim
from ragkit.rerankers.base import Reranker


class MaxSimReranker(Reranker):
    """Scores each passage by MaxSim of the question's token vectors and its own, which are computed on the fly (ColBERT).

    A passage that several questions of a batch share is read once.
    """

    encoder: Any = None
    """A `ColBERTEncoder`, or the folder or hub name of a model; None is the packaged all-MiniLM-L6-v2."""

    # shared by copies, such as those that a cascade makes for each call
    _loaded: dict[str | Path, MultiVectorEncoder] = PrivateAttr(default_factory=dict)

    def scores(self, tasks: Sequence[Task]) -> list[Scores]:
        """See `Reranker.scores`."""
        encoder = self._made()
        texts = [[passage_text(document) for document in task.documents] for task in tasks]
        distinct = list(dict.fromkeys(text for its_texts in texts for text in its_texts))
        found = dict(zip(distinct, encoder.encode_documents(distinct), strict=True))
        asked = encoder.encode_queries([task.query for task in tasks])
        return [maxsim(query, [found[text] for text in its_texts]) for query, its_texts in zip(asked, texts, strict=True)]

    def _made(self) -> MultiVectorEncoder:
        if not isinstance(self.encoder, str | Path):
            return as_multi_vector_encoder(self.encoder)
        if self.encoder not in self._loaded:
            self._loaded[self.encoder] = as_multi_vector_encoder(self.encoder)
        return self._loaded[self.encoder]
