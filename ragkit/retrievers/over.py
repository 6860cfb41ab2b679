"""What retrievers have in common that work on what another one finds."""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_validator

from ragkit.retrievers.base import StoreRetriever
from ragkit.retrievers.hybrid import HybridRetriever
from ragkit.store.base import BaseStore
from ragkit.store.text_index import TextIndex


class OverRetriever(StoreRetriever):
    """Base of retrievers over another one; either says which store both are over."""

    retriever: StoreRetriever
    """Who is asked, over `store`; the class says who that is if not given. Its own `k` does not matter here, its filter does."""

    @classmethod
    def usual(cls, store: BaseStore) -> StoreRetriever:
        """Who is asked if nobody is given: the hybrid retriever, where a class does not say another."""
        return HybridRetriever(store=store)

    @classmethod
    def indexes(cls, **options: Any) -> dict[str, TextIndex]:
        """Those of who is asked if nobody is given; see `HybridRetriever.indexes`."""
        return HybridRetriever.indexes(**options)

    @model_validator(mode="before")
    @classmethod
    def _share_store(cls, values: Any) -> Any:
        if isinstance(values, dict):
            store, retriever = values.get("store"), values.get("retriever")
            if retriever is None and isinstance(store, BaseStore):
                return {**values, "retriever": cls.usual(store)}
            if store is None and isinstance(retriever, StoreRetriever):
                return {**values, "store": retriever.store}
        return values

    @model_validator(mode="after")
    def _one_store(self) -> Self:
        if self.retriever.store is not self.store:
            raise ValueError("retriever: must be over the same store; build it with store=...")
        return self
