"""What every reranker does around its model: keep all documents, record scores and ranks, cut to top k."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from ragkit.compressor import Compressor, Outcome, Task
from ragkit.documents.provenance import StageResult, with_stages
from ragkit.indexes.base import Scores

_log = logging.getLogger(__name__)


class Reranker(Compressor):
    """Returns what it was given, reordered by score; equal scores keep their order. Nothing is lost unless `top_k` cuts it."""

    top_k: int | None = Field(default=None, gt=0)
    """How many documents to return; None returns all."""

    @property
    def stage(self) -> str:
        """Name under which scores and ranks are recorded in `metadata["ragkit"]`."""
        return "rerank"

    @abstractmethod
    def scores(self, tasks: Sequence[Task]) -> list[Scores]:
        """For each question one score per document, higher is better."""

    def process(self, tasks: Sequence[Task]) -> list[Outcome]:
        """See `Compressor.process`.

        A question whose scores are not one finite number per document keeps its previous order; this is logged, and counted
        as `failures` in its usage.
        """
        busy = [task for task in tasks if task.documents]
        scores = self.scores(busy) if busy else []
        answers = iter([self._reorder(task, its_scores) for task, its_scores in zip(busy, scores, strict=True)])
        return [next(answers) if task.documents else Outcome([]) for task in tasks]

    def _reorder(self, task: Task, scores: Scores) -> Outcome:
        if len(scores) != len(task.documents) or not np.isfinite(scores).all():
            problem = "%s did not give one finite score per document; kept the previous order for %r"
            _log.warning(problem, type(self).__name__, task.query)
            kept = [with_stages(doc, StageResult(self.stage, None, rank)) for rank, doc in enumerate(task.documents, 1)]
            return Outcome(kept[: self.top_k], {"failures": 1})
        order = np.argsort(-scores, kind="stable")[: self.top_k]
        return Outcome(
            [
                with_stages(task.documents[at], StageResult(self.stage, float(scores[at]), rank))
                for rank, at in enumerate(order, 1)
            ]
        )
