"""Judges over a language model: a strategy's questions to prompts, and what comes back to verdicts."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate

from ragkit.errors import RagkitError
from ragkit.llms.base import LLM, Completion, Cost, LabelScores, ScoresText, TextScore, cost_of
from ragkit.llms.forecast import count_tokens, probes
from ragkit.rerankers.driver import Asked, Judge, Verdict
from ragkit.rerankers.forms import Form, Shown
from ragkit.rerankers.parsing import parse_order
from ragkit.rerankers.strategies.base import Grade, Order

Messages = Sequence[BaseMessage]


class PromptJudge(Judge[Shown]):
    """One request per question, all of a round at once. A request that fails, or an answer that cannot be read, is a verdict."""

    ability: str
    """The method of the model that is asked; its async form has an a before it."""

    def __init__(self, llm: Any, template: ChatPromptTemplate) -> None:
        self.llm = llm
        self.template = template

    def judge(self, asked: Sequence[Asked[Shown]], until: float | None = None) -> list[Verdict]:
        """See `Judge`."""
        return self._verdicts(asked, getattr(self.llm, self.ability)(*self._request(asked), until))

    async def ajudge(self, asked: Sequence[Asked[Shown]], until: float | None = None) -> list[Verdict]:
        """See `Judge`."""
        return self._verdicts(asked, await getattr(self.llm, f"a{self.ability}")(*self._request(asked), until))

    def plan(self, asked: Sequence[Asked[Shown]]) -> Cost:
        """See `Judge`."""
        return Cost(len(asked), sum(count_tokens(self.llm, self.prompts(asked))))

    @abstractmethod
    def show(self, asked: Asked[Shown]) -> Mapping[str, str]:
        """Values of the prompt's variables."""

    @abstractmethod
    def verdict(self, asked: Asked[Shown], answer: Any) -> Verdict:
        """What an answer of the model says."""

    def given(self, asked: Sequence[Asked[Shown]]) -> tuple[Sequence[Any], ...]:
        """What the model gets beside the prompts."""
        return ()

    def prompts(self, asked: Sequence[Asked[Shown]]) -> list[Messages]:
        """The messages of each request."""
        return [self.template.format_messages(**self.show(one)) for one in asked]

    def _request(self, asked: Sequence[Asked[Shown]]) -> tuple[Any, ...]:
        return (self.prompts(asked), *self.given(asked), [one.task.config for one in asked])

    def _verdicts(self, asked: Sequence[Asked[Shown]], answers: Sequence[Any]) -> list[Verdict]:
        return [self._verdict(one, answer) for one, answer in zip(asked, answers, strict=True)]

    def _verdict(self, asked: Asked[Shown], answer: Any) -> Verdict:
        if isinstance(answer, Exception):
            return failed(answer)
        try:
            return self.verdict(asked, answer)
        except Exception as error:  # an answer that no reader was made for is one failure, not the end of all questions
            return Verdict(None, answer.cost, error)


class ScoreJudge(PromptJudge):
    """Asks for the probabilities of a form's labels; where the model writes an answer instead, the form reads it."""

    ability = "score_labels"

    def __init__(self, llm: LLM, template: ChatPromptTemplate, form: Form) -> None:
        super().__init__(llm, template)
        self.form = form

    def show(self, asked: Asked[Shown]) -> Mapping[str, str]:
        """See `PromptJudge`."""
        return self.form.show(asked)

    def given(self, asked: Sequence[Asked[Shown]]) -> tuple[Sequence[Any], ...]:
        """The labels."""
        return ([self.form.labels(one) for one in asked],)

    def plan(self, asked: Sequence[Asked[Shown]]) -> Cost:
        """See `Judge`."""
        plan = super().plan(asked)
        return plan._replace(calls=plan.calls + probes(self.llm))

    def verdict(self, asked: Asked[Shown], answer: LabelScores | Completion) -> Verdict:
        """See `PromptJudge`."""
        return scored(self.form, asked, answer)


