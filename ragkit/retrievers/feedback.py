"""Pseudo-relevance feedback: search, learn from the best passages what the question is about, and search again.

Feedback and fusion combine by composition, as in Li et al., "To Interpolate or not to Interpolate: PRF, Dense and Sparse
Retrievers" (SIGIR 2022). Over one store, interpolation

- after feedback: `HybridRetriever(retrievers=[RM3Retriever(store=s), RocchioRetriever(store=s)])`;
- before it: `RocchioRetriever(store=s, feedback=HybridRetriever(store=s))`;
- before and after: a hybrid of both, each with a hybrid as its `feedback`.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ragkit.corpus.filters import Filter, both
from ragkit.errors import InputError
from ragkit.indexes.base import Ranking
from ragkit.retrievers.base import Ranked, StoreRetriever
from ragkit.retrievers.bm25 import BM25Retriever
from ragkit.retrievers.dense import DenseRetriever
from ragkit.retrievers.refinement import average, rm3, rocchio, stack
from ragkit.retrievers.single import IndexRetriever
from ragkit.sparse_vectors import SparseVectors
from ragkit.store.base import BaseSnapshot
from ragkit.store.text_index import TextIndex


class FeedbackRetriever(IndexRetriever):
    """Base of retrievers that refine a question's vector by the passages of a first search."""

    feedback: StoreRetriever | None = None
    """Who finds the passages to learn from, over the same store; None means the index itself. Its own `k` does not matter here,
    its filter does."""

    @abstractmethod
    def refined(self, vectors: Any, rankings: Sequence[Ranking], passages: Sequence[Any]) -> Any:
        """The questions' vectors, moved towards the passages found, which come question by question with their scores."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """How many passages are learnt from."""

    @model_validator(mode="after")
    def _one_store(self) -> Self:
        if self.feedback is not None and self.feedback.store is not self.store:
            raise ValueError("feedback: must be a retriever over the same store; build it with store=...")
        return self

    @property
    def stage(self) -> str:
        """See `StoreRetriever.stage`."""
        return f"{self.index_name}-feedback"

    def rank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.rank`."""
        vectors = snapshot.query_vectors(self.index_name, queries)
        if self.feedback is None:
            found = self._own(snapshot, vectors, filter)
        else:
            found = self.feedback.rank(snapshot, queries, self.depth, both(self.feedback.filter, filter))
        return self._again(snapshot, vectors, found, k, filter)

    async def arank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.arank`."""
        vectors = await snapshot.aquery_vectors(self.index_name, queries)
        if self.feedback is None:
            found = await asyncio.to_thread(self._own, snapshot, vectors, filter)
        else:
            found = await self.feedback.arank(snapshot, queries, self.depth, both(self.feedback.filter, filter))
        return await asyncio.to_thread(self._again, snapshot, vectors, found, k, filter)

    def _own(self, snapshot: BaseSnapshot, vectors: Any, filter: Filter | None) -> list[Ranked]:
        return [Ranked(ranking, {}) for ranking in snapshot.search_vectors(self.index_name, vectors, self.depth, filter)]

    def _again(
        self, snapshot: BaseSnapshot, vectors: Any, first: Sequence[Ranked], k: int, filter: Filter | None
    ) -> list[Ranked]:
        rankings = [Ranking(found.positions[: self.depth], found.scores[: self.depth]) for found, _ in first]
        ends = np.cumsum([len(ranking.positions) for ranking in rankings])[:-1]
        positions = [int(position) for ranking in rankings for position in ranking.positions]
        distinct = {position: row for row, position in enumerate(dict.fromkeys(positions))}
        rows = np.array([distinct[position] for position in positions], np.int64)
        known = snapshot.passage_vectors(self.index_name, list(distinct))
        passages = [_take(known, its) for its in np.split(rows, ends)]
        searched = snapshot.search_vectors(self.index_name, self.refined(vectors, rankings, passages), k, filter)
        return [Ranked(ranking, self._sources(ranked)) for ranking, ranked in zip(searched, first, strict=True)]

    def _sources(self, first: Ranked) -> dict[str, Ranking]:
        name = self.index_name if self.feedback is None else self.feedback.stage
        return {**first.sources, name: first.ranking}


class RocchioRetriever(FeedbackRetriever):
    """Dense retrieval with a question's vector moved towards those of its best passages, which cost no encoding."""

    index_name: str = "dense"
    """Which of the store's indexes to search; one of a dense encoder."""
    method: Literal["rocchio", "average"] = "rocchio"
    """`alpha` times the question plus `beta` times the passages' mean; or the mean of the question and the passages."""
    passages: int = Field(default=5, gt=0)
    """How many passages to learn from."""
    alpha: float = Field(default=0.4, ge=0)
    """Weight of the question."""
    beta: float = Field(default=0.6, ge=0)
    """Weight of the passages."""

    @property
    def depth(self) -> int:
        """See `FeedbackRetriever.depth`."""
        return self.passages

    def refined(self, vectors: Any, rankings: Sequence[Ranking], passages: Sequence[Any]) -> Any:
        """See `FeedbackRetriever.refined`."""
        if isinstance(vectors, SparseVectors):
            raise InputError(f"index_name: {self.index_name!r} has weighted terms, no dense vectors; use RM3Retriever")
        if self.method == "average":
            return np.stack([average(*pair) for pair in zip(vectors, passages, strict=True)])
        return np.stack([rocchio(query, its, self.alpha, self.beta) for query, its in zip(vectors, passages, strict=True)])

    @classmethod
    def indexes(cls, **options: Any) -> dict[str, TextIndex]:
        """See `DenseRetriever.indexes`."""
        return DenseRetriever.indexes(**options)


class RM3Retriever(FeedbackRetriever):
    """Sparse retrieval with a question that has got the weightiest terms of its best passages; see `refinement.rm3`."""

    index_name: str = "bm25"
    """Which of the store's indexes to search: BM25, or learned sparse vectors."""
    passages: int = Field(default=10, gt=0)
    """How many passages to learn from."""
    terms: int = Field(default=10, gt=0)
    """How many terms to take from them."""
    original: float = Field(default=0.5, ge=0, le=1)
    """The share of the question's own terms."""

    @property
    def score_floor(self) -> float | None:
        """No weight is negative."""
        return 0.0

    @property
    def depth(self) -> int:
        """See `FeedbackRetriever.depth`."""
        return self.passages

    def refined(self, vectors: Any, rankings: Sequence[Ranking], passages: Sequence[Any]) -> Any:
        """See `FeedbackRetriever.refined`."""
        if not isinstance(vectors, SparseVectors):
            raise InputError(f"index_name: {self.index_name!r} has dense vectors, no terms; use RocchioRetriever")
        each = zip(range(len(vectors)), rankings, passages, strict=True)
        return stack(
            [
                rm3(vectors.take(np.array([i])), its, np.maximum(ranking.scores, 0).tolist(), self.terms, self.original)
                for i, ranking, its in each
            ]
        )

    @classmethod
    def indexes(cls, **options: Any) -> dict[str, TextIndex]:
        """See `BM25Retriever.indexes`."""
        return BM25Retriever.indexes(**options)


def _take(vectors: Any, rows: Any) -> Any:
    return vectors.take(rows) if isinstance(vectors, SparseVectors) else vectors[rows]
