"""`retriever >> reranker >> pruner`, as one retriever that can also ground its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableLambda
from pydantic import Field

from ragkit.chains.context import GroundedContext, Ranked, StageTrace
from ragkit.chains.grounding import ground
from ragkit.compressor import Compressor, Outcome
from ragkit.corpus.filters import Filter
from ragkit.documents.provenance import SCORE_KEY, ensure_id, passage_text, reanchored
from ragkit.documents.tokens import RegexTokenizer, Tokenizer, count_tokens
from ragkit.errors import InputError
from ragkit.pruners.base import Pruner
from ragkit.retrievers.base import StoreRetriever
from ragkit.retrievers.batched import BatchedRetriever, Results
from ragkit.runs import Configs, Owner, arun_batch, run_batch
from ragkit.store.store import Store


class _Run(NamedTuple):
    """What the stages made of a batch: final documents, the whole passages before pruning, and one trace per question."""

    documents: Results
    whole: Results
    traces: list[list[StageTrace]]


class _Step(NamedTuple):
    """One stage as something that answers a batch with outcomes."""

    name: str
    run: Callable[[list[Any], list[RunnableConfig]], list[Outcome]]
    arun: Callable[[list[Any], list[RunnableConfig]], Awaitable[list[Outcome]]]
    prunes: bool = False
    foreign: bool = False


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
        max_tokens: int | None = None,
        max_passages: int | None = None,
        k: int | None = None,
        filter: Filter | None = None,
        config: RunnableConfig | None = None,
    ) -> GroundedContext:
        """Numbered, cited, budgeted context for one question; arguments override the pipeline's own."""
        return self.ground_batch([question], max_tokens=max_tokens, max_passages=max_passages, k=k, filter=filter, config=config)[
            0
        ]

    def ground_batch(
        self,
        questions: Sequence[str],
        *,
        max_tokens: int | None = None,
        max_passages: int | None = None,
        k: int | None = None,
        filter: Filter | None = None,
        config: Configs = None,
    ) -> list[GroundedContext]:
        """`ground` for many questions, each stage in one pass over all of them."""

        def work(configs: list[RunnableConfig]) -> list[GroundedContext]:
            arguments = self._arguments(questions, k, filter)
            run = self._run(questions, configs, *arguments) if questions else _Run([], [], [])
            return self._ground(questions, run, max_tokens, max_passages)

        return run_batch(self._grounding, questions, config, work)

    async def aground(
        self,
        question: str,
        *,
        max_tokens: int | None = None,
        max_passages: int | None = None,
        k: int | None = None,
        filter: Filter | None = None,
        config: RunnableConfig | None = None,
    ) -> GroundedContext:
        """Async form of `ground`."""

        async def work(configs: list[RunnableConfig]) -> list[GroundedContext]:
            run = await self._arun([question], configs, *self._arguments([question], k, filter))
            return await asyncio.to_thread(self._ground, [question], run, max_tokens, max_passages)

        contexts: list[GroundedContext] = await arun_batch(self._grounding, [question], config, work)
        return contexts[0]

    @property
    def _grounding(self) -> Owner:
        return self._owner._replace(kind="chain", name=f"{self.get_name()}.ground", inheritable_metadata=None)

    def _retrieve(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None) -> Results:
        return self._run(queries, configs, k, filter).documents

    async def _aretrieve(
        self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None
    ) -> Results:
        return (await self._arun(queries, configs, k, filter)).documents

    def _run(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None) -> _Run:
        progress = _Progress(queries, k, self._corpus_size())
        for step in self._steps(k, filter):
            progress.enter(step)
            progress.leave(step, step.run(progress.inputs, list(configs)))
        return progress.finish()

    async def _arun(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None) -> _Run:
        progress = _Progress(queries, k, await asyncio.to_thread(self._corpus_size))
        for step in self._steps(k, filter):
            progress.enter(step)
            progress.leave(step, await step.arun(progress.inputs, list(configs)))
        return progress.finish()

    def _steps(self, k: int, filter: Filter | None) -> list[_Step]:
        options: dict[str, Any] = {}
        if isinstance(self.retriever, BatchedRetriever):
            options = {"k": max(self.retriever.k, k), "filter": filter}
        elif filter:
            raise InputError(f"filter: {self.retriever.get_name()} takes none; filter inside it, or use a ragkit retriever")
        return [_retrieval(self.retriever, options), *map(_step, self.stages)]

    def _store(self) -> Store | None:
        if isinstance(self.retriever, Pipeline):
            return self.retriever._store()
        return self.retriever.store if isinstance(self.retriever, StoreRetriever) else None

    def _corpus_size(self) -> int:
        store = self._store()
        return 0 if store is None else len(store)

    def _ground(
        self, questions: Sequence[str], run: _Run, max_tokens: int | None, max_passages: int | None
    ) -> list[GroundedContext]:
        store = self._store()
        tokenizer: Tokenizer = RegexTokenizer() if store is None else store.tokenizer
        return [
            ground(
                question,
                documents,
                tokenizer,
                tokens_retrieved=sum(count_tokens(tokenizer, [passage_text(document) for document in whole])),
                max_tokens=self.max_tokens if max_tokens is None else max_tokens,
                max_passages=self.max_passages if max_passages is None else max_passages,
                trace=trace,
            )
            for question, documents, whole, trace in zip(questions, *run, strict=True)
        ]