class TextJudge(PromptJudge):
    """Asks for a written answer that names one of a form's labels, which then counts as certain."""

    ability = "generate"

    def __init__(self, llm: LLM, template: ChatPromptTemplate, form: Form) -> None:
        super().__init__(llm, template)
        self.form = form

    def show(self, asked: Asked[Shown]) -> Mapping[str, str]:
        """See `PromptJudge`."""
        return self.form.show(asked)

    def verdict(self, asked: Asked[Shown], answer: Completion) -> Verdict:
        """See `PromptJudge`."""
        return written(self.form, asked, answer)


class ListJudge(PromptJudge):
    """Asks for a written order (RankGPT, Sun et al. 2023). What the answer leaves out follows in the order that was shown."""

    ability = "generate"
    prompt = "rerank_listwise"
    variables = frozenset({"count", "passages", "question", "top"})

    def show(self, asked: Asked[Shown]) -> Mapping[str, str]:
        """See `PromptJudge`."""
        assert isinstance(asked.question, Order)
        candidates, top = asked.question
        lines = [f"[{number}] {asked.task.passages[at]}" for number, at in enumerate(candidates, 1)]
        return {
            "count": str(len(candidates)),
            "passages": "\n".join(lines),
            "question": asked.task.question,
            "top": str(min(top or len(candidates), len(candidates))),
        }

    def verdict(self, asked: Asked[Shown], answer: Completion) -> Verdict:
        """See `PromptJudge`."""
        assert isinstance(asked.question, Order)
        candidates, top = asked.question
        parsed = parse_order(answer.text, len(candidates))
        if parsed.problem:
            return Verdict(None, answer.cost, RagkitError(parsed.problem))
        short = parsed.stated < min(top or len(candidates), len(candidates))
        note = f"the answer orders {parsed.stated} of {len(candidates)} passages" if short else None
        return Verdict(tuple(candidates[at] for at in parsed.order), answer.cost, note=note)


class LikelihoodJudge(PromptJudge):
    """Asks how likely the user's question is, given the passage: sum of log p(q | d) (UPR, Sachan et al. 2022)."""

    ability = "query_likelihood"
    prompt = "rerank_query_likelihood"
    variables = frozenset({"passage"})

    def __init__(self, llm: ScoresText, template: ChatPromptTemplate) -> None:
        super().__init__(llm, template)

    def show(self, asked: Asked[Shown]) -> Mapping[str, str]:
        """See `PromptJudge`."""
        assert isinstance(asked.question, Grade)
        return {"passage": asked.task.passages[asked.question.candidate]}

    def given(self, asked: Sequence[Asked[Shown]]) -> tuple[Sequence[Any], ...]:
        """The questions."""
        return ([one.task.question for one in asked],)

    def verdict(self, asked: Asked[Shown], answer: TextScore) -> Verdict:
        """See `PromptJudge`."""
        return Verdict(answer.score, answer.cost)


def failed(error: Exception) -> Verdict:
    """The verdict on a request that failed."""
    return Verdict(None, cost_of(error), error)


def scored(form: Form, asked: Asked[Shown], answer: LabelScores | Completion) -> Verdict:
    """The verdict of labels' scores, or of what a model without them writes."""
    if isinstance(answer, Completion):
        return written(form, asked, answer)
    if max(answer.scores) == -math.inf:
        problem = f"the model gave no probability to any of the labels {', '.join(form.labels(asked))}"
        return Verdict(None, answer.cost, RagkitError(problem))
    return Verdict(form.answer(asked, answer.scores), answer.cost)


def written(form: Form, asked: Asked[Shown], answer: Completion) -> Verdict:
    """The verdict of a written answer."""
    labels = form.labels(asked)
    said = form.read(asked, answer.text)
    if said is None:
        problem = f"the answer names none, or more than one, of the labels {', '.join(labels)}: {answer.text[:80]!r}"
        return Verdict(None, answer.cost, RagkitError(problem))
    return Verdict(form.answer(asked, [0.0 if at == said else -math.inf for at in range(len(labels))]), answer.cost)
