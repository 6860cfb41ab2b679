"""What all rerankers over a language model share: a strategy, a judge, a budget, and an account of what it cost."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from pydantic import Field, PrivateAttr, model_validator

from ragkit.compressor import Task
from ragkit.errors import InputError
from ragkit.llms.adapt import as_llm
from ragkit.llms.base import LLM
from ragkit.llms.budget import Budget
from ragkit.prompting import load_prompt
from ragkit.rerankers.driver import Driven, Job, Judge, Note, OnFailure, adrive, drive
from ragkit.rerankers.forms import Shown
from ragkit.rerankers.passages import shown_passages
from ragkit.rerankers.ranking import Ranking, RankingReranker
from ragkit.rerankers.strategies.base import Choose, Compare, Grade, Order, Question, Strategy

_log = logging.getLogger(__name__)
_FAILURES_SHOWN = 10


class LLMReranker(RankingReranker):
    """Base of rerankers that ask a language model. A request that fails costs nobody a place: nothing is learnt from it.

    The usage of an outcome has calls, rounds (of requests that wait for each other), prompt_tokens, completion_tokens, uncounted
    (answers whose tokens are not known), cached, failures, seconds; `stopped` ("calls", "tokens" or "deadline") if the budget
    ended it with the best ranking so far; and `notes`: what the model thought of which documents, and how requests failed.
    """

    llm: Any
    """A LangChain chat model, a model of `ragkit.llms`, or a name: "provider:name" of a chat model, as `init_chat_model` makes it
    (`openai:gpt-4.1-mini`), or the folder or hub name of a model to run locally."""
    prompt: str | Path | None = None
    """A prompt file of your own, in place of the shipped one and with the same variables."""
    budget: Budget | None = None
    """What each question may cost; None sets no limit."""
    on_failure: OnFailure = "keep"
    """After a failed request go on as if it had found a tie ("keep"), or fail the question ("raise")."""
    passage_tokens: int = Field(default=400, gt=0)
    """Tokens shown of a passage; of a longer one the sentences that share most with the question."""
    language: str = "english"
    """Language of the text, by name or ISO code: for sentence boundaries, stems and stop words."""
    max_concurrency: int | None = Field(default=16, gt=0)
    """Requests that are under way at once, for a LangChain chat model; a model of `ragkit.llms` has its own limit."""

    _made: tuple[Any, LLM] | None = PrivateAttr(default=None)

    @abstractmethod
    def strategy(self, n: int, k: int) -> Strategy:
        """The algorithm for n candidates of which the best k are wanted."""

    @abstractmethod
    def judge(self) -> Judge[Shown]:
        """Who answers the strategy's questions. Raises `InputError` for a prompt or a model that cannot be used."""

    @model_validator(mode="after")
    def _everything_is_there(self) -> Self:
        self.judge()
        self.strategy(2, 1).close()
        return self

    def model(self) -> LLM:
        """The language model."""
        wanted = (self.llm, self.max_concurrency)
        if self._made is None or self._made[0] != wanted:
            self._made = (wanted, _model(self.llm, self.max_concurrency))
        return self._made[1]

    def template(self, shipped: str, variables: frozenset[str]) -> ChatPromptTemplate:
        """The user's prompt, or else the shipped one. Raises `InputError` if it has not just these variables."""
        template = load_prompt(shipped if self.prompt is None else self.prompt)
        if set(template.input_variables) != variables:
            raise InputError(
                f"prompt {self.prompt}: its variables must be {', '.join(sorted(variables))}, "
                f"not {', '.join(sorted(template.input_variables)) or 'none'}; see prompts/{shipped}.yaml"
            )
        return template

    def rankings(self, tasks: Sequence[Task]) -> list[Ranking | Exception]:
        """See `RankingReranker`."""
        distinct = [_Distinct(task) for task in tasks]
        driven = drive(self._jobs(distinct), self.judge(), self.budget, self.on_failure)
        return [self._ranking(*pair) for pair in zip(distinct, driven, strict=True)]

    async def arankings(self, tasks: Sequence[Task]) -> list[Ranking | Exception]:
        """See `RankingReranker`."""
        distinct = [_Distinct(task) for task in tasks]
        jobs = await asyncio.to_thread(self._jobs, distinct)
        driven = await adrive(jobs, self.judge(), self.budget, self.on_failure)
        return [self._ranking(*pair) for pair in zip(distinct, driven, strict=True)]

    def _jobs(self, distinct: Sequence[_Distinct]) -> list[Job[Shown]]:
        return [Job(self._shown(one.task), self.strategy(len(one.places), self._wanted(one))) for one in distinct]

    def _wanted(self, distinct: _Distinct) -> int:
        return min(self.top_k or len(distinct.places), len(distinct.places))

    def _shown(self, task: Task) -> Shown:
        # nothing is asked about a single document
        several = task.documents if len(task.documents) > 1 else []
        passages = shown_passages(task.query, several, self.passage_tokens, self.language)
        return Shown(" ".join(task.query.split()), passages, task.config)

    def _ranking(self, distinct: _Distinct, driven: Driven | Exception) -> Ranking | Exception:
        if isinstance(driven, Exception):
            return driven
        task, usage = distinct.task, dict(driven.usage)
        failures = usage["failures"]
        if failures or driven.stopped:
            why = f", and the budget ended it ({driven.stopped})" if driven.stopped else ""
            _log.warning("%s: %d failures in %d calls%s for %r", type(self).__name__, failures, usage["calls"], why, task.query)
        if driven.notes:
            usage["notes"] = _notes(task, driven.notes)
        order, scores = driven.ranked
        unmoved = scores is None and list(order) == list(range(len(order))) and bool(failures or driven.stopped)
        return distinct.whole(Ranking(order, scores, usage, learnt=driven.learnt and not unmoved))


