"""Retrieval from one index of a store."""

from __future__ import annotations

from collections.abc import Sequence

from ragkit.corpus.filters import Filter
from ragkit.retrievers.base import Ranked, StoreRetriever
from ragkit.store.base import BaseSnapshot


class IndexRetriever(StoreRetriever):
    """Ranks by what one index says; its name is also the name of the stage."""

    index_name: str
    """Which of the store's indexes to search."""

    @property
    def stage(self) -> str:
        """See `StoreRetriever.stage`."""
        return self.index_name

    def rank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.rank`."""
        return [Ranked(ranking, {}) for ranking in snapshot.search(self.index_name, queries, k, filter)]

    async def arank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.arank`."""
        return [Ranked(ranking, {}) for ranking in await snapshot.asearch(self.index_name, queries, k, filter)]
