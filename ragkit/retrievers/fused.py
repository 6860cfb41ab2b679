"""Fusion of any retrievers, by the ids of what they find."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Self

import numpy as np
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from pydantic import Field, model_validator

from ragkit.corpus.filters import Filter
from ragkit.documents.provenance import SCORE_KEY, StageResult, ensure_id, provenance, score_of, with_provenance, with_stages
from ragkit.errors import InputError
from ragkit.indexes.base import Ranking
from ragkit.retrievers.batched import BatchedRetriever, Results
from ragkit.retrievers.fusion import Normaliser, check_weights, convex_combination, reciprocal_rank_fusion

STAGE = "fused"


class FusedRetriever(BatchedRetriever):
    """Asks retrievers over different stores, ragkit's or not, and fuses what they find: equal ids are one document.

    `HybridRetriever` is the one for retrievers over one `Store`. A document comes back as the first retriever that found it gives
    it, with the results of all of them. A retriever that fails on a question fails that question.
    """

    retrievers: list[BaseRetriever] = Field(min_length=1)
    """What to fuse. Those of ragkit are asked for `depth` documents and get the call's filter; others decide how many they give,
    and a filter is refused."""
    weights: list[float] | None = None
    """One non-negative weight per retriever; None means equal weights."""
    fusion: Literal["rrf", "convex"] = "rrf"
    """Weighted reciprocal rank fusion, or a convex combination of normalised scores, which every document must have."""
    normaliser: Normaliser = "min-max"
    """How "convex" brings scores to one scale."""
    rrf_constant: int = Field(default=60, ge=0)
    """The constant that "rrf" adds to every 1-based rank."""
    depth: int = Field(default=100, gt=0)
    """How many candidates each retriever contributes, if `k` does not ask for more."""

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        check_weights(self.weights, len(self.retrievers))
        return self

    @property
    def stage(self) -> str:
        """Name under which scores and ranks are recorded in `metadata["ragkit"]`."""
        return STAGE

    def _retrieve(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None) -> Results:
        options = [self._options(retriever, k, filter) for retriever in self.retrievers]

        def ask(retriever: BaseRetriever, its: dict[str, Any]) -> Results:
            found: Results = retriever.batch(list(queries), list(configs), return_exceptions=True, **its)
            return found

        with ThreadPoolExecutor(len(self.retrievers)) as pool:
            return self._fuse_all(list(pool.map(ask, self.retrievers, options)), k)

    async def _aretrieve(
        self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None
    ) -> Results:
        options = [self._options(retriever, k, filter) for retriever in self.retrievers]
        asked = [
            retriever.abatch(list(queries), list(configs), return_exceptions=True, **its)
            for retriever, its in zip(self.retrievers, options, strict=True)
        ]
        return self._fuse_all(await asyncio.gather(*asked), k)

    def _options(self, retriever: BaseRetriever, k: int, filter: Filter | None) -> dict[str, Any]:
        if isinstance(retriever, BatchedRetriever):
            return {"k": max(self.depth, k), "filter": filter}
        if filter:
            raise InputError(f"filter: {retriever.get_name()} takes none; filter inside it, or use a ragkit retriever")
        return {}

    def _fuse_all(self, answers: Sequence[Results], k: int) -> Results:
        fused: list[list[Document] | Exception] = []
        for per_query in zip(*answers, strict=True):
            failed = next((found for found in per_query if isinstance(found, Exception)), None)
            try:
                fused.append(failed or self._fuse([found for found in per_query if not isinstance(found, Exception)], k))
            except InputError as error:
                fused.append(error)
        return fused

    def _fuse(self, found: Sequence[list[Document]], k: int) -> list[Document]:
        copies: dict[str, list[Document]] = {}
        rankings = []
        for retriever, documents in zip(self.retrievers, found, strict=True):
            own = _distinct(documents)
            if self.fusion == "convex":
                _check_scores(retriever, own)
            for rank, document in enumerate(own, 1):
                copies.setdefault(str(document.id), []).append(_recorded(retriever, document, rank))
            rankings.append((own, [score_of(document) for document in own]))
        places = {id_: place for place, id_ in enumerate(copies)}
        sources = [
            Ranking(np.array([places[str(d.id)] for d in own], np.int64), np.array([s or 0.0 for s in scores], np.float64))
            for own, scores in rankings
        ]
        order = list(copies)
        fused = self._fused(sources, k)
        return [
            with_stages(_merged(copies[order[place]]), StageResult(STAGE, float(score), rank))
            for rank, (place, score) in enumerate(zip(*fused, strict=True), 1)
        ]

    def _fused(self, sources: Sequence[Ranking], k: int) -> Ranking:
        weights = self.weights or [1.0] * len(sources)
        if self.fusion == "rrf":
            return reciprocal_rank_fusion(sources, weights, k, constant=self.rrf_constant)
        return convex_combination(sources, weights, k, normaliser=self.normaliser)


def _distinct(documents: Sequence[Document]) -> list[Document]:
    """Each id once, where it came first: a repetition is no second vote."""
    first: dict[str | None, Document] = {}
    for document in map(ensure_id, documents):
        first.setdefault(document.id, document)
    return list(first.values())


def _check_scores(retriever: BaseRetriever, documents: Sequence[Document]) -> None:
    scores = [score_of(document) for document in documents]
    if None in scores:
        raise InputError(f"fusion: {retriever.get_name()} gives documents without a {SCORE_KEY}; use fusion='rrf'")
    if not all(score is None or math.isfinite(score) for score in scores):
        raise InputError(f"fusion: {retriever.get_name()} gives a {SCORE_KEY} that is not finite; use fusion='rrf'")


def _recorded(retriever: BaseRetriever, document: Document, rank: int) -> Document:
    """The document with its place in this retriever's ranking, which ragkit's own have noted already."""
    if isinstance(retriever, BatchedRetriever):
        return document
    return with_stages(document, StageResult(retriever.get_name(), score_of(document), rank))


def _merged(copies: Sequence[Document]) -> Document:
    """The first copy, with the results of all."""
    records = [provenance(copy) for copy in copies]
    return with_provenance(copies[0], records[0], stages=tuple(stage for record in records for stage in record.stages))
