"""Reranking by what a listwise reranker says most often."""

from __future__ import annotations

from pydantic import Field

from ragkit.rerankers.listwise import ListwiseReranker
from ragkit.rerankers.strategies.base import Strategy
from ragkit.rerankers.strategies.consensus import Aggregate, consensus


class ConsensusReranker(ListwiseReranker):
    """Runs its listwise `method` over several shuffles, side by side, and merges the rankings (Tang et al. 2023).

    What a passage's place in the prompt does to a model differs from run to run, and averages out.
    """

    runs: int = Field(default=5, ge=1)
    """Shuffles: as many times the calls of `method`, in the same number of rounds."""
    aggregate: Aggregate = "kemeny"
    """"kemeny": the ranking that the others contradict least. "borda": mean rank. "rrf": reciprocal rank fusion."""
    seed: int = 0
    """For the shuffles."""

    def strategy(self, n: int, k: int) -> Strategy:
        """See `LLMReranker`."""
        return consensus(super().strategy, n, k, self.runs, self.aggregate, self.seed)
