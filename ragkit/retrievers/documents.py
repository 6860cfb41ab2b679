"""Retrieval that knows which document a passage belongs to: documents ranked by their passages, passages by their documents."""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from langchain_core.documents import Document
from pydantic import Field

from ragkit.corpus.filters import Filter, both
from ragkit.documents.provenance import provenance
from ragkit.indexes.base import Ranking, concatenate, top_k
from ragkit.retrievers.base import Ranked
from ragkit.retrievers.grouping import Aggregation, Group, grouped
from ragkit.retrievers.over import OverRetriever
from ragkit.store.base import BaseSnapshot


class GroupingRetriever(OverRetriever):
    """Base of retrievers that group what another one finds, and score a group by its passages.

    Passages come from a `HybridRetriever` if no other is given. Options of `from_documents` beside its fields: those of that one.
    """

    depth: int = Field(default=100, gt=0)
    """How many passages to ask it for, if `k` does not ask for more. Groups know of these alone."""
    aggregation: Aggregation = "max"
    """A group's score by the scores of its passages, see `grouping.aggregate`."""
    best: int = Field(default=3, gt=0)
    """Of how many passages "mean" is the mean."""

    @abstractmethod
    def keys(self, snapshot: BaseSnapshot, passages: Mapping[int, Document], filter: Filter | None) -> Mapping[int, Hashable]:
        """What says, for each of these passages by position, to which group it belongs."""

    @abstractmethod
    def regrouped(self, ranking: Ranking, groups: Sequence[Group], k: int) -> tuple[Ranking, dict[str, Ranking]]:
        """At most `k` of the passages, and rankings of interest by the name of their stage."""

    def rank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.rank`."""
        filter = both(self.retriever.filter, filter)
        return self._regrouped(snapshot, self.retriever.rank(snapshot, queries, max(self.depth, k), filter), k, filter)

    async def arank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.arank`."""
        filter = both(self.retriever.filter, filter)
        found = await self.retriever.arank(snapshot, queries, max(self.depth, k), filter)
        return await asyncio.to_thread(self._regrouped, snapshot, found, k, filter)

    def _regrouped(self, snapshot: BaseSnapshot, found: Sequence[Ranked], k: int, filter: Filter | None) -> list[Ranked]:
        positions = np.unique(concatenate([ranking.positions for ranking, _ in found], np.int64)).tolist()
        passages = dict(zip(positions, snapshot.documents(positions), strict=True))
        keys = self.keys(snapshot, passages, filter)
        places = {position: (provenance(document).start, position) for position, document in passages.items()}
        answers = []
        for ranking, sources in found:
            its = ranking.positions.tolist()
            groups = grouped(ranking, [keys[p] for p in its], [places[p] for p in its], self.aggregation, self.best)
            best, others = self.regrouped(ranking, groups, k)
            answers.append(Ranked(best, {**sources, self.retriever.stage: ranking, **others}))
        return answers


class _ByDocument(GroupingRetriever):
    field: str | None = None
    """The metadata field that names a passage's document; None means the source that it was split from. A passage without is a
    document of its own; `InputError` if none has it."""

    def keys(self, snapshot: BaseSnapshot, passages: Mapping[int, Document], filter: Filter | None) -> Mapping[int, Hashable]:
        """See `GroupingRetriever.keys`."""
        if self.field is None:
            return {position: provenance(document).source or position for position, document in passages.items()}
        names = {position: document.metadata.get(self.field) for position, document in passages.items()}
        if names and all(name is None for name in names.values()):
            snapshot.check_field(self.field)
        return {position: position if name is None else json.dumps(name, sort_keys=True) for position, name in names.items()}


class DocumentRetriever(_ByDocument):
    """Ranks documents by their passages, and gives the best passages of each, the best document's first.

    A passage's score is that of its document, so scores fall from document to document; within one they are equal, and the order
    is that in which `retriever` ranks the passages. `k` counts passages.
    """

    passages: int = Field(default=1, gt=0)
    """How many passages to give of a document, at most."""

    @property
    def stage(self) -> str:
        """See `StoreRetriever.stage`."""
        return "documents"

    def regrouped(self, ranking: Ranking, groups: Sequence[Group], k: int) -> tuple[Ranking, dict[str, Ranking]]:
        """See `GroupingRetriever.regrouped`."""
        hits = concatenate([group.hits[: self.passages] for group in groups], np.int64)[:k]
        scores = concatenate([np.full(len(group.hits[: self.passages]), group.score) for group in groups], np.float64)[:k]
        return Ranking(ranking.positions[hits], scores), {}


class DocumentContextRetriever(_ByDocument):
    """Ranks passages by their own score plus a share of their document's (Wang et al., "DAPR: A Benchmark on Document-Aware
    Passage Retrieval", ACL 2024, which fuses the two rankings).

    A document's score is made of the scores of its passages that were found, see `aggregation`; so this helps a passage beside
    others that answer the question too.
    """

    weight: float = Field(default=0.3, ge=0)
    """How much the document's score counts beside the passage's."""

    @property
    def stage(self) -> str:
        """See `StoreRetriever.stage`."""
        return "document-context"

    def regrouped(self, ranking: Ranking, groups: Sequence[Group], k: int) -> tuple[Ranking, dict[str, Ranking]]:
        """See `GroupingRetriever.regrouped`."""
        scores = np.zeros(len(ranking.positions), np.float64)
        for group in groups:
            scores[group.hits] = group.score
        mixed = top_k(ranking.positions, ranking.scores + self.weight * scores, k)
        return mixed, {"document": top_k(ranking.positions, scores, len(scores))}
