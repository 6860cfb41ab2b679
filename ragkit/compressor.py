"""The common shape of rerankers and pruners: a LangChain document compressor that is also a Runnable and works in batches."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict
from typing_extensions import TypedDict

from ragkit.documents.provenance import ensure_id
from ragkit.errors import InputError

if TYPE_CHECKING:
    from ragkit.chains.pipeline import Pipeline


class CompressorInput(TypedDict):
    """What a compressor takes as a Runnable."""

    documents: Sequence[Document]
    query: str


class Task(NamedTuple):
    """One question and its documents, all of which have an id."""

    query: str
    documents: list[Document]


class Compressor(BaseDocumentCompressor, RunnableSerializable[CompressorInput, list[Document]]):
    """Base of rerankers and pruners. Works on many questions at once; inputs are never mutated.

    `compress_documents` is LangChain's compressor interface; `invoke`, `batch` and their async forms take
    `{"documents": ..., "query": ...}` and report to callbacks.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @abstractmethod
    def process(self, tasks: Sequence[Task]) -> list[list[Document]]:
        """The documents for each question."""

    async def aprocess(self, tasks: Sequence[Task]) -> list[list[Document]]:
        """Like `process`, without blocking the event loop."""
        return await asyncio.to_thread(self.process, tasks)

    def compress_documents(self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None) -> list[Document]:
        """Rerank or prune the documents of one question."""
        return self.invoke({"documents": documents, "query": query}, {"callbacks": callbacks})

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Async form of `compress_documents`."""
        return await self.ainvoke({"documents": documents, "query": query}, {"callbacks": callbacks})

    def invoke(self, input: CompressorInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """See `compress_documents`."""
        _no_more(kwargs)
        return self._call_with_config(lambda value: self.process([_task(value)])[0], input, config)

    async def ainvoke(self, input: CompressorInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """See `compress_documents`."""
        _no_more(kwargs)

        async def run(value: CompressorInput) -> list[Document]:
            return (await self.aprocess([_task(value)]))[0]

        return await self._acall_with_config(run, input, config)

    def batch(
        self,
        inputs: list[CompressorInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Many questions in one pass."""
        _no_more(kwargs)

        def run(values: list[CompressorInput]) -> list[Any]:
            return list(self.process([_task(value) for value in values]))

        return self._batch_with_config(run, inputs, config, return_exceptions=return_exceptions)

    async def abatch(
        self,
        inputs: list[CompressorInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Async form of `batch`."""
        _no_more(kwargs)

        async def run(values: list[CompressorInput]) -> list[Any]:
            return list(await self.aprocess([_task(value) for value in values]))

        return await self._abatch_with_config(run, inputs, config, return_exceptions=return_exceptions)

    def __rrshift__(self, retriever: BaseRetriever) -> Pipeline:
        """`retriever >> compressor` for a retriever that is not ragkit's."""
        from ragkit.chains.pipeline import compose

        return compose(retriever, self)


def _no_more(kwargs: dict[str, Any]) -> None:
    if kwargs:
        raise InputError(f"unknown argument {next(iter(kwargs))!r}; set it in the constructor")


def _task(value: CompressorInput) -> Task:
    if not isinstance(value, dict) or not {"documents", "query"} <= value.keys():
        raise InputError("a compressor takes {'documents': [...], 'query': '...'}")
    if not isinstance(value["query"], str):
        raise InputError(f"query must be a string, not {type(value['query']).__name__}")
    if stranger := next((item for item in value["documents"] if not isinstance(item, Document)), None):
        raise InputError(f"documents must be LangChain Documents, not {type(stranger).__name__}")
    return Task(value["query"], [ensure_id(document) for document in value["documents"]])
