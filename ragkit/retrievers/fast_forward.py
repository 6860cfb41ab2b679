"""Sparse candidates, scored again by look-up of their stored vectors: no nearest-neighbour search."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ragkit.corpus.filters import Filter, both
from ragkit.indexes.base import Positions, Ranking, concatenate, top_k
from ragkit.retrievers.base import Ranked, StoreRetriever
from ragkit.retrievers.bm25 import BM25Retriever
from ragkit.retrievers.hybrid import HybridRetriever
from ragkit.store.base import BaseSnapshot
from ragkit.store.text_index import TextIndex

Vectors = NDArray[np.float32]


class Interpolated(NamedTuple):
    """The new ranking, and how many of the candidates' vectors were read for it."""

    ranking: Ranking
    read: int


class FastForwardRetriever(StoreRetriever):
    """Ranks the candidates of a sparse retriever by their score and the stored vector's (Leonhardt et al., WWW 2022).

    A question costs one sparse search, one encoding, and the look-up of as many vectors as can matter. Only what the sparse
    retriever finds can be found. Options of `from_documents` beside its fields: those of `HybridRetriever`.
    """

    candidates: StoreRetriever | None = None
    """Where the candidates come from, over the same store; None means BM25 over `store`. Its own `k` does not matter here; its
    filter does."""
    index_name: str = "dense"
    """The index whose vectors are looked up."""
    weight: float = Field(default=0.3, ge=0, le=1)
    """How much the candidates' own score counts; the inner product of question and passage has the rest."""
    depth: int = Field(default=1000, gt=0)
    """How many candidates to ask for, if `k` does not ask for more."""

    @model_validator(mode="before")
    @classmethod
    def _share_store(cls, values: Any) -> Any:
        if isinstance(values, dict):
            store, candidates = values.get("store"), values.get("candidates")
            if store is None and isinstance(candidates, StoreRetriever):
                return {**values, "store": candidates.store}
        return values

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.candidates is None:
            self.candidates = BM25Retriever(store=self.store)
        if self.candidates.store is not self.store:
            raise ValueError("candidates must come from the same store; build their retriever with store=...")
        return self

    @property
    def stage(self) -> str:
        """See `StoreRetriever.stage`."""
        return "fast_forward"

    @classmethod
    def indexes(cls, **options: Any) -> dict[str, TextIndex]:
        """See `StoreRetriever.indexes`."""
        return HybridRetriever.indexes(**options)

    def rank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.rank`."""
        assert self.candidates is not None
        found = self.candidates.rank(snapshot, queries, max(self.depth, k), both(self.candidates.filter, filter))
        return self._rescore(snapshot, snapshot.encode(self.index_name, queries), found, k)

    async def arank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.arank`."""
        assert self.candidates is not None
        found, vectors = await asyncio.gather(
            self.candidates.arank(snapshot, queries, max(self.depth, k), both(self.candidates.filter, filter)),
            snapshot.aencode(self.index_name, queries),
        )
        return await asyncio.to_thread(self._rescore, snapshot, vectors, found, k)

    def _rescore(self, snapshot: BaseSnapshot, queries: Vectors, found: Sequence[Ranked], k: int) -> list[Ranked]:
        assert self.candidates is not None

        def read(positions: Positions) -> Vectors:
            return snapshot.vectors(self.index_name, positions)

        answers = []
        for query, (ranking, sources) in zip(queries, found, strict=True):
            fused = interpolate(ranking, query, read, self.weight, k).ranking
            answers.append(Ranked(fused, {**sources, self.candidates.stage: ranking}))
        return answers


def interpolate(
    candidates: Ranking, query: Vectors, read: Callable[[Positions], Vectors], weight: float, k: int, chunk: int = 64
) -> Interpolated:
    """Top `k` by `weight * score / highest score + (1 - weight) * query . vector`, of candidates and a query vector [d].

    `read` gives the vectors [n, d] of positions [n]. It is asked for `chunk` of them at a time, in order of the candidates'
    scores, until no later one can enter the top `k`: none has a higher score than the next, nor a longer vector than the
    longest so far. The second holds wherever vectors have one length, as normalised ones do; elsewhere it is an estimate.
    """
    positions, scores = candidates
    if not len(positions):
        return Interpolated(candidates, 0)
    sparse = weight * scores / (scores[0] if scores[0] > 0 else 1.0)
    reach = (1 - weight) * float(np.linalg.norm(query))
    longest, worst, parts, done = 0.0, -np.inf, [], 0
    while done < len(positions) and (done < k or sparse[done] + reach * longest >= worst):
        ahead = slice(done, done + chunk)
        vectors = read(positions[ahead])
        dense = np.einsum("nd,d->n", vectors, query, dtype=np.float64)
        parts.append(sparse[ahead] + (1 - weight) * dense)
        done += len(dense)
        # one in 100,000: what the norms of vectors differ by that were normalised in float32
        longest = max(longest, 1.00001 * float(np.linalg.norm(vectors, axis=1).max()))
        if done >= k:
            so_far = np.concatenate(parts)
            worst = float(np.partition(so_far, done - k)[done - k])
    return Interpolated(top_k(positions[:done], concatenate(parts, np.float64), k), done)