class _Progress:
    """A batch on its way through the stages."""

    def __init__(self, queries: Sequence[str], k: int, corpus_size: int) -> None:
        self.queries, self.k = queries, k
        self.inputs: list[Any] = list(queries)
        self._documents: Results = []
        self._whole: Results | None = None
        self._entered = [corpus_size] * len(queries)
        self._started = 0.0
        self._traces: list[list[StageTrace]] = [[] for _ in queries]

    def enter(self, step: _Step) -> None:
        if self._documents:
            if step.prunes and self._whole is None:
                self._cut()
            self._entered = [len(documents) for documents in self._documents]
            self.inputs = [
                {"documents": documents, "query": query} for query, documents in zip(self.queries, self._documents, strict=True)
            ]
        self._started = time.perf_counter()

    def leave(self, step: _Step, outcomes: Sequence[Outcome]) -> None:
        seconds = time.perf_counter() - self._started
        results = [[ensure_id(document) for document in outcome.documents] for outcome in outcomes]
        if step.foreign:
            results = [_reanchor(before, after) for before, after in zip(self._documents, results, strict=True)]
        self._documents = results
        for trace, entered, documents, outcome in zip(self._traces, self._entered, results, outcomes, strict=True):
            ranked = tuple(Ranked(str(document.id), document.metadata.get(SCORE_KEY)) for document in documents)
            trace.append(StageTrace(step.name, seconds, entered, ranked, outcome.usage))

    def finish(self) -> _Run:
        if self._whole is None:
            self._cut()
        return _Run(self._documents, self._whole or [], self._traces)

    def _cut(self) -> None:
        self._documents = [documents[: self.k] for documents in self._documents]
        self._whole = self._documents


def compose(retriever: BaseRetriever, stage: BaseDocumentCompressor) -> Pipeline:
    """What `retriever >> stage` means; the pipeline takes over the retriever's `k`."""
    k = retriever.k if isinstance(retriever, BatchedRetriever) else Pipeline.model_fields["k"].default
    return Pipeline(retriever=retriever, k=k) >> stage


def _checked(stage: Any) -> BaseDocumentCompressor:
    if not isinstance(stage, BaseDocumentCompressor):
        raise InputError(f"a pipeline stage must be a reranker, a pruner or a LangChain compressor, not {type(stage).__name__}")
    return stage


def _reanchor(before: Sequence[Document], after: Sequence[Document]) -> list[Document]:
    known = {document.id: document for document in before}
    return [reanchored(known[document.id], document) if document.id in known else document for document in after]


def _retrieval(retriever: BaseRetriever, options: dict[str, Any]) -> _Step:
    def run(queries: list[Any], configs: list[RunnableConfig]) -> list[Outcome]:
        return [Outcome(documents) for documents in retriever.batch(queries, configs, **options)]

    async def arun(queries: list[Any], configs: list[RunnableConfig]) -> list[Outcome]:
        return [Outcome(documents) for documents in await retriever.abatch(queries, configs, **options)]

    return _Step(retriever.stage if isinstance(retriever, StoreRetriever) else retriever.get_name(), run, arun)


def _step(stage: BaseDocumentCompressor) -> _Step:
    """A compressor of ragkit's as it is; any other through LangChain's interface, traced under its own name."""
    if isinstance(stage, Compressor):
        return _Step(getattr(stage, "stage", stage.get_name()), stage.outcomes, stage.aoutcomes, isinstance(stage, Pruner))

    def compress(value: dict[str, Any], config: RunnableConfig) -> list[Document]:
        return list(stage.compress_documents(value["documents"], value["query"], config.get("callbacks")))

    async def acompress(value: dict[str, Any], config: RunnableConfig) -> list[Document]:
        return list(await stage.acompress_documents(value["documents"], value["query"], config.get("callbacks")))

    runnable = RunnableLambda(compress, acompress, name=type(stage).__name__)

    def run(inputs: list[Any], configs: list[RunnableConfig]) -> list[Outcome]:
        return [Outcome(documents) for documents in runnable.batch(inputs, configs)]

    async def arun(inputs: list[Any], configs: list[RunnableConfig]) -> list[Outcome]:
        return [Outcome(documents) for documents in await runnable.abatch(inputs, configs)]

    return _Step(type(stage).__name__, run, arun, foreign=True)
