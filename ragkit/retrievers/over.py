"""What retrievers have in common that work on what another one finds."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

from pydantic import model_validator

from ragkit.retrievers.base import StoreRetriever
from ragkit.store.base import BaseStore


class OverRetriever(StoreRetriever):
    """Base of retrievers over another one; either says which store both are over."""

    retriever: StoreRetriever
    """Who is asked, over `store`; the class says who that is if not given. Its own `k` does not matter here, its filter does."""

    @classmethod
    @abstractmethod
    def usual(cls, store: BaseStore) -> StoreRetriever:
        """Who is asked if nobody is given."""

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
