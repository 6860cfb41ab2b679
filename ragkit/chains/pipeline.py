"""`retriever >> reranker >> pruner`, as one retriever that can also ground its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from pydantic import Field

from ragkit.chains.budget import Budget
from ragkit.chains.context import GroundedContext, Ranked, StageTrace
from ragkit.chains.grounding import ground
from ragkit.chains.ordering import Order
from ragkit.chains.steps import Step, retrieval_step, stage_step
from ragkit.compressor import Outcome
from ragkit.corpus.filters import Filter
from ragkit.documents.provenance import ensure_id, place, reanchored, score_of
from ragkit.documents.tokens import RegexTokenizer, Tokenizer
from ragkit.errors import InputError
from ragkit.retrievers.base import StoreRetriever
from ragkit.retrievers.batched import BatchedRetriever, Results, check_query
from ragkit.runs import Configs, Owner, arun_batch, run_batch
from ragkit.store.base import BaseStore


class Pipeline(BatchedRetriever):
    """A retriever followed by rerankers and pruners.

    `k` is the number of passages that reach the first pruner, or the end if there is none; the retriever is asked for its own
    `k`, or for more if `k` is larger. Any LangChain retriever and document compressor can be a stage.
    """

    retriever: BaseRetriever
    """The first stage."""
    stages: list[BaseDocumentCompressor] = []
    """Rerankers and pruners, in order."""
    k: int = Field(default=5, gt=0)
    """Number of passages to return."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Default token budget of `ground`."""
    max_passages: int | None = Field(default=None, gt=0)
    """Default number of passages of `ground`."""
    order: Order = "best-first"
    """In what order `ground` shows and numbers passages; what is kept is the same. "best-last" and "best-at-ends" put the best
    where language models read most attentively, "source" keeps what is from one source together, in the order of its text."""

    @classmethod
    def from_config(cls, path: str | Path, *, store: Any = None) -> Self:
        """A pipeline from a YAML file; see `ragkit.chains.config`. `store` (a path or a `Store`) overrides the file's."""
        from ragkit.chains.config import build_pipeline, read_config

        return build_pipeline(cls, read_config(path), store)

    def __rshift__(self, stage: BaseDocumentCompressor) -> Self:
        """A pipeline with one more stage."""
        return self.model_copy(update={"stages": [*self.stages, _checked(stage)]})

    def ground(
        self,
        question: str,
        *,
        max_tokens: int | Budget | None = None,
        max_passages: int | None = None,
        order: Order | None = None,
        k: int | None = None,
        filter: Filter | None = None,
        config: RunnableConfig | None = None,
    ) -> GroundedContext:
        """Numbered, cited, budgeted context for one question; arguments override the pipeline's own.

        `max_tokens` counts tokens of the store's tokenizer, unless it is a `Budget`, which counts its own.
        """
        [context] = self.ground_batch(
            [question], max_tokens=max_tokens, max_passages=max_passages, order=order, k=k, filter=filter, config=config
        )
        grounded: GroundedContext = context
        return grounded

    def ground_batch(
        self,
        questions: Sequence[str],
        *,
        max_tokens: int | Budget | None = None,
        max_passages: int | None = None,
        order: Order | None = None,
        k: int | None = None,
        filter: Filter | None = None,
        config: Configs = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """`ground` for many questions, each stage in one pass over all of them.

        What fails fails one question: its exception is raised, or returned in its place with `return_exceptions`.
        """

        def work(asked: list[str], configs: list[RunnableConfig]) -> list[GroundedContext | Exception]:
            ways = self._run(asked, configs, *self._arguments(k, filter))
            return self._ground(ways, max_tokens, max_passages, order)

        return run_batch(self._grounding, questions, config, work, check=check_query, return_exceptions=return_exceptions)

    async def aground(
        self,
        question: str,
        *,
        max_tokens: int | Budget | None = None,
        max_passages: int | None = None,
        order: Order | None = None,
        k: int | None = None,
        filter: Filter | None = None,
        config: RunnableConfig | None = None,
    ) -> GroundedContext:
        """Async form of `ground`."""
        [context] = await self.aground_batch(
            [question], max_tokens=max_tokens, max_passages=max_passages, order=order, k=k, filter=filter, config=config
        )
        grounded: GroundedContext = context
        return grounded

    async def aground_batch(
        self,
        questions: Sequence[str],
        *,
        max_tokens: int | Budget | None = None,
        max_passages: int | None = None,
        order: Order | None = None,
        k: int | None = None,
        filter: Filter | None = None,
        config: Configs = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Async form of `ground_batch`."""

        async def work(asked: list[str], configs: list[RunnableConfig]) -> list[GroundedContext | Exception]:
            ways = await self._arun(asked, configs, *self._arguments(k, filter))
            return await asyncio.to_thread(self._ground, ways, max_tokens, max_passages, order)

        return await arun_batch(self._grounding, questions, config, work, check=check_query, return_exceptions=return_exceptions)

    @property
    def _grounding(self) -> Owner:
        return self._owner._replace(kind="chain", name=f"{self.get_name()}.ground", inheritable_metadata=None)

    def _retrieve(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None) -> Results:
        return [way.failure or way.documents for way in self._run(queries, configs, k, filter)]

    async def _aretrieve(
        self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None
    ) -> Results:
        return [way.failure or way.documents for way in await self._arun(queries, configs, k, filter)]

    def _run(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None) -> list[_Way]:
        size = self._corpus_size()
        ways = [_Way(query, config, k, size) for query, config in zip(queries, configs, strict=True)]
        for step in self._steps(k, filter):
            started, active = time.perf_counter(), [way for way in ways if way.failure is None]
            outcomes = step.run([way.enter(step) for way in active], [way.config for way in active]) if active else []
            _leave(step, active, outcomes, time.perf_counter() - started)
        return ways

    async def _arun(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None) -> list[_Way]:
        size = await asyncio.to_thread(self._corpus_size)
        ways = [_Way(query, config, k, size) for query, config in zip(queries, configs, strict=True)]
        for step in self._steps(k, filter):
            started, active = time.perf_counter(), [way for way in ways if way.failure is None]
            outcomes = await step.arun([way.enter(step) for way in active], [way.config for way in active]) if active else []
            _leave(step, active, outcomes, time.perf_counter() - started)
        return ways

    def _steps(self, k: int, filter: Filter | None) -> list[Step]:
        options: dict[str, Any] = {}
        if isinstance(self.retriever, BatchedRetriever):
            options = {"k": max(self.retriever.k, k), "filter": filter}
        elif filter:
            raise InputError(f"filter: {self.retriever.get_name()} takes none; filter inside it, or use a ragkit retriever")
        return [retrieval_step(self.retriever, options), *map(stage_step, self.stages)]

    @property
    def language(self) -> str | None:
        """ISO 639-1 code of the language of the store that is searched; None if that is not known."""
        store = self._store()
        return None if store is None else store.language

    def _store(self) -> BaseStore | None:
        if isinstance(self.retriever, Pipeline):
            return self.retriever._store()
        return self.retriever.store if isinstance(self.retriever, StoreRetriever) else None

    def _corpus_size(self) -> int:
        store = self._store()
        return 0 if store is None else len(store)

    def _ground(
        self, ways: Sequence[_Way], max_tokens: int | Budget | None, max_passages: int | None, order: Order | None
    ) -> list[GroundedContext | Exception]:
        store = self._store()
        tokenizer: Tokenizer = RegexTokenizer() if store is None else store.tokenizer

        def grounded(way: _Way) -> GroundedContext | Exception:
            try:
                return ground(
                    way.query,
                    way.documents,
                    tokenizer,
                    whole=way.whole,
                    seen=[*way.seen.values()],
                    max_tokens=self.max_tokens if max_tokens is None else max_tokens,
                    max_passages=self.max_passages if max_passages is None else max_passages,
                    order=order or self.order,
                    trace=way.trace,
                )
            except InputError as error:
                return error

        return [way.failure or grounded(way) for way in ways]


class _Way:
    """One question on its way through the stages."""

    def __init__(self, query: str, config: RunnableConfig, k: int, corpus_size: int) -> None:
        self.query, self.config, self._k = query, config, k
        self.failure: Exception | None = None
        self.trace: list[StageTrace] = []
        self.seen: dict[str, Document] = {}
        """Every document that a stage returned, as the last of them left it."""
        self._found: list[Document] | None = None
        self._whole: list[Document] | None = None
        self._entered = corpus_size

    @property
    def documents(self) -> list[Document]:
        """What has come out so far, cut to k."""
        return (self._found or [])[: self._k if self._whole is None else None]

    @property
    def whole(self) -> list[Document]:
        """The passages that were chosen, before anything shortened them."""
        return self.documents if self._whole is None else self._whole

    def enter(self, step: Step) -> Any:
        """What the step is given."""
        if self._found is None:
            return self.query
        if step.prunes and self._whole is None:
            self._whole = self._found = self.documents
        self._entered = len(self._found)
        return {"documents": self._found, "query": self.query}

    def leave(self, step: Step, outcome: Outcome | Exception, seconds: float) -> None:
        """Take over what the step has made of it."""
        if isinstance(outcome, Exception):
            self.failure = outcome
            return
        documents = _reanchored(self._found or [], outcome.documents) if step.foreign else outcome.documents
        self._found = [ensure_id(document) for document in documents]
        self.seen |= {str(document.id): document for document in self._found}
        ranked = tuple(Ranked(str(document.id), score_of(document)) for document in self._found)
        self.trace.append(StageTrace(step.name, seconds, self._entered, ranked, outcome.usage))


def _leave(step: Step, ways: Sequence[_Way], outcomes: Sequence[Outcome | Exception], seconds: float) -> None:
    for way, outcome in zip(ways, outcomes, strict=True):
        way.leave(step, outcome, seconds)


def compose(retriever: BaseRetriever, stage: BaseDocumentCompressor) -> Pipeline:
    """What `retriever >> stage` means; the pipeline takes over the retriever's `k`."""
    k = retriever.k if isinstance(retriever, BatchedRetriever) else Pipeline.model_fields["k"].default
    return Pipeline(retriever=retriever, k=k) >> stage


def _checked(stage: Any) -> BaseDocumentCompressor:
    if not isinstance(stage, BaseDocumentCompressor):
        raise InputError(f"a pipeline stage must be a reranker, a pruner or a LangChain compressor, not {type(stage).__name__}")
    return stage


def _reanchored(before: Sequence[Document], after: Sequence[Document]) -> list[Document]:
    """What a foreign stage returned, matched with what it was given by id or, where it dropped the id, by place."""
    known: dict[Any, Document] = {key: was for was in before for key in (was.id, place(was)) if key is not None}
    matched = [known.get(document.id) or known.get(place(document)) for document in after]
    return [document if was is None else reanchored(was, document) for was, document in zip(matched, after, strict=True)]
