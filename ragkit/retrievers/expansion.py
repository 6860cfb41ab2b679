"""Questions that a language model rewrites before they are searched for: HyDE, multi-query, step-back."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from langchain_core.runnables import RunnableConfig
from pydantic import Field, PrivateAttr, model_validator

from ragkit.corpus.filters import Filter, both
from ragkit.errors import InputError
from ragkit.indexes.base import Ranking
from ragkit.retrievers.base import Ranked, StoreRetriever
from ragkit.retrievers.batched import Results
from ragkit.retrievers.bm25 import BM25Retriever
from ragkit.retrievers.dense import DenseRetriever
from ragkit.retrievers.fusion import reciprocal_rank_fusion
from ragkit.retrievers.over import OverRetriever
from ragkit.retrievers.rewriting import Read, Rewriter, Rewriting, passage_of, questions_of
from ragkit.retrievers.single import IndexRetriever
from ragkit.sparse_vectors import SparseVectors
from ragkit.store.base import BaseSnapshot, BaseStore
from ragkit.store.text_index import TextIndex


class ExpansionRetriever(StoreRetriever):
    """Base of retrievers that ask a language model about each question, and search with what it writes.

    Where that cannot be used, as it is empty, no text, an error or late, the question is searched for as it is, and a warning
    says how often. `rewrite` shows what the model makes of questions. Wrap the model in `ragkit.llms.Cached` to ask it once.
    """

    shipped: ClassVar[str]
    """The name of the prompt in `prompts/`."""
    variables: ClassVar[frozenset[str]] = frozenset({"question"})
    """What a prompt has to use."""

    llm: Any
    """A LangChain chat model, a model of `ragkit.llms`, or a name: "provider:name" of a chat model, as `init_chat_model` makes it
    (`openai:gpt-4.1-mini`), or the folder or hub name of a model to run locally."""
    prompt: str | Path | None = None
    """A prompt file of your own, in place of the shipped one and with the same variables."""
    timeout: float | None = Field(default=30.0, gt=0)
    """Seconds that the answers to one batch of questions may take; None for no limit."""

    _rewriter: Rewriter | None = PrivateAttr(default=None)

    @abstractmethod
    def rank_rewritten(
        self, snapshot: BaseSnapshot, queries: Sequence[str], rewritings: Sequence[Rewriting], k: int, filter: Filter | None
    ) -> list[Ranked]:
        """Like `rank`, with what the model has written."""

    @abstractmethod
    async def arank_rewritten(
        self, snapshot: BaseSnapshot, queries: Sequence[str], rewritings: Sequence[Rewriting], k: int, filter: Filter | None
    ) -> list[Ranked]:
        """Async form of `rank_rewritten`."""

    @property
    @abstractmethod
    def reader(self) -> Read:
        """How an answer is read."""

    @property
    def most(self) -> int:
        """How many texts of an answer are used."""
        return 1

    @property
    def stage(self) -> str:
        """See `StoreRetriever.stage`."""
        return self.shipped

    @model_validator(mode="after")
    def _usable(self) -> Self:
        self._rewriter = Rewriter(self.llm, self.prompt or self.shipped, self.variables, self.reader, self.most, self.timeout)
        return self

    def rewrite(self, queries: Sequence[str], configs: Sequence[RunnableConfig] | None = None) -> list[Rewriting]:
        """What the model makes of each question, with its cost, or why it failed."""
        assert self._rewriter is not None
        return self._rewriter.rewrite(queries, configs)

    async def arewrite(self, queries: Sequence[str], configs: Sequence[RunnableConfig] | None = None) -> list[Rewriting]:
        """Async form of `rewrite`."""
        assert self._rewriter is not None
        return await self._rewriter.arewrite(queries, configs)

    def rank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.rank`."""
        return self.rank_rewritten(snapshot, queries, self.rewrite(queries), k, filter)

    async def arank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.arank`."""
        return await self.arank_rewritten(snapshot, queries, await self.arewrite(queries), k, filter)

    def _retrieve(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None) -> Results:
        return self._searched(queries, configs, k, filter)[0]

    async def _aretrieve(
        self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None
    ) -> Results:
        return (await self._asearched(queries, configs, k, filter))[0]

    def _searched(
        self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None
    ) -> tuple[Results, list[Rewriting]]:
        """The documents, and what the model made of each question that is not blank."""
        # the model is asked before a snapshot is taken: a search that is done again on a newer one does not ask again
        asked = [(query, config) for query, config in zip(queries, configs, strict=True) if query.strip()]
        texts = [query for query, _ in asked]
        rewritings = self.rewrite(texts, [config for _, config in asked]) if asked else []

        def search(snapshot: BaseSnapshot) -> Results:
            ranked = self.rank_rewritten(snapshot, texts, rewritings, k, filter) if asked else []
            return self._materialise(snapshot, queries, ranked)

        return self.store.read(search), rewritings

    async def _asearched(
        self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None
    ) -> tuple[Results, list[Rewriting]]:
        """Async form of `_searched`."""
        asked = [(query, config) for query, config in zip(queries, configs, strict=True) if query.strip()]
        texts = [query for query, _ in asked]
        rewritings = await self.arewrite(texts, [config for _, config in asked]) if asked else []

        async def search(snapshot: BaseSnapshot) -> Results:
            ranked = await self.arank_rewritten(snapshot, texts, rewritings, k, filter) if asked else []
            return await asyncio.to_thread(self._materialise, snapshot, queries, ranked)

        return await self.store.aread(search), rewritings


class HydeRetriever(ExpansionRetriever, IndexRetriever):
    """Dense retrieval with a hypothetical passage that answers the question, encoded as passages are.

    A question's vector becomes the mean of its own and the passage's (Gao et al., "Precise Zero-Shot Dense Retrieval without
    Relevance Labels", ACL 2023, equation 8, with one passage). To fuse it with BM25, put both into a `HybridRetriever`.
    """

    shipped = "hyde"
    index_name: str = "dense"
    """Which of the store's indexes to search; one of a dense encoder."""

    @property
    def reader(self) -> Read:
        """See `ExpansionRetriever.reader`."""
        return passage_of

    def rank_rewritten(
        self, snapshot: BaseSnapshot, queries: Sequence[str], rewritings: Sequence[Rewriting], k: int, filter: Filter | None
    ) -> list[Ranked]:
        """See `ExpansionRetriever.rank_rewritten`."""
        return self._search(snapshot, snapshot.query_vectors(self.index_name, queries), rewritings, k, filter)

    async def arank_rewritten(
        self, snapshot: BaseSnapshot, queries: Sequence[str], rewritings: Sequence[Rewriting], k: int, filter: Filter | None
    ) -> list[Ranked]:
        """See `ExpansionRetriever.arank_rewritten`."""
        vectors = await snapshot.aquery_vectors(self.index_name, queries)
        return await asyncio.to_thread(self._search, snapshot, vectors, rewritings, k, filter)

    def _search(
        self, snapshot: BaseSnapshot, vectors: Any, rewritings: Sequence[Rewriting], k: int, filter: Filter | None
    ) -> list[Ranked]:
        if isinstance(vectors, SparseVectors):
            raise InputError(f"index_name: {self.index_name!r} has weighted terms, HyDE needs dense vectors")
        there = [row for row, rewriting in enumerate(rewritings) if rewriting.texts]
        if there:
            passages = snapshot.text_vectors(self.index_name, [rewritings[row].texts[0] for row in there])
            vectors = np.array(vectors, np.float32)
            vectors[there] = (vectors[there] + passages) / 2
        return [Ranked(ranking, {}) for ranking in snapshot.search_vectors(self.index_name, vectors, k, filter)]

    @classmethod
    def indexes(cls, **options: Any) -> dict[str, TextIndex]:
        """See `DenseRetriever.indexes`."""
        return DenseRetriever.indexes(**options)


class SeveralQuestionsRetriever(OverRetriever, ExpansionRetriever):
    """Base of retrievers that search for the question and for others that the model writes, and fuse what is found by RRF."""

    rrf_constant: int = Field(default=60, ge=0)
    """The constant that is added to every 1-based rank."""
    depth: int = Field(default=100, gt=0)
    """How many candidates each question contributes, if `k` does not ask for more."""

    @classmethod
    def usual(cls, store: BaseStore) -> StoreRetriever:
        """See `OverRetriever.usual`."""
        return BM25Retriever(store=store)

    @property
    def reader(self) -> Read:
        """See `ExpansionRetriever.reader`."""
        return questions_of

    def rank_rewritten(
        self, snapshot: BaseSnapshot, queries: Sequence[str], rewritings: Sequence[Rewriting], k: int, filter: Filter | None
    ) -> list[Ranked]:
        """See `ExpansionRetriever.rank_rewritten`."""
        asked = _asked(queries, rewritings)
        depth, filter = max(self.depth, k), both(self.retriever.filter, filter)
        return self._fused(rewritings, self.retriever.rank(snapshot, asked, depth, filter), k)

    async def arank_rewritten(
        self, snapshot: BaseSnapshot, queries: Sequence[str], rewritings: Sequence[Rewriting], k: int, filter: Filter | None
    ) -> list[Ranked]:
        """See `ExpansionRetriever.arank_rewritten`."""
        asked = _asked(queries, rewritings)
        depth, filter = max(self.depth, k), both(self.retriever.filter, filter)
        return self._fused(rewritings, await self.retriever.arank(snapshot, asked, depth, filter), k)

    def _fused(self, rewritings: Sequence[Rewriting], found: Sequence[Ranked], k: int) -> list[Ranked]:
        answers = iter(found)
        fused = []
        for rewriting in rewritings:
            first, *others = [next(answers) for _ in range(1 + len(rewriting.texts))]
            sources: dict[str, Ranking] = {**first.sources, self.retriever.stage: first.ranking}
            sources |= {f"{self.retriever.stage} {n}": other.ranking for n, other in enumerate(others, 1)}
            rankings = [first.ranking, *(other.ranking for other in others)]
            best = reciprocal_rank_fusion(rankings, [1.0] * len(rankings), k, constant=self.rrf_constant)
            fused.append(Ranked(best, sources))
        return fused

    @classmethod
    def indexes(cls, **options: Any) -> dict[str, TextIndex]:
        """See `BM25Retriever.indexes`."""
        return BM25Retriever.indexes(**options)


class MultiQueryRetriever(SeveralQuestionsRetriever):
    """Searches for the question and for other wordings of it."""

    shipped = "multi-query"
    variables = frozenset({"count", "question"})
    count: int = Field(default=3, gt=0)
    """How many other wordings to ask for."""

    @property
    def most(self) -> int:
        """See `ExpansionRetriever.most`."""
        return self.count


class StepBackRetriever(SeveralQuestionsRetriever):
    """Searches for the question and for the more general one behind it (Zheng et al., "Take a Step Back", ICLR 2024)."""

    shipped = "step-back"


def _asked(queries: Sequence[str], rewritings: Sequence[Rewriting]) -> list[str]:
    """Each question, followed by what it became."""
    return [text for query, rewriting in zip(queries, rewritings, strict=True) for text in (query, *rewriting.texts)]
