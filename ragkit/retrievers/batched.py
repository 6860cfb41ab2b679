"""A LangChain retriever whose unit of work is a batch of questions, in sync and async."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks.manager import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from pydantic import ConfigDict, Field

from ragkit.corpus.filters import Filter, both
from ragkit.errors import InputError
from ragkit.runs import Configs, Owner, arun_batch, no_more, run_batch

if TYPE_CHECKING:
    from ragkit.chains.pipeline import Pipeline

Results = Sequence[list[Document] | Exception]
"""Per question its documents, or what went wrong with it."""
_KNOWN = "a retriever takes k and filter"


class BatchedRetriever(BaseRetriever):
    """Base of ragkit's retrievers and pipelines.

    `invoke`, `ainvoke`, `batch` and `abatch` all end in `_retrieve` or `_aretrieve`, which answer many questions at once and give
    each its own callbacks. Every one of them takes `k`, which overrides the constructor's, and `filter`, which is applied in
    addition to the constructor's.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    k: int = Field(default=10, gt=0)
    """Number of documents to return; fewer come back only if fewer match."""
    filter: dict[str, Any] | None = None
    """Metadata filter, applied before the cut to k; see `ragkit.corpus.filters`."""

    @abstractmethod
    def _retrieve(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None) -> Results:
        """Documents for each question, best first; a question's config carries its callbacks."""

    @abstractmethod
    async def _aretrieve(
        self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None
    ) -> Results:
        """Like `_retrieve`, without blocking the event loop."""

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        no_more(kwargs, _KNOWN)
        check_query(query)
        config = RunnableConfig(callbacks=run_manager.get_child())
        return _only(self._retrieve([query], [config], *self._arguments(k, filter)))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        no_more(kwargs, _KNOWN)
        check_query(query)
        config = RunnableConfig(callbacks=run_manager.get_child())
        return _only(await self._aretrieve([query], [config], *self._arguments(k, filter)))

    def batch(
        self,
        inputs: list[str],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        k: int | None = None,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answer all questions in one pass; callbacks see one retriever run per question.

        The first error is raised, or with `return_exceptions` returned in the place of its question.
        """
        no_more(kwargs, _KNOWN)

        def work(queries: list[str], configs: list[RunnableConfig]) -> Results:
            return self._retrieve(queries, configs, *self._arguments(k, filter))

        return run_batch(self._owner, inputs, config, work, check=check_query, return_exceptions=return_exceptions)

    async def abatch(
        self,
        inputs: list[str],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        k: int | None = None,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> Any:
        """Async form of `batch`."""
        no_more(kwargs, _KNOWN)

        async def work(queries: list[str], configs: list[RunnableConfig]) -> Results:
            return await self._aretrieve(queries, configs, *self._arguments(k, filter))

        return await arun_batch(self._owner, inputs, config, work, check=check_query, return_exceptions=return_exceptions)

    def __rshift__(self, stage: BaseDocumentCompressor) -> Pipeline:
        """A pipeline of this retriever and a reranker or pruner."""
        from ragkit.chains.pipeline import compose

        return compose(self, stage)

    def _arguments(self, k: int | None, filter: Filter | None) -> tuple[int, Filter | None]:
        return self._count(k), both(self.filter, filter)

    def _count(self, k: int | None) -> int:
        return check_k(self.k, f"{type(self).__name__}.k") if k is None else check_k(k)

    @property
    def _owner(self) -> Owner:
        return Owner("retriever", self.get_name(), self.tags, self.metadata, dict(self._get_ls_params()))


def _only(results: Results) -> list[Document]:
    [result] = results
    if isinstance(result, Exception):
        raise result
    return result


def check_query(query: Any) -> None:
    """Raise `InputError` unless a question is a string."""
    if not isinstance(query, str):
        raise InputError(f"query must be a string, not {type(query).__name__}")


def check_k(k: Any, field: str = "k") -> int:
    """`k` itself if it is a positive integer, else `InputError`, which begins with `field`."""
    if isinstance(k, bool) or not isinstance(k, int) or k <= 0:
        raise InputError(f"{field} must be a positive integer, got {k!r}")
    return k
