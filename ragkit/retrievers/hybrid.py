"""Several retrievers over one store, asked in parallel and fused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ragkit.corpus.filters import Filter, both
from ragkit.indexes.base import Ranking
from ragkit.retrievers.base import Ranked, StoreRetriever
from ragkit.retrievers.bm25 import BM25Retriever
from ragkit.retrievers.dense import DenseRetriever
from ragkit.retrievers.fusion import Normaliser, check_weights, convex_combination, reciprocal_rank_fusion
from ragkit.retrievers.trust import USUAL, dense_weight
from ragkit.store.base import BaseSnapshot
from ragkit.store.text_index import TextIndex


class HybridRetriever(StoreRetriever):
    """Fuses BM25 and dense rankings, or those of any other retrievers over the same store.

    Options of `from_documents` beside its fields: those of `DenseRetriever`, and those of `BM25Retriever`.
    """

    retrievers: list[StoreRetriever] = []
    """What to fuse, all over one store; empty means BM25 and dense retrieval over `store`. Their own `k` does not matter here;
    their filters do."""
    weights: list[float] | None = None
    """One non-negative weight per retriever. None means equal weights; with the normaliser "theoretical-min-max", however, a
    `DenseRetriever` has 2.5 times the weight of others, for cosines only use the upper part of the scale from -1 to 1. If it is
    fused with a `BM25Retriever` and nothing else, its weight is found for each question; see `trust.dense_weight`."""
    fusion: Literal["convex", "rrf"] = "convex"
    """Convex combination of normalised scores, or weighted reciprocal rank fusion."""
    normaliser: Normaliser = "theoretical-min-max"
    """How "convex" brings scores to one scale. The default does not stretch the scores of a question to a full scale: a retriever
    that can hardly tell its candidates apart has little say in their order, question by question."""
    rrf_constant: int = Field(default=60, ge=0)
    """The constant that "rrf" adds to every 1-based rank."""
    depth: int = Field(default=100, gt=0)
    """How many candidates each retriever contributes, if `k` does not ask for more."""

    @model_validator(mode="before")
    @classmethod
    def _share_store(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("store") is None:
            match values.get("retrievers"):
                case [StoreRetriever() as first, *_]:
                    return {**values, "store": first.store}
        return values

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.retrievers:
            self.retrievers = [BM25Retriever(store=self.store), DenseRetriever(store=self.store)]
        if any(retriever.store is not self.store for retriever in self.retrievers):
            raise ValueError("retrievers must share one store; build them with store=...")
        check_weights(self.weights, len(self.retrievers))
        names = [retriever.stage for retriever in self.retrievers]
        if len(set(names)) != len(names):
            raise ValueError(f"retrievers must differ in the index they search, got {', '.join(names)}")
        return self

    @property
    def stage(self) -> str:
        """See `StoreRetriever.stage`."""
        return "hybrid"

    @classmethod
    def indexes(cls, **options: Any) -> dict[str, TextIndex]:
        """See `StoreRetriever.indexes`."""
        dense = {name: options.pop(name) for name in ("encoder", "index_kind") if name in options}
        return {**BM25Retriever.indexes(**options), **DenseRetriever.indexes(**dense)}

    def rank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.rank`."""
        depth = max(self.depth, k)

        def ask(retriever: StoreRetriever) -> list[Ranked]:
            return retriever.rank(snapshot, queries, depth, both(retriever.filter, filter))

        with ThreadPoolExecutor(len(self.retrievers)) as pool:
            return self._fuse_all(list(pool.map(ask, self.retrievers)), k, depth)

    async def arank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.arank`."""
        depth = max(self.depth, k)
        asked = [retriever.arank(snapshot, queries, depth, both(retriever.filter, filter)) for retriever in self.retrievers]
        return self._fuse_all(await asyncio.gather(*asked), k, depth)

    def _fuse_all(self, answers: Sequence[Sequence[Ranked]], k: int, depth: int) -> list[Ranked]:
        fused = []
        for per_query in zip(*answers, strict=True):
            rankings = [ranked.ranking for ranked in per_query]
            sources: dict[str, Ranking] = {}
            for retriever, ranked in zip(self.retrievers, per_query, strict=True):
                sources |= {**ranked.sources, retriever.stage: ranked.ranking}
            # one may have asked another's index on its way, less deeply
            sources |= {retriever.stage: ranking for retriever, ranking in zip(self.retrievers, rankings, strict=True)}
            fused.append(Ranked(self._fuse(rankings, k, depth), sources))
        return fused

    def _fuse(self, rankings: Sequence[Ranking], k: int, depth: int) -> Ranking:
        if self.fusion == "rrf":
            return reciprocal_rank_fusion(rankings, self.weights or [1.0] * len(rankings), k, constant=self.rrf_constant)
        weights = self.weights or self._usual(rankings, depth)
        floors = [retriever.score_floor for retriever in self.retrievers]
        return convex_combination(rankings, weights, k, normaliser=self.normaliser, floors=floors, depth=depth)

    def _usual(self, rankings: Sequence[Ranking], depth: int) -> list[float]:
        if self.normaliser != "theoretical-min-max":
            return [1.0] * len(rankings)
        match self.retrievers:
            case [BM25Retriever(), DenseRetriever()]:
                return [1.0, dense_weight(rankings[0], rankings[1], depth)]
            case [DenseRetriever(), BM25Retriever()]:
                return [dense_weight(rankings[1], rankings[0], depth), 1.0]
        return [USUAL if isinstance(retriever, DenseRetriever) else 1.0 for retriever in self.retrievers]
