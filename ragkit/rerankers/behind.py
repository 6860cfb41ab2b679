"""Rerankers that move some documents behind all others, and say which and why."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from langchain_core.documents import Document

from ragkit.compressor import Outcome, Task
from ragkit.documents.provenance import StageResult, with_stages
from ragkit.indexes.base import Scores
from ragkit.rerankers.base import Reranker


class BehindReranker(Reranker):
    """Base of rerankers that judge an order rather than make one: what stays and what is moved both keep their order.

    Nothing is lost, and no score changes, so scores need not descend behind this stage: let it be the last one before pruning.
    A question's usage says how many documents were `moved`, and `why`, by id.
    """

    @abstractmethod
    def to_move(self, documents: Sequence[Document]) -> Mapping[int, str]:
        """Places among the documents, best first, of those that are moved behind the others, and the reason for each."""

    def process(self, tasks: Sequence[Task]) -> list[Outcome]:
        """See `Compressor.process`."""
        return [self._outcome(task.documents) for task in tasks]

    def scores(self, tasks: Sequence[Task]) -> list[Scores]:
        """See `Reranker.scores`: places counted down to 1 in the order that `process` gives."""
        found = []
        for task in tasks:
            scores = np.empty(len(task.documents))
            scores[_order(len(task.documents), self.to_move(task.documents))] = np.arange(len(task.documents), 0, -1)
            found.append(scores)
        return found

    def _outcome(self, documents: Sequence[Document]) -> Outcome:
        why = self.to_move(documents)
        ranked = [documents[at] for at in _order(len(documents), why)][: self.top_k]
        reasons = {str(documents[at].id): reason for at, reason in why.items()}
        return Outcome(
            [with_stages(document, StageResult(self.stage, None, rank)) for rank, document in enumerate(ranked, 1)],
            {"moved": len(why), **({"why": reasons} if reasons else {})},
        )


def _order(n: int, moved: Mapping[int, str]) -> list[int]:
    return sorted(range(n), key=lambda at: at in moved)
