"""Reranking by the best of a few passages."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ragkit.rerankers.driver import Judge
from ragkit.rerankers.forms import LETTERS, Best, Shown
from ragkit.rerankers.judges import ScoreJudge, TextJudge
from ragkit.rerankers.llm import LLMReranker
from ragkit.rerankers.strategies import setwise
from ragkit.rerankers.strategies.base import Strategy

_STRATEGIES = {"heapsort": setwise.heapsort, "bubble": setwise.bubble}


class SetwiseReranker(LLMReranker):
    """Asks which of a few passages is best, and sorts by that (Zhuang et al. 2024)."""

    method: Literal["heapsort", "bubble"] = "heapsort"
    """How the answers sort: a heap with many children per node, or passes of windows from back to front."""
    children: int = Field(default=9, ge=1, lt=LETTERS)
    """c: one more than this are shown at once."""
    answers: Literal["scores", "text"] = "scores"
    """Judge by the probabilities of the letters, where the model gives them, or by what it writes."""

    def strategy(self, n: int, k: int) -> Strategy:
        """See `LLMReranker`."""
        return _STRATEGIES[self.method](n, k, self.children)

    def judge(self) -> Judge[Shown]:
        """See `LLMReranker`."""
        form = Best()
        kind = ScoreJudge if self.answers == "scores" else TextJudge
        return kind(self.model(), self.template(form.prompt, form.variables), form)
