"""The common shape of rerankers and pruners: a LangChain document compressor that is also a Runnable and works in batches."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict
from typing_extensions import TypedDict

from ragkit.documents.provenance import ensure_id
from ragkit.errors import InputError
from ragkit.runs import Configs, Owner, arun_batch, no_more, run_batch

if TYPE_CHECKING:
    from ragkit.chains.pipeline import Pipeline


class CompressorInput(TypedDict):
    """What a compressor takes as a Runnable."""

    documents: Sequence[Document]
    query: str


class Task(NamedTuple):
    """One question and its documents, all of which have an id; `config` carries the question's callbacks."""

    query: str
    documents: list[Document]
    config: RunnableConfig


class Outcome(NamedTuple):
    """The documents of one question, and what they cost: JSON-serialisable facts such as calls, tokens and failures."""

    documents: list[Document]
    usage: Mapping[str, Any] = {}


class Compressor(BaseDocumentCompressor, RunnableSerializable[CompressorInput, list[Document]]):
    """Base of rerankers and pruners. Works on many questions at once; inputs are never mutated.

    `compress_documents` is LangChain's compressor interface; `invoke`, `batch` and their async forms take
    `{"documents": ..., "query": ...}` and report to callbacks.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def __getstate__(self) -> dict[Any, Any]:
        """For pickling: the fields. Private attributes hold what was loaded for these, which stays behind."""
        return {**super().__getstate__(), "__pydantic_private__": None}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """With nothing loaded."""
        super().__setstate__(state)
        self.model_post_init(None)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Fields are copied; what was loaded for them is shared."""
        copied = self.model_copy()
        copied.__dict__.update(deepcopy(self.__dict__, memo))
        return copied

    @abstractmethod
    def process(self, tasks: Sequence[Task]) -> Sequence[Outcome | Exception]:
        """The outcome for each question; an exception in its place fails that question alone."""

    async def aprocess(self, tasks: Sequence[Task]) -> Sequence[Outcome | Exception]:
        """Like `process`, without blocking the event loop."""
        return await asyncio.to_thread(self.process, tasks)

    def outcomes(
        self, inputs: Sequence[CompressorInput], config: Configs = None, *, return_exceptions: bool = False
    ) -> list[Any]:
        """Like `batch`, but with what each question cost."""

        def work(accepted: list[CompressorInput], configs: list[RunnableConfig]) -> Sequence[Any]:
            return self.process([*map(_task, accepted, configs)])

        return run_batch(self._owner, inputs, config, work, check=_check, return_exceptions=return_exceptions)

    async def aoutcomes(
        self, inputs: Sequence[CompressorInput], config: Configs = None, *, return_exceptions: bool = False
    ) -> list[Any]:
        """Async form of `outcomes`."""

        async def work(accepted: list[CompressorInput], configs: list[RunnableConfig]) -> Sequence[Any]:
            return await self.aprocess([*map(_task, accepted, configs)])

        return await arun_batch(self._owner, inputs, config, work, check=_check, return_exceptions=return_exceptions)

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
        no_more(kwargs, "set it in the constructor")
        documents: list[Document] = self.outcomes([input], config)[0].documents
        return documents

    async def ainvoke(self, input: CompressorInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """See `compress_documents`."""
        no_more(kwargs, "set it in the constructor")
        documents: list[Document] = (await self.aoutcomes([input], config))[0].documents
        return documents

    def batch(
        self, inputs: list[CompressorInput], config: Configs = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Any:
        """Many questions in one pass."""
        no_more(kwargs, "set it in the constructor")
        return [_documents(outcome) for outcome in self.outcomes(inputs, config, return_exceptions=return_exceptions)]

    async def abatch(
        self, inputs: list[CompressorInput], config: Configs = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Any:
        """Async form of `batch`."""
        no_more(kwargs, "set it in the constructor")
        return [_documents(outcome) for outcome in await self.aoutcomes(inputs, config, return_exceptions=return_exceptions)]

    @property
    def _owner(self) -> Owner:
        return Owner("chain", self.get_name(), shown=_documents)

    def __rrshift__(self, retriever: BaseRetriever) -> Pipeline:
        """`retriever >> compressor` for a retriever that is not ragkit's."""
        from ragkit.chains.pipeline import compose

        return compose(retriever, self)


def _documents(outcome: Outcome | Exception) -> list[Document] | Exception:
    return outcome.documents if isinstance(outcome, Outcome) else outcome


def _check(value: Any) -> None:
    if not isinstance(value, dict) or not {"documents", "query"} <= value.keys():
        raise InputError("a compressor takes {'documents': [...], 'query': '...'}")
    if not isinstance(value["query"], str):
        raise InputError(f"query must be a string, not {type(value['query']).__name__}")
    if not isinstance(value["documents"], Sequence):
        raise InputError(f"documents must be a list of Documents, not {type(value['documents']).__name__}")
    for item in value["documents"]:
        if not isinstance(item, Document):
            raise InputError(f"documents must be LangChain Documents, not {type(item).__name__}")


def _task(value: CompressorInput, config: RunnableConfig) -> Task:
    return Task(value["query"], [ensure_id(document) for document in value["documents"]], config)
