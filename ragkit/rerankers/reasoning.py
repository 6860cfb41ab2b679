"""A judge that lets the model think before it judges, and keeps what was thought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate

from ragkit.llms.base import LLM, Completion, Cost, DeadlineError, total
from ragkit.llms.forecast import count_tokens, probes
from ragkit.rerankers.driver import Asked, Judge, Verdict
from ragkit.rerankers.forms import Shown, YesNo
from ragkit.rerankers.judges import failed, scored, written

_FORM = YesNo()


class ReasoningJudge(Judge[Shown]):
    """Think, then yes or no: p(yes) / (p(yes) + p(no)) after the chain (Rank1, Weller et al. 2025). The note is the chain.

    With a `verdict` prompt a second request shows the model its own chain, finished or not, and asks for the probabilities of
    the two words; without one, or if the deadline comes between the two, the chain's own last word counts, and a chain that
    comes to none is a failure.
    """

    prompt = "rerank_reasoning"
    variables = _FORM.variables

    def __init__(self, llm: LLM, template: ChatPromptTemplate, verdict: ChatPromptTemplate | None) -> None:
        self.llm, self.template, self.verdict = llm, template, verdict

    def judge(self, asked: Sequence[Asked[Shown]], until: float | None = None) -> list[Verdict]:
        """See `Judge`."""
        chains = self.llm.generate(self._prompts(asked), _configs(asked), until)
        done = _done(asked, chains)
        if self.verdict is None or not done:
            return _own_words(asked, chains)
        return self._combined(asked, chains, self.llm.score_labels(*self._request(done), until=until))

    async def ajudge(self, asked: Sequence[Asked[Shown]], until: float | None = None) -> list[Verdict]:
        """See `Judge`."""
        chains = await self.llm.agenerate(self._prompts(asked), _configs(asked), until)
        done = _done(asked, chains)
        if self.verdict is None or not done:
            return _own_words(asked, chains)
        return self._combined(asked, chains, await self.llm.ascore_labels(*self._request(done), until=until))

    def plan(self, asked: Sequence[Asked[Shown]]) -> Cost:
        """See `Judge`: the prompt is read twice if there is a second request, and how long the chain gets nobody knows."""
        tokens = sum(count_tokens(self.llm, self._prompts(asked)))
        return Cost(len(asked), tokens) if self.verdict is None else Cost(2 * len(asked) + probes(self.llm), 2 * tokens)

    def _prompts(self, asked: Sequence[Asked[Shown]]) -> list[Any]:
        return [self.template.format_messages(**_FORM.show(one)) for one in asked]

    def _request(self, done: Sequence[tuple[Asked[Shown], Completion]]) -> tuple[list[Any], list[Any], list[Any]]:
        assert self.verdict is not None
        asked = [one for one, _ in done]
        last = self.verdict.format_messages()
        prompts = [
            [*prompt, AIMessage(chain.text or "…"), *last] for prompt, (_, chain) in zip(self._prompts(asked), done, strict=True)
        ]
        return prompts, [_FORM.labels(one) for one in asked], _configs(asked)

    def _combined(
        self, asked: Sequence[Asked[Shown]], chains: Sequence[Completion | Exception], scores: Sequence[Any]
    ) -> list[Verdict]:
        left = iter(scores)
        return [
            _verdict(one, chain, next(left)) if isinstance(chain, Completion) else failed(chain)
            for one, chain in zip(asked, chains, strict=True)
        ]


def _verdict(asked: Asked[Shown], chain: Completion, scores: Any) -> Verdict:
    if isinstance(scores, DeadlineError):  # what the chain says itself is all there will be
        verdict = _own(asked, chain)
        return verdict._replace(cost=total([chain.cost, scores.cost]), error=verdict.error and scores)
    verdict = failed(scores) if isinstance(scores, Exception) else scored(_FORM, asked, scores)
    return verdict._replace(cost=total([chain.cost, verdict.cost]), note=chain.text.strip() or None)


def _own_words(asked: Sequence[Asked[Shown]], chains: Sequence[Completion | Exception]) -> list[Verdict]:
    return [_own(*talk) for talk in zip(asked, chains, strict=True)]


def _own(asked: Asked[Shown], chain: Completion | Exception) -> Verdict:
    if isinstance(chain, Exception):
        return failed(chain)
    return written(_FORM, asked, chain)._replace(note=chain.text.strip() or None)


def _done(asked: Sequence[Asked[Shown]], chains: Sequence[Completion | Exception]) -> list[tuple[Asked[Shown], Completion]]:
    return [(one, chain) for one, chain in zip(asked, chains, strict=True) if isinstance(chain, Completion)]


def _configs(asked: Sequence[Asked[Shown]]) -> list[Any]:
    return [one.task.config for one in asked]
