"""Reranking by groups of passages whose winners meet again."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ragkit.rerankers.driver import Judge
from ragkit.rerankers.forms import Shown
from ragkit.rerankers.judges import ListJudge
from ragkit.rerankers.llm import LLMReranker
from ragkit.rerankers.strategies.base import Strategy
from ragkit.rerankers.strategies.tournament import listt5, tourrank


class TournamentReranker(LLMReranker):
    """Groups are put in order, all groups of a stage in one round, and the best of each go on."""

    method: Literal["tourrank", "listt5"] = "tourrank"
    """"tourrank": points over several tournaments (Chen et al. 2024); the score is their mean. "listt5": a tree that names the
    best of small groups, again and again (Yoon et al. 2024)."""
    tournaments: int = Field(default=2, ge=1)
    """r, for tourrank: more of them cost more calls, but no more rounds."""
    group: int | None = Field(default=None, ge=4)
    """Passages shown at once; None is 20 for tourrank, 5 for listt5."""
    keep: int = Field(default=2, ge=1)
    """How many of a group go on, for listt5."""
    seed: int = 0
    """For the groups of tourrank."""

    def strategy(self, n: int, k: int) -> Strategy:
        """See `LLMReranker`."""
        if self.method == "listt5":
            return listt5(n, k, self.group or 5, self.keep)
        return tourrank(n, k, self.tournaments, self.seed, self.group or 20)

    def judge(self) -> Judge[Shown]:
        """See `LLMReranker`."""
        return ListJudge(self.model(), self.template(ListJudge.prompt, ListJudge.variables))
