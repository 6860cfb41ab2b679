"""A model-free pruner: keep the sentences that look most like the question. The baseline that trained pruners must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from ragkit.compressor import Task
from ragkit.documents.model import Unit
from ragkit.documents.provenance import passage_text
from ragkit.encoders.base import Encoder, Vectors
from ragkit.encoders.factory import as_encoder
from ragkit.indexes.base import Scores
from ragkit.pruners.base import Judgement, Pruner
from ragkit.retrievers.overlap import bm25_scores


class ExtractivePruner(Pruner):
    """Scores each sentence against the question by cosine similarity under a dense encoder, by BM25, or by the mean of both.

    Each kind of score is divided by the best one among all sentences of the question, so it lies between 0 and 1; a sentence is
    kept if it reaches `threshold`. BM25's term statistics are those of the question's own sentences, and `language` is also that
    of its stems and stop words.
    """

    scorer: Literal["hybrid", "dense", "bm25"] = "hybrid"
    """What to compare sentences with the question by; "hybrid" is the mean of the other two."""
    threshold: float = Field(default=0.3, ge=0, le=1)
    """The score that a sentence must reach. The default was chosen on training questions; see `benchmarks/pruning.py`."""
    encoder: Any = None
    """An `Encoder`, a LangChain `Embeddings`, a path or a hub name; None is the packaged all-MiniLM-L6-v2."""

    _encoder: Encoder | None = PrivateAttr(default=None)

    def judge(self, tasks: Sequence[Task], units: Sequence[Sequence[Sequence[Unit]]]) -> list[list[Judgement]]:
        """See `Pruner.judge`."""
        texts = [
            [
                passage_text(document)[unit.start : unit.end]
                for document, its_units in zip(task.documents, task_units, strict=True)
                for unit in its_units
            ]
            for task, task_units in zip(tasks, units, strict=True)
        ]
        queries = [task.query for task in tasks]
        scorers = {"dense": [self._by_encoder], "bm25": [self._by_bm25], "hybrid": [self._by_encoder, self._by_bm25]}
        kinds = [scorer(queries, texts) for scorer in scorers[self.scorer]]
        judged = []
        for *of_each_kind, task_units in zip(*kinds, units, strict=True):
            scores = np.mean([_share_of_best(scores) for scores in of_each_kind], axis=0)
            ends = np.cumsum([len(its_units) for its_units in task_units])[:-1]
            judged.append([Judgement(its_scores) for its_scores in np.split(scores, ends)])
        return judged

    def select(self, task: Task, units: Sequence[Sequence[Unit]], judgements: Sequence[Judgement]) -> list[NDArray[np.bool_]]:
        """See `Pruner.select`. If no sentence resembles the question at all, nothing is kept."""
        return [(judgement.units >= self.threshold) & (judgement.units > 0) for judgement in judgements]

    def _by_encoder(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[Scores]:
        if self._encoder is None:
            self._encoder = as_encoder(self.encoder)
        asked = self._encoder.encode_queries(queries)
        found = self._encoder.encode_documents([text for per_query in texts for text in per_query])
        sizes = np.cumsum([len(per_query) for per_query in texts])[:-1]
        return [_cosines(vectors, query) for query, vectors in zip(asked, np.split(found, sizes), strict=True)]

    def _by_bm25(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[Scores]:
        return [bm25_scores(query, sentences, self.language) for query, sentences in zip(queries, texts, strict=True)]


def _cosines(vectors: Vectors, query: Vectors) -> Scores:
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    cosines: Scores = ((vectors @ query) / np.maximum(lengths, 1e-12)).astype(np.float64)
    return cosines


def _share_of_best(scores: Scores) -> Scores:
    best = np.max(scores, initial=0.0, where=np.isfinite(scores))
    shares: Scores = np.clip(scores / best, 0.0, 1.0) if best > 0 else scores * 0.0
    return shares
