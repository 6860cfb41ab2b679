"""A LangChain retriever whose unit of work is a batch of questions, in sync and async."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks.manager import (
    AsyncCallbackManager,
    AsyncCallbackManagerForRetrieverRun,
    CallbackManager,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from pydantic import ConfigDict, Field

from ragkit.corpus.filters import Filter
from ragkit.errors import InputError

if TYPE_CHECKING:
    from ragkit.chains.pipeline import Pipeline

Results = list[list[Document]]


class BatchedRetriever(BaseRetriever):
    """Base of ragkit's retrievers and pipelines.

    `invoke`, `ainvoke`, `batch` and `abatch` all end in `_retrieve` or `_aretrieve`, which answer many questions at once and give
    each its own callbacks. Every one of them takes `k` and `filter`, which override the constructor's.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    k: int = Field(default=10, gt=0)
    """Number of documents to return; fewer come back only if fewer match."""
    filter: dict[str, Any] | None = None
    """Metadata filter, applied before the cut to k; see `ragkit.corpus.filters`."""

    @abstractmethod
    def _retrieve(
        self, queries: Sequence[str], managers: Sequence[CallbackManagerForRetrieverRun], k: int, filter: Filter | None
    ) -> Results:
        """Documents for each question, best first."""

    @abstractmethod
    async def _aretrieve(
        self, queries: Sequence[str], managers: Sequence[AsyncCallbackManagerForRetrieverRun], k: int, filter: Filter | None
    ) -> Results:
        """Like `_retrieve`, without blocking the event loop."""

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
    ) -> list[Document]:
        return self._retrieve([query], [run_manager], *self._arguments([query], k, filter))[0]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
    ) -> list[Document]:
        return (await self._aretrieve([query], [run_manager], *self._arguments([query], k, filter)))[0]

    def batch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        k: int | None = None,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answer all questions in one pass; callbacks see one retriever run per question."""
        _no_more(kwargs)
        if not inputs:
            return []
        managers = [
            CallbackManager.configure(**self._tracing(settings)).on_retriever_start(
                None, query, name=settings.get("run_name") or self.get_name(), run_id=settings.get("run_id")
            )
            for query, settings in zip(inputs, get_config_list(config, len(inputs)), strict=True)
        ]
        try:
            results = self._retrieve(inputs, managers, *self._arguments(inputs, k, filter))
        except Exception as error:
            for manager in managers:
                manager.on_retriever_error(error)
            if return_exceptions:
                return [error] * len(inputs)
            raise
        for manager, documents in zip(managers, results, strict=True):
            manager.on_retriever_end(documents)
        return results

    async def abatch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        k: int | None = None,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> Any:
        """Async form of `batch`."""
        _no_more(kwargs)
        if not inputs:
            return []
        managers = [
            await AsyncCallbackManager.configure(**self._tracing(settings)).on_retriever_start(
                None, query, name=settings.get("run_name") or self.get_name(), run_id=settings.get("run_id")
            )
            for query, settings in zip(inputs, get_config_list(config, len(inputs)), strict=True)
        ]
        try:
            results = await self._aretrieve(inputs, managers, *self._arguments(inputs, k, filter))
        except Exception as error:
            for manager in managers:
                await manager.on_retriever_error(error)
            if return_exceptions:
                return [error] * len(inputs)
            raise
        for manager, documents in zip(managers, results, strict=True):
            await manager.on_retriever_end(documents)
        return results

    def __rshift__(self, stage: BaseDocumentCompressor) -> Pipeline:
        """A pipeline of this retriever and a reranker or pruner."""
        from ragkit.chains.pipeline import compose

        return compose(self, stage)

    def _arguments(self, queries: Sequence[Any], k: int | None, filter: Filter | None) -> tuple[int, Filter | None]:
        for query in queries:
            if not isinstance(query, str):
                raise InputError(f"query must be a string, not {type(query).__name__}")
        return check_k(self.k if k is None else k), self.filter if filter is None else filter

    def _tracing(self, config: RunnableConfig) -> dict[str, Any]:
        return {
            "inheritable_callbacks": config.get("callbacks"),
            "inheritable_tags": config.get("tags"),
            "local_tags": self.tags,
            "inheritable_metadata": {**(config.get("metadata") or {}), **self._get_ls_params()},
            "local_metadata": self.metadata,
        }


def check_k(k: Any) -> int:
    """`k` itself if it is a positive integer, else `InputError`."""
    if isinstance(k, bool) or not isinstance(k, int) or k <= 0:
        raise InputError(f"k must be a positive integer, got {k!r}")
    return k


def _no_more(kwargs: dict[str, Any]) -> None:
    if kwargs:
        raise InputError(f"unknown argument {next(iter(kwargs))!r}; a retriever takes k and filter")
