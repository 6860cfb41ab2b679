"""Retrieval from one index of a store."""

from __future__ import annotations

from collections.abc import Sequence

from ragkit.indexes.base import Positions
from ragkit.retrievers.base import Ranked, StoreRetriever
from ragkit.store.store import Snapshot


class IndexRetriever(StoreRetriever):
    """Ranks by what one index says; its name is also the name of the stage."""

    index_name: str
    """Which of the store's indexes to search."""

    @property
    def stage(self) -> str:
        """See `StoreRetriever.stage`."""
        return self.index_name

    def rank(self, snapshot: Snapshot, queries: Sequence[str], k: int, allowed: Positions | None) -> list[Ranked]:
        """See `StoreRetriever.rank`."""
        return [Ranked(ranking, {}) for ranking in snapshot.index(self.index_name).search(queries, k, allowed)]

    async def arank(self, snapshot: Snapshot, queries: Sequence[str], k: int, allowed: Positions | None) -> list[Ranked]:
        """See `StoreRetriever.arank`."""
        rankings = await snapshot.index(self.index_name).asearch(queries, k, allowed)
        return [Ranked(ranking, {}) for ranking in rankings]
