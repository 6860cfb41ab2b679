"""Retrieval in two hops, for questions whose evidence lies in several passages, one of which leads to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray
from pydantic import Field

from ragkit.corpus.filters import Filter, both
from ragkit.documents.provenance import provenance
from ragkit.errors import InputError
from ragkit.indexes.base import Positions
from ragkit.retrievers.base import Ranked
from ragkit.retrievers.links import Bridge, follow, merge
from ragkit.retrievers.over import OverRetriever
from ragkit.sparse_vectors import SparseVectors
from ragkit.store.base import BaseSnapshot
from ragkit.store.rarity import Rarity

_LINKS = 50
"""Passages that a bridge leads to by its words."""


class MultiHopRetriever(OverRetriever):
    """Searches, follows what the best passages name to further passages, and merges both by score.

    The second passage of a question in two steps often shares no word with the question; the first one names it. The best
    passages of the first search are bridges: each leads to passages that have its rare words, except those of the question,
    and to passages whose title or heading it names. That costs a BM25 search per bridge, and nothing is encoded.
    """

    index_name: str = "bm25"
    """The BM25 index by which bridges lead on."""
    bridges: int = Field(default=3, gt=0)
    """How many of the best passages lead to others."""
    terms: int = Field(default=10, gt=0)
    """How many of the rarest words of a bridge to search for."""
    words: float = Field(default=0.3, ge=0)
    """What having a bridge's words counts, where being first in the first search counts 1."""
    names: float = Field(default=0.8, ge=0)
    """What being named by a bridge counts; rare names count most."""
    missing: float = Field(default=0.5, gt=0, le=1)
    """A bridge that lacks this share of the question's words, by rarity, counts fully; one that lacks less, and so may hold the
    answer itself, counts less in proportion."""
    depth: int = Field(default=100, gt=0)
    """How many candidates the first search contributes, if `k` does not ask for more."""

    @property
    def stage(self) -> str:
        """See `StoreRetriever.stage`."""
        return "multi-hop"

    @property
    def score_floor(self) -> float | None:
        """The last of the first search has 0."""
        return 0.0

    def rank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.rank`."""
        filter = both(self.retriever.filter, filter)
        return self._hop(snapshot, queries, self.retriever.rank(snapshot, queries, max(self.depth, k), filter), k, filter)

    async def arank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.arank`."""
        filter = both(self.retriever.filter, filter)
        first = await self.retriever.arank(snapshot, queries, max(self.depth, k), filter)
        return await asyncio.to_thread(self._hop, snapshot, queries, first, k, filter)

    def _hop(
        self, snapshot: BaseSnapshot, queries: Sequence[str], first: Sequence[Ranked], k: int, filter: Filter | None
    ) -> list[Ranked]:
        asked = snapshot.query_vectors(self.index_name, queries)
        if not isinstance(asked, SparseVectors):
            raise InputError(f"index_name: {self.index_name!r} has dense vectors, no words; name a BM25 index")
        rarity = Rarity(snapshot, self.index_name)
        ends = [ranked.ranking.positions[: self.bridges] for ranked in first]
        owners = np.repeat(np.arange(len(first)), [len(positions) for positions in ends])
        places = np.concatenate([np.empty(0, np.int64), *ends])
        told = snapshot.passage_vectors(self.index_name, places.tolist())
        rare = [self._rare(rarity, told.row(at)[0], asked.row(owner)[0]) for at, owner in enumerate(owners.tolist())]
        found = snapshot.search_vectors(self.index_name, SparseVectors.of(rare), _LINKS, filter) if rare else []

        names = self._names(snapshot, rarity, [*(r.ranking.positions for r in first), *(ranking.positions for ranking in found)])
        bridges: list[list[Bridge]] = [[] for _ in first]
        for at, (owner, place) in enumerate(zip(owners.tolist(), places.tolist(), strict=True)):
            candidates = np.union1d(first[owner].ranking.positions, found[at].positions).tolist()
            near = {position: names[position] for position in candidates if position in names}
            own = names.get(place, {})
            words, question = told.row(at)[0], asked.row(owner)[0]
            worth = min(1.0, _lacking(rarity, words, question) / self.missing)
            bridges[owner].append(Bridge(place, worth, found[at], _named(near, own, words, question)))

        ranked = []
        for (ranking, sources), its_bridges in zip(first, bridges, strict=True):
            led = follow(ranking, its_bridges, self.words, self.names)
            named = {**sources, self.retriever.stage: ranking, "links": led}
            ranked.append(Ranked(merge(ranking, led, k), named))
        return ranked

    def _rare(self, rarity: Rarity, told: NDArray[np.int32], asked: NDArray[np.int32]) -> tuple[Any, Any]:
        """The rarest words of a bridge that the question lacks, with their rarity for weights."""
        new = np.setdiff1d(told[told >= 0], asked)
        shares = rarity.shares(new)
        best = np.argsort(-shares, kind="stable")[: self.terms]
        return new[best], shares[best]

    def _names(self, snapshot: BaseSnapshot, rarity: Rarity, rankings: Sequence[Positions]) -> dict[int, dict[int, float]]:
        """For each passage that has a title or a heading, the terms of that, each with its rarity."""
        positions = np.unique(np.concatenate([np.empty(0, np.int64), *rankings])).tolist()
        called = {p: name for p, d in zip(positions, snapshot.documents(positions), strict=True) if (name := _name(d))}
        vectors = snapshot.text_vectors(self.index_name, list(called.values()))
        terms, weights = vectors.terms.tolist(), rarity.shares(vectors.terms).tolist()
        spans = [slice(*span) for span in pairwise(vectors.starts.tolist())]
        return {p: dict(zip(terms[span], weights[span], strict=True)) for p, span in zip(called, spans, strict=True)}


def _lacking(rarity: Rarity, told: NDArray[np.int32], asked: NDArray[np.int32]) -> float:
    """The share of the question's words that a bridge lacks, by rarity; of those only that some passage may have."""
    known = asked[asked >= 0]
    shares = rarity.shares(known)
    return float(shares[~np.isin(known, told)].sum() / max(shares.sum(), 1e-9))


def _named(
    names: Mapping[int, Mapping[int, float]], own: Mapping[int, float], told: NDArray[np.int32], asked: NDArray[np.int32]
) -> dict[int, float]:
    """The passages whose name stands in what a bridge tells, with the rarity of its rarest word that the question lacks.

    Passages that are called as the bridge itself are parts of the same document, to which it does not lead.
    """
    words, known = frozenset(told[told >= 0].tolist()), frozenset(asked.tolist())
    led = {}
    for position, name in names.items():
        if name and name.keys() <= words and name.keys() != own.keys():
            rarest = max((weight for term, weight in name.items() if term not in known), default=0.0)
            if rarest > 0:
                led[position] = rarest
    return led


def _name(document: Document) -> str:
    """What other passages may call it: its title, or its innermost heading."""
    title = document.metadata.get("title")
    return title if isinstance(title, str) and title.strip() else next(reversed(provenance(document).headings), "")