class _Distinct:
    """A task without the documents whose id came before: it is ranked, and they follow their first."""

    def __init__(self, task: Task) -> None:
        places: dict[str | None, list[int]] = {}
        for place, document in enumerate(task.documents):
            places.setdefault(document.id, []).append(place)
        self.places = list(places.values())
        self.task = task._replace(documents=[task.documents[first] for first, *_ in self.places])

    def whole(self, ranking: Ranking) -> Ranking:
        """The ranking of all documents, from that of the distinct ones."""
        order = [place for at in ranking.order for place in self.places[at]]
        if ranking.scores is None:
            return ranking._replace(order=order)
        scores = {place: score for score, its in zip(ranking.scores, self.places, strict=True) for place in its}
        return ranking._replace(order=order, scores=[scores[place] for place in range(len(scores))])


def _model(llm: Any, max_concurrency: int | None) -> LLM:
    if isinstance(llm, str | Path):
        from ragkit.llms.named import named_llm

        return named_llm(llm, max_concurrency)
    if isinstance(llm, Runnable) and not isinstance(llm, LLM):
        from ragkit.llms.chat import ChatLLM

        return ChatLLM(llm, max_concurrency)
    return as_llm(llm)


def _notes(task: Task, notes: Sequence[Note]) -> list[Mapping[str, Any]]:
    """JSON-serialisable, all that models said and the first few failures."""
    failures = [note for note in notes if note.failed][:_FAILURES_SHOWN]
    return [
        {
            "question": type(note.question).__name__.lower(),
            "documents": [task.documents[at].id for at in _about(note.question)],
            "text": note.text,
            "failed": note.failed,
        }
        for note in notes
        if not note.failed or note in failures
    ]


def _about(question: Question) -> tuple[int, ...]:
    match question:
        case Grade(candidate):
            return (candidate,)
        case Compare(first, second):
            return (first, second)
        case Choose(candidates) | Order(candidates, _):
            return candidates
