"""Others' vector stores and retrievers as a first stage, with what ragkit's own retrievers have: k, scores, ids, provenance."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Self

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from langchain_core.vectorstores import VectorStore
from pydantic import Field, model_validator

from ragkit.corpus.filters import Filter
from ragkit.documents.provenance import StageResult, ensure_id, score_of, with_stages
from ragkit.errors import InputError
from ragkit.retrievers.batched import BatchedRetriever, Results

Scored = Sequence[tuple[Document, float | None]]
"""Documents with their scores, higher is better; None without one."""


class ForeignRetriever(BatchedRetriever):
    """Base of retrievers that ask somebody else, one question at a time and several at once.

    Documents keep their ids; one without gets a hash of its text and metadata. A question that fails fails alone.
    """

    filter: Any = None
    """A filter in the form that is asked for there, not ragkit's; it is passed on as it is, and not beside one in the call."""
    search_kwargs: dict[str, Any] = {}
    """Further arguments of each search."""
    max_concurrency: int = Field(default=16, gt=0)
    """Questions that are asked at once."""

    @property
    @abstractmethod
    def stage(self) -> str:
        """Name under which scores and ranks are recorded in `metadata["ragkit"]`."""

    @abstractmethod
    def _search(self, query: str, config: RunnableConfig, k: int, arguments: dict[str, Any]) -> Scored:
        """At most `k` documents for one question, best first."""

    @abstractmethod
    async def _asearch(self, query: str, config: RunnableConfig, k: int, arguments: dict[str, Any]) -> Scored:
        """Async form of `_search`."""

    @abstractmethod
    def _filtered(self, filter: Any) -> dict[str, Any]:
        """The arguments of a search with this filter. Raises `InputError` if it cannot filter."""

    def _arguments(self, k: int | None, filter: Filter | None) -> tuple[int, Filter | None]:
        if self.filter is not None and filter is not None:
            raise InputError(
                f"filter: {self.get_name()} has one already, and filters that are not ragkit's cannot be joined; "
                "give it in the constructor or in the call"
            )
        return self._count(k), self.filter if filter is None else filter

    def _retrieve(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Any) -> Results:
        arguments = {**self.search_kwargs, **self._filtered(filter)}

        def ask(query: str, config: RunnableConfig) -> list[Document] | Exception:
            try:
                return self._documents(self._search(query, config, k, arguments), k) if query.strip() else []
            except Exception as error:
                return error

        if len(queries) == 1:
            return [ask(queries[0], configs[0])]
        with ThreadPoolExecutor(min(self.max_concurrency, len(queries))) as pool:
            return list(pool.map(ask, queries, configs))

    async def _aretrieve(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Any) -> Results:
        arguments = {**self.search_kwargs, **self._filtered(filter)}
        slots = asyncio.Semaphore(self.max_concurrency)

        async def ask(query: str, config: RunnableConfig) -> list[Document] | Exception:
            try:
                async with slots:
                    return self._documents(await self._asearch(query, config, k, arguments), k) if query.strip() else []
            except Exception as error:
                return error

        return await asyncio.gather(*map(ask, queries, configs))

    def _documents(self, found: Scored, k: int) -> list[Document]:
        return [
            with_stages(ensure_id(document), StageResult(self.stage, score, rank))
            for rank, (document, score) in enumerate(found[:k], 1)
        ]


class VectorStoreRetriever(ForeignRetriever):
    """Ranks by what a LangChain `VectorStore` finds, through `similarity_search_with_score` and its async form.

    Indexing stays with the store. A hit's score is higher for a better one: a distance is made negative.
    """

    store: VectorStore
    """Where the passages live."""
    scores: Literal["similarity", "distance"] | None
    """What the store gives as scores: higher is better, lower is better, or None for a store that gives none. LangChain does not
    tell, so say it. `InputError` if the order of what the store returns shows that it is the other."""
    filter_argument: str = "filter"
    """What the store calls its filter: "filter" (most), "pre_filter", "expr", ..."""

    @property
    def stage(self) -> str:
        """The retriever's `name`, or "vector-store"."""
        return self.name or "vector-store"

    def _filtered(self, filter: Any) -> dict[str, Any]:
        return {} if filter is None else {self.filter_argument: filter}

    def _search(self, query: str, config: RunnableConfig, k: int, arguments: dict[str, Any]) -> Scored:
        if self.scores is None:
            return _unscored(self.store.similarity_search(query, k=k, **arguments))
        return self._scored(self.store.similarity_search_with_score(query, k=k, **arguments))

    async def _asearch(self, query: str, config: RunnableConfig, k: int, arguments: dict[str, Any]) -> Scored:
        if self.scores is None:
            return _unscored(await self.store.asimilarity_search(query, k=k, **arguments))
        return self._scored(await self.store.asimilarity_search_with_score(query, k=k, **arguments))

    def _scored(self, found: Sequence[tuple[Document, float]]) -> Scored:
        sign = -1.0 if self.scores == "distance" else 1.0
        scores = [sign * float(score) for _, score in found]
        if scores and scores == sorted(scores) and scores[0] < scores[-1]:
            other = "similarity" if self.scores == "distance" else "distance"
            raise InputError(
                f"scores: {type(self.store).__name__} returns its best documents first, so its scores are no {self.scores}; "
                f"use scores={other!r}"
            )
        return [(document, score) for (document, _), score in zip(found, scores, strict=True)]


class WrappedRetriever(ForeignRetriever):
    """Any LangChain retriever, asked through `invoke` and `ainvoke`; its first `k` documents.

    It decides by itself how many it looks for. A score is taken from `metadata["relevance_score"]` where it gives one, and
    `search_kwargs` are those of its `invoke`.
    """

    retriever: BaseRetriever
    """Who is asked."""

    @model_validator(mode="after")
    def _no_filter(self) -> Self:
        self._filtered(self.filter)
        return self

    @property
    def stage(self) -> str:
        """The retriever's `name`, or that of the one inside."""
        return self.name or self.retriever.get_name()

    def _filtered(self, filter: Any) -> dict[str, Any]:
        if filter is not None:
            raise InputError(f"filter: {self.retriever.get_name()} takes none; filter inside it, or through search_kwargs")
        return {}

    def _search(self, query: str, config: RunnableConfig, k: int, arguments: dict[str, Any]) -> Scored:
        return _with_own_scores(self.retriever.invoke(query, config, **arguments))

    async def _asearch(self, query: str, config: RunnableConfig, k: int, arguments: dict[str, Any]) -> Scored:
        return _with_own_scores(await self.retriever.ainvoke(query, config, **arguments))


def _unscored(documents: Sequence[Document]) -> Scored:
    return [(document, None) for document in documents]


def _with_own_scores(documents: Sequence[Document]) -> Scored:
    return [(document, score_of(document)) for document in documents]
