"""Reranking by comparisons of two passages."""

from __future__ import annotations

from typing import Literal

from ragkit.rerankers.driver import Judge
from ragkit.rerankers.forms import Pair, Shown
from ragkit.rerankers.judges import ScoreJudge, TextJudge
from ragkit.rerankers.llm import LLMReranker
from ragkit.rerankers.strategies import pairwise
from ragkit.rerankers.strategies.base import Strategy

_STRATEGIES = {"allpair": pairwise.allpair, "heapsort": pairwise.heapsort, "sliding": pairwise.sliding}


class PairwiseReranker(LLMReranker):
    """Asks which of two passages is better, in both orders, as models like one place (PRP, Qin et al. 2023)."""

    method: Literal["allpair", "heapsort", "sliding"] = "heapsort"
    """"allpair": n(n - 1) calls in one round; the score is the number of wins. "heapsort" and "sliding" (bubble passes) ask far
    less, and only what the top k needs, in many rounds."""
    answers: Literal["scores", "text"] = "scores"
    """Judge by the probabilities of A and B, where the model gives them, or by what it writes."""

    def strategy(self, n: int, k: int) -> Strategy:
        """See `LLMReranker`."""
        return _STRATEGIES[self.method](n, k)

    def judge(self) -> Judge[Shown]:
        """See `LLMReranker`."""
        form = Pair()
        kind = ScoreJudge if self.answers == "scores" else TextJudge
        return kind(self.model(), self.template(form.prompt, form.variables), form)
