"""Pruning by late interaction: the vectors that rank a passage rank its sentences as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from ragkit.compressor import Task
from ragkit.documents.model import Unit
from ragkit.documents.provenance import passage_text
from ragkit.encoders.base import Vectors
from ragkit.encoders.multi_vector_base import MultiVectorEncoder, as_multi_vector_encoder
from ragkit.indexes.maxsim import maxsim
from ragkit.pruners.base import Judgement, Pruner


class MaxSimPruner(Pruner):
    """Keeps the sentences whose token vectors answer the question's best.

    A sentence's vectors are those that its tokens have in the whole passage, as in AGRaME (Reddy et al. 2024, arXiv:2405.15028,
    whose second query marker for sentences only models trained with it have). Its score is its MaxSim, or 0 if that is negative,
    as a share of the best sentence's of all documents of the question; so it lies between 0 and 1. The passage's score is MaxSim
    over its sentences.
    """

    threshold: float = Field(default=0.9, ge=0, le=1)
    """The score that a sentence must reach. The default was chosen on training questions of SQuAD."""
    encoder: Any = None
    """A `ColBERTEncoder`, or the folder or hub name of a model; None is the packaged all-MiniLM-L6-v2."""

    _encoder: MultiVectorEncoder | None = PrivateAttr(default=None)

    def judge(self, tasks: Sequence[Task], units: Sequence[Sequence[Sequence[Unit]]]) -> list[list[Judgement]]:
        """See `Pruner.judge`."""
        if self._encoder is None:
            self._encoder = as_multi_vector_encoder(self.encoder)
        texts = [passage_text(document) for task in tasks for document in task.documents]
        spans = [[(unit.start, unit.end) for unit in its_units] for of_task in units for its_units in of_task]
        asked = self._encoder.encode_queries([task.query for task in tasks])
        found = iter(self._encoder.encode_spans(texts, spans))
        return [_judged(query, [next(found) for _ in task.documents]) for query, task in zip(asked, tasks, strict=True)]

    def select(self, task: Task, units: Sequence[Sequence[Unit]], judgements: Sequence[Judgement]) -> list[NDArray[np.bool_]]:
        """See `Pruner.select`. If no sentence resembles the question at all, nothing is kept."""
        return [(judgement.units >= self.threshold) & (judgement.units > 0) for judgement in judgements]


def _judged(query: Vectors, documents: Sequence[Sequence[Vectors]]) -> list[Judgement]:
    """The judgements of one question's documents, each the vectors of its units."""
    # a unit without vectors has no likeness to anything; a NaN must stay one, so that it is seen
    raw = [np.maximum(maxsim(query, units), 0.0) for units in documents]
    best = max((float(np.max(scores, initial=0.0, where=np.isfinite(scores))) for scores in raw), default=0.0)
    passages = [maxsim(query, [np.concatenate(units)])[0] if any(map(len, units)) else 0.0 for units in documents]
    return [
        Judgement(scores / best if best > 0 else scores, float(passage)) for scores, passage in zip(raw, passages, strict=True)
    ]
