"""The steps of a pipeline: a retriever, and what works on what it finds, as calls over a batch of questions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableLambda

from ragkit.compressor import Compressor, Outcome
from ragkit.pruners.base import Pruner
from ragkit.retrievers.batched import BatchedRetriever
from ragkit.retrievers.decomposition import DecompositionRetriever, Found


class Step(NamedTuple):
    """One stage as something that answers a batch with outcomes."""

    name: str
    run: Callable[[list[Any], list[RunnableConfig]], list[Outcome | Exception]]
    arun: Callable[[list[Any], list[RunnableConfig]], Awaitable[list[Outcome | Exception]]]
    prunes: bool = False
    foreign: bool = False


def _outcome(result: list[Document] | Exception) -> Outcome | Exception:
    return result if isinstance(result, Exception) else Outcome(list(result))


def _told(found: Found | Exception) -> Outcome | Exception:
    return found if isinstance(found, Exception) else Outcome(found.documents, found.usage)


def retrieval_step(retriever: BaseRetriever, options: dict[str, Any]) -> Step:
    """A retriever, asked with `options`; one that says what it cost is believed."""
    ask: Callable[..., list[Any]] = retriever.batch
    aask: Callable[..., Awaitable[list[Any]]] = retriever.abatch
    outcome: Callable[[Any], Outcome | Exception] = _outcome
    if isinstance(retriever, DecompositionRetriever):
        ask, aask, outcome = retriever.outcomes, retriever.aoutcomes, _told

    def run(queries: list[Any], configs: list[RunnableConfig]) -> list[Outcome | Exception]:
        return [*map(outcome, ask(queries, configs, return_exceptions=True, **options))]

    async def arun(queries: list[Any], configs: list[RunnableConfig]) -> list[Outcome | Exception]:
        return [*map(outcome, await aask(queries, configs, return_exceptions=True, **options))]

    name = getattr(retriever, "stage", None) if isinstance(retriever, BatchedRetriever) else None
    return Step(name or retriever.get_name(), run, arun)


def stage_step(stage: BaseDocumentCompressor) -> Step:
    """A compressor of ragkit's as it is; any other through LangChain's interface, traced under its own name."""
    if isinstance(stage, Compressor):
        name = getattr(stage, "stage", stage.get_name())
        run = partial(stage.outcomes, return_exceptions=True)
        return Step(name, run, partial(stage.aoutcomes, return_exceptions=True), isinstance(stage, Pruner))

    def compress(value: dict[str, Any], config: RunnableConfig) -> list[Document]:
        return list(stage.compress_documents(value["documents"], value["query"], config.get("callbacks")))

    async def acompress(value: dict[str, Any], config: RunnableConfig) -> list[Document]:
        return list(await stage.acompress_documents(value["documents"], value["query"], config.get("callbacks")))

    runnable = RunnableLambda(compress, acompress, name=type(stage).__name__)

    def run_foreign(inputs: list[Any], configs: list[RunnableConfig]) -> list[Outcome | Exception]:
        return [*map(_outcome, runnable.batch(inputs, configs, return_exceptions=True))]

    async def arun_foreign(inputs: list[Any], configs: list[RunnableConfig]) -> list[Outcome | Exception]:
        return [*map(_outcome, await runnable.abatch(inputs, configs, return_exceptions=True))]

    return Step(type(stage).__name__, run_foreign, arun_foreign, foreign=True)
