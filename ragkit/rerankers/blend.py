"""A reranker's scores and those of the stage before it, as one order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from langchain_core.documents import Document
from pydantic import Field

from ragkit.compressor import Task
from ragkit.documents.provenance import provenance
from ragkit.indexes.base import Scores
from ragkit.rerankers.base import Reranker
from ragkit.retrievers.fusion import normalise


class BlendReranker(Reranker):
    """Behind a reranker: what it says of a document, and what the stage before it said, as a convex combination of both.

    `retriever >> ProvenceReranker() >> BlendReranker()`. Each side's scores are brought to the scale from 0 to 1, question by
    question. A model that was trained on other text errs in other places than terms and vectors do, so the two together are
    rarely worse than either, and often better than both (benchmarks/blending.py). No model is asked.

    A question whose documents do not all have scores of the same two stages keeps its order, as does one whose reranker failed;
    a reranker with `top_k` before this one leaves out what the blend might have kept.
    """

    weight: float = Field(default=0.5, ge=0, le=1)
    """Of the earlier stage; the reranker has the rest."""

    @property
    def stage(self) -> str:
        """See `Reranker.stage`."""
        return "blend"

    def scores(self, tasks: Sequence[Task]) -> list[Scores]:
        """See `Reranker.scores`."""
        return [self._scores(task.documents) for task in tasks]

    def _scores(self, documents: Sequence[Document]) -> Scores:
        stages = [provenance(document).stages for document in documents]
        given = [[result for result in its if result.score is not None][-2:] for its in stages]
        alike = len({tuple(result.stage for result in its) for its in given}) == 1 and len(given[0]) == 2
        # without a score of the stage before this one, the two would be those that retrieved
        if not alike or any(its[-1].score is None for its in stages):
            return np.full(len(documents), np.nan)
        before, last = np.array([[float(result.score or 0.0) for result in its] for its in given]).T
        return blend(before, last, self.weight)


def blend(before: Scores, last: Scores, weight: float) -> Scores:
    """`weight` times the earlier scores [n] plus the rest times the later ones [n], both under min-max."""
    return weight * normalise(before, "min-max") + (1 - weight) * normalise(last, "min-max")
