"""Questions in several steps, taken apart by a language model: each step is searched for, one with what an earlier one found."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig
from pydantic import Field

from ragkit.corpus.filters import Filter, both
from ragkit.documents.provenance import passage_text, provenance
from ragkit.documents.sentences import units_of
from ragkit.encoders.languages import iso_code
from ragkit.encoders.lexical import Analyzer
from ragkit.indexes.base import Ranking
from ragkit.quoting import spoken
from ragkit.retrievers.base import Ranked
from ragkit.retrievers.batched import Results, check_query
from ragkit.retrievers.expansion import ExpansionRetriever
from ragkit.retrievers.over import OverRetriever
from ragkit.retrievers.overlap import bm25_scores
from ragkit.retrievers.rewriting import Read, Rewriting, questions_of
from ragkit.runs import Configs, Owner, arun_batch, run_batch
from ragkit.store.base import BaseSnapshot

_NUMBERED = re.compile(r"^\W*(?:(?:sub-?)?(?:step|question)\s*)?(\d{1,2})\s*(?:[.):\]]|-\s)", re.IGNORECASE)
_REFERENCE = re.compile(r"#\s?(\d{1,2})(?!\d)")
_AROUND = re.compile(r"^\W+|\W+$")
_MOST_WORDS = 40
"""Of a sentence, to fill in; the rest of a long one would drown the step."""

Searches = Generator[list[str], Sequence[Ranked], list[list[Ranked]]]
"""Yields texts to search for and is sent a ranking of each; returns, per question, the rankings of it and of its steps."""


class Found(NamedTuple):
    """The documents of one question, and what finding them took: JSON-serialisable."""

    documents: list[Document]
    usage: Mapping[str, Any]


class DecompositionRetriever(OverRetriever, ExpansionRetriever):
    """Has a model take a question apart, searches for it and for each of its steps, and gives the best of each in turn.

    A step may name the answer of an earlier one by its number: "Where was #1 born?". In its place comes what the best sentence
    of that one's best passage says beyond its words: names and numbers, or all of it if it has none. The model is asked once
    per question, before anything is searched for; steps that do not wait for each other are searched for at once. Where it
    fails, or writes what has nothing to do with the question, the question alone is searched for, and `outcomes` says so. Scores
    are 1 / rank. #n is the notation of MuSiQue (Trivedi et al., TACL 2022). `MultiHopRetriever` needs no model.
    """

    shipped = "decompose"
    variables = frozenset({"count", "question"})
    count: int = Field(default=4, gt=0)
    """The most steps of a question."""
    depth: int = Field(default=100, gt=0)
    """How many candidates each step contributes, if `k` does not ask for more."""

    @property
    def reader(self) -> Read:
        """See `ExpansionRetriever.reader`."""
        return steps_of

    @property
    def most(self) -> int:
        """See `ExpansionRetriever.most`."""
        return self.count

    @property
    def stage(self) -> str:
        """See `StoreRetriever.stage`."""
        return "decomposition"

    @property
    def score_floor(self) -> float | None:
        """Scores are 1 / rank."""
        return 0.0

    def outcomes(
        self,
        inputs: Sequence[str],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        k: int | None = None,
        filter: Filter | None = None,
    ) -> list[Any]:
        """Like `batch`, but a `Found` for each question.

        Its usage has calls, prompt_tokens, completion_tokens (None where the model does not say), cached, the questions that the
        model wrote, and why it failed if it did.
        """

        def work(queries: list[str], configs: list[RunnableConfig]) -> list[Found]:
            return self._found(queries, configs, *self._arguments(k, filter))

        return run_batch(self._telling, inputs, config, work, check=check_query, return_exceptions=return_exceptions)

    async def aoutcomes(
        self,
        inputs: Sequence[str],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        k: int | None = None,
        filter: Filter | None = None,
    ) -> list[Any]:
        """Async form of `outcomes`."""

        async def work(queries: list[str], configs: list[RunnableConfig]) -> list[Found]:
            return await self._afound(queries, configs, *self._arguments(k, filter))

        return await arun_batch(self._telling, inputs, config, work, check=check_query, return_exceptions=return_exceptions)

    def rank_rewritten(
        self, snapshot: BaseSnapshot, queries: Sequence[str], rewritings: Sequence[Rewriting], k: int, filter: Filter | None
    ) -> list[Ranked]:
        """See `ExpansionRetriever.rank_rewritten`."""
        depth, filter = max(self.depth, k), both(self.retriever.filter, filter)
        searches = self._searches(snapshot, queries, rewritings)
        asked, found = _advance(searches, None)
        while asked is not None:
            asked, found = _advance(searches, self.retriever.rank(snapshot, asked, depth, filter))
        return [self._in_turn(its, k) for its in found]

    async def arank_rewritten(
        self, snapshot: BaseSnapshot, queries: Sequence[str], rewritings: Sequence[Rewriting], k: int, filter: Filter | None
    ) -> list[Ranked]:
        """See `ExpansionRetriever.arank_rewritten`."""
        depth, filter = max(self.depth, k), both(self.retriever.filter, filter)
        searches = self._searches(snapshot, queries, rewritings)
        asked, found = _advance(searches, None)
        while asked is not None:
            ranked = await self.retriever.arank(snapshot, asked, depth, filter)
            asked, found = await asyncio.to_thread(_advance, searches, ranked)
        return [self._in_turn(its, k) for its in found]

    def _found(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None) -> list[Found]:
        results, rewritings = self._searched(queries, configs, k, filter)
        return _told(queries, rewritings, results)

    async def _afound(
        self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None
    ) -> list[Found]:
        results, rewritings = await self._asearched(queries, configs, k, filter)
        return _told(queries, rewritings, results)

    def _searches(self, snapshot: BaseSnapshot, queries: Sequence[str], rewritings: Sequence[Rewriting]) -> Searches:
        """Round by round: the questions with the steps that wait for none, then those that wait for these, and so on."""
        analyzer = Analyzer(self.store.language or "english")
        several = [
            _Steps(query, () if rewriting.texts == (query,) else rewriting.texts)
            for query, rewriting in zip(queries, rewritings, strict=True)
        ]
        while asked := [(steps, at, text) for steps in several for at, text in steps.ready()]:
            ranked = yield [text for _, _, text in asked]
            firsts = [int(one.ranking.positions[0]) if len(one.ranking.positions) else None for one in ranked]
            wanted = [p for (steps, at, _), p in zip(asked, firsts, strict=True) if p is not None and steps.is_named(at)]
            documents = dict(zip(wanted, snapshot.documents(wanted), strict=True))
            for (steps, at, text), one, first in zip(asked, ranked, firsts, strict=True):
                best = documents.get(first) if first is not None and steps.is_named(at) else None
                steps.take(at, one, "" if best is None else answer_words(text, best, analyzer))
        return [steps.rankings for steps in several]

    def _in_turn(self, found: Sequence[Ranked], k: int) -> Ranked:
        first, *others = found
        sources: dict[str, Ranking] = {**first.sources, self.retriever.stage: first.ranking}
        sources |= {f"{self.retriever.stage} {n}": other.ranking for n, other in enumerate(others, 1)}
        return Ranked(in_turn([one.ranking for one in found], k), sources)

    @property
    def _telling(self) -> Owner:
        return self._owner._replace(shown=lambda result: result.documents if isinstance(result, Found) else result)


class _Steps:
    """A question and its steps on the way: number 0 is the question itself."""

    def __init__(self, question: str, steps: Sequence[str]) -> None:
        self._texts = [question, *steps]
        self._waits = [frozenset[int](), *(frozenset(map(int, _REFERENCE.findall(step))) for step in steps)]
        self._answers: dict[int, str] = {}
        self._ranked: dict[int, Ranked] = {}

    def ready(self) -> list[tuple[int, str]]:
        """What can be searched for now, the question in any case. A step of which nothing is left to search for has no answer."""
        ready: list[tuple[int, str]] = []
        for at, text in enumerate(self._texts):
            if at not in self._answers and self._waits[at] <= self._answers.keys():
                whole = filled(text, self._answers) if at else text
                if not at or re.search(r"\w", whole):
                    ready.append((at, whole))
                else:
                    self._answers[at] = ""
        return ready

    def is_named(self, at: int) -> bool:
        return any(at in waits for waits in self._waits)

    def take(self, at: int, ranked: Ranked, answer: str) -> None:
        self._ranked[at], self._answers[at] = ranked, answer

    @property
    def rankings(self) -> list[Ranked]:
        return [self._ranked[at] for at in sorted(self._ranked)]


def steps_of(question: str, answer: str) -> list[str]:
    """The steps of a model's answer in their order, with #n for the answer of the nth of them.

    If any lines have numbers, those count, and nothing else is read. A line that names no step before it and shares no term with
    the question is none: what is said of one that is none, or comes later, is left out.
    """
    lines = [(_NUMBERED.match(line), line) for line in spoken(answer).splitlines()]
    numbered = [(int(label[1]), line[label.end() :]) for label, line in lines if label]
    cleaned = [(n, text) for n, line in numbered for text in questions_of("", line)]
    if not numbered:
        cleaned = list(enumerate((text for _, line in lines for text in questions_of("", line)), 1))
    analyzer = Analyzer()
    own = set(analyzer(question))
    places: dict[int, int] = {}
    steps: list[str] = []
    for n, text in cleaned:
        step = _REFERENCE.sub(lambda named: f"#{places[int(named[1])]}" if int(named[1]) in places else "", text)
        if _REFERENCE.search(step) or own & set(analyzer(step)):
            steps.append(" ".join(step.split()))
            places[n] = len(steps)
    return steps


def filled(step: str, answers: Mapping[int, str]) -> str:
    """The step with the answers of others in the place of their numbers; without a number that has none."""
    return " ".join(_REFERENCE.sub(lambda named: f" {answers.get(int(named[1]), '')} ", step).split())


def answer_words(step: str, document: Document, analyzer: Analyzer) -> str:
    """What the document's best sentence for a step, with its title, says beyond the words of the step.

    That is its words with a capital or a digit in front, since answers that lead on are names and dates mostly, or, if there are
    none, all of its words, no more than 40; the best sentence is that of BM25.
    """
    text, language = passage_text(document), analyzer.language
    sentences = [text[unit.start : unit.end] for unit in units_of(document, iso_code(language))]
    if not sentences:
        return ""
    title = document.metadata.get("title")
    name = title if isinstance(title, str) and title.strip() else next(reversed(provenance(document).headings), "")
    best = int(np.argmax(bm25_scores(step, [f"{name} {sentence}" for sentence in sentences], language)))
    own = set(analyzer(step))
    words = (_AROUND.sub("", word) for word in f"{name} {sentences[best]}".split())
    new = [word for word in words if not set(analyzer(word)) <= own]
    names = [word for word in new if word[0].isupper() or word[0].isdigit()]
    return " ".join((names or new)[:_MOST_WORDS])


def in_turn(rankings: Sequence[Ranking], k: int) -> Ranking:
    """The best of each ranking, then the second of each, and so on, a position once; top k, with 1 / rank for scores."""
    longest = max((len(one.positions) for one in rankings), default=0)
    order = dict.fromkeys(int(one.positions[rank]) for rank in range(longest) for one in rankings if rank < len(one.positions))
    positions = np.fromiter(list(order)[:k], np.int64)
    return Ranking(positions, 1.0 / np.arange(1, len(positions) + 1))


def _advance(searches: Searches, ranked: Sequence[Ranked] | None) -> tuple[list[str] | None, list[list[Ranked]]]:
    """What to search for next, or None and what was found in the end."""
    try:
        return (next(searches) if ranked is None else searches.send(ranked)), []
    except StopIteration as end:
        return None, end.value


def _told(queries: Sequence[str], rewritings: Sequence[Rewriting], results: Results) -> list[Found]:
    """Documents with what the model was asked for; a blank question was not asked."""
    asked = iter(rewritings)
    usages = [_usage(next(asked)) if query.strip() else {} for query in queries]
    return [Found(list(documents), usage) for documents, usage in zip(results, usages, strict=True)]  # type: ignore[arg-type]


def _usage(rewriting: Rewriting) -> dict[str, Any]:
    cost = rewriting.cost
    usage: dict[str, Any] = {
        "calls": 0 if cost.cached else cost.calls,
        "prompt_tokens": cost.prompt_tokens,
        "completion_tokens": cost.completion_tokens,
        "cached": int(cost.cached),
        "questions": list(rewriting.texts),
    }
    if rewriting.failure is not None:
        reason = " ".join(str(rewriting.failure).split())[:200]
        usage |= {"failures": 1, "failure": f"{type(rewriting.failure).__name__}: {reason}"}
    return usage
