"""Rerankers that find an order rather than a score for each document."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from ragkit.compressor import Outcome, Task
from ragkit.documents.provenance import StageResult, with_stages
from ragkit.indexes.base import Scores
from ragkit.rerankers.base import Reranker


class Ranking(NamedTuple):
    """What became of one question's documents, which are named by their place among those given."""

    order: Sequence[int]
    """All of them, best first."""
    scores: Sequence[float] | None = None
    """One per document, by its place; NaN for one without. None: 1 / rank is shown as the score."""
    usage: Mapping[str, Any] = {}
    learnt: bool = True
    """False if the order is the one before because nothing was found out: documents then keep the scores they had."""


class RankingReranker(Reranker):
    """Base of rerankers whose documents get the score that their order rests on, or 1 / rank if there is none."""

    @abstractmethod
    def rankings(self, tasks: Sequence[Task]) -> Sequence[Ranking | Exception]:
        """One per question; an exception in its place fails that question alone."""

    @abstractmethod
    async def arankings(self, tasks: Sequence[Task]) -> Sequence[Ranking | Exception]:
        """Async form of `rankings`; cancelling it cancels what is under way."""

    def process(self, tasks: Sequence[Task]) -> list[Outcome | Exception]:  # type: ignore[override]
        """See `Compressor.process`."""
        return [self._outcome(*pair) for pair in zip(tasks, self.rankings(tasks), strict=True)]

    async def aprocess(self, tasks: Sequence[Task]) -> list[Outcome | Exception]:
        """See `Compressor.aprocess`; there is no thread between the event loop and an async model."""
        return [self._outcome(*pair) for pair in zip(tasks, await self.arankings(tasks), strict=True)]

    def scores(self, tasks: Sequence[Task]) -> list[Scores]:
        """See `Reranker.scores`: 1 / rank."""
        found = []
        for ranking in self.rankings(tasks):
            if isinstance(ranking, Exception):
                raise ranking
            scores = np.empty(len(ranking.order))
            scores[list(ranking.order)] = 1 / np.arange(1, len(ranking.order) + 1)
            found.append(scores)
        return found

    def _outcome(self, task: Task, ranking: Ranking | Exception) -> Outcome | Exception:
        if isinstance(ranking, Exception):
            return ranking
        documents = [
            with_stages(task.documents[at], StageResult(self.stage, _score(ranking, at, rank), rank))
            for rank, at in enumerate(ranking.order[: self.top_k], 1)
        ]
        return Outcome(documents, ranking.usage)


def _score(ranking: Ranking, at: int, rank: int) -> float | None:
    if not ranking.learnt:
        return None
    if ranking.scores is None:
        return 1 / rank
    return float(ranking.scores[at]) if isfinite(ranking.scores[at]) else None
