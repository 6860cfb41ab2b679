"""Reranking by lists that a model puts in order."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ragkit.rerankers.driver import Judge
from ragkit.rerankers.forms import LETTERS, First, Shown
from ragkit.rerankers.judges import ListJudge, ScoreJudge
from ragkit.rerankers.llm import LLMReranker
from ragkit.rerankers.strategies.base import Strategy
from ragkit.rerankers.strategies.groups import groups
from ragkit.rerankers.strategies.listwise import full, sliding


class ListwiseReranker(LLMReranker):
    """Shows many passages at once and has them put in order."""

    method: Literal["groups", "sliding", "full", "first"] = "groups"
    """"groups": ragkit's own, groups in parallel, merged by a fit (docs/reranking.md). "sliding": windows from back to front, one
    after the other (RankGPT, Sun et al. 2023). "full": all in one window, for models that can read so much. "first": sliding
    windows ordered by the probabilities of letters as the first token of the answer (FIRST, Reddy et al. 2024), for models that
    give these."""
    window: int = Field(default=20, ge=2)
    """Passages shown at once; "full" shows all."""
    step: int | None = Field(default=None, ge=1)
    """How far the sliding window moves; None is half of the window."""

    @model_validator(mode="after")
    def _letters_suffice(self) -> Self:
        if self.method == "first" and self.window > LETTERS:
            raise ValueError(f"window: at most {LETTERS} with method first, as passages are named by letters")
        return self

    def strategy(self, n: int, k: int) -> Strategy:
        """See `LLMReranker`."""
        if self.method == "full":
            return full(n, k)
        if self.method == "groups":
            return groups(n, k, self.window)
        return sliding(n, k, self.window, self.window // 2 if self.step is None else self.step)

    def judge(self) -> Judge[Shown]:
        """See `LLMReranker`."""
        if self.method == "first":
            form = First()
            return ScoreJudge(self.model(), self.template(form.prompt, form.variables), form)
        return ListJudge(self.model(), self.template(ListJudge.prompt, ListJudge.variables))
