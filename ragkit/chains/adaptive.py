"""Adaptive retrieval: search wider where the first search shows that it was hard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, Self

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from pydantic import field_validator

from ragkit.chains.pipeline import Pipeline
from ragkit.chains.steps import Step, retrieval_step
from ragkit.compressor import Outcome
from ragkit.corpus.filters import Filter, both
from ragkit.documents.provenance import StageResult, provenance, score_of, with_stages
from ragkit.errors import InputError
from ragkit.retrievers.base import StoreRetriever
from ragkit.retrievers.batched import BatchedRetriever
from ragkit.retrievers.multi_hop import MultiHopRetriever
from ragkit.retrievers.prediction import overlap
from ragkit.retrievers.restriction import restriction

STAGE = "widening"
"""Name under which the retrieval of a `WideningPipeline` is traced."""
_DEPTH = 10

Confidence = Callable[[str, Sequence[Document]], float]
"""How far a question's first search can be trusted, given the question and what was found, best first."""


def agreement(question: str, documents: Sequence[Document]) -> float:
    """The share of their first ten that the searches behind a fused ranking have in common, from 0 to 1, averaged over pairs.

    The searches are those that the documents name in their stages, as a `HybridRetriever` leaves them, and only what is among
    the documents counts. 0 if fewer than two have found any of them, so also for a single retriever.
    """
    ranks: dict[str, dict[str, int]] = {}
    for document in documents:
        for result in provenance(document).stages[:-1]:
            ranks.setdefault(result.stage, {})[str(document.id)] = result.rank
    shares = [overlap(*pair, _DEPTH) for pair in combinations(ranks.values(), 2)]
    return sum(shares) / len(shares) if shares else 0.0


class WideningPipeline(Pipeline):
    """A pipeline that searches again, with `wider`, for the questions whose first search cannot be trusted.

    What the wider search finds takes the place of what the first one found, and goes through the same stages to the same `k`; if
    it fails or finds nothing, the first one stands. Filters of the first search hold in the wider one. The
    decision falls before any reranker runs, so it costs a search.
    In the trace the stage is "widening"; its usage has the question's `confidence`, whether it was `widened`, who was asked again
    (`wider`), the `seconds` that this took for all of a batch together, how many documents are `new`, what the wider search says
    of its own cost, and its `failure` if it failed.
    """

    wider: BaseRetriever
    """Who is asked again; one that contains the first search loses nothing: `MultiHopRetriever`, `DecompositionRetriever` over
    the first retriever, or the first one with a larger `k` for a reranker to choose from."""
    confidence: Confidence = agreement
    """How far a first search can be trusted; see `agreement`."""
    below: float = 0.4
    """Search wider where `confidence` is less than this. The default was chosen for `agreement` by a `HybridRetriever` of 20
    documents; see `benchmarks/adaptive.py`."""

    @field_validator("wider")
    @classmethod
    def _takes_k(cls, wider: BaseRetriever) -> BaseRetriever:
        if not isinstance(wider, BatchedRetriever):
            raise ValueError(f"wider: must be a retriever of ragkit, not {type(wider).__name__}; put it into a WrappedRetriever")
        return wider

    @classmethod
    def of(cls, pipeline: Pipeline, wider: BaseRetriever | None = None, **fields: Any) -> Self:
        """The same pipeline, widening; by default with a `MultiHopRetriever` over the pipeline's retriever.

        Raises `InputError` if that retriever is not over a store, and `wider` is not given.
        """
        own = {name: getattr(pipeline, name) for name in Pipeline.model_fields}
        first = pipeline.retriever
        if wider is None:
            if not isinstance(first, StoreRetriever):
                raise InputError(f"wider: {first.get_name()} is not over a store of ragkit; say who is asked again")
            wider = MultiHopRetriever(store=first.store, retriever=first, k=first.k)
        return cls(**{**own, "wider": wider, **fields})

    def _steps(self, k: int, filter: Filter | None) -> list[Step]:
        first, *stages = super()._steps(k, filter)
        wider = self.wider
        assert isinstance(wider, BatchedRetriever)
        hidden = restriction(self.retriever)
        if hidden == restriction(wider):
            hidden = None  # it sees to that itself
        again = retrieval_step(wider, {"k": max(wider.k, k), "filter": both(hidden, filter)})

        def run(queries: list[Any], configs: list[RunnableConfig]) -> list[Outcome | Exception]:
            choice = _Choice(self, queries, first.run(queries, configs))
            started = time.perf_counter()
            found = again.run(*choice.asked(queries, configs)) if choice.weak else []
            return choice.outcomes(found, time.perf_counter() - started)

        async def arun(queries: list[Any], configs: list[RunnableConfig]) -> list[Outcome | Exception]:
            choice = await asyncio.to_thread(_Choice, self, queries, await first.arun(queries, configs))
            started = time.perf_counter()
            found = await again.arun(*choice.asked(queries, configs)) if choice.weak else []
            return choice.outcomes(found, time.perf_counter() - started)

        return [Step(STAGE, run, arun), *stages]


class _Choice:
    """The first search of a batch, and which of its questions are searched for again."""

    def __init__(self, pipeline: WideningPipeline, queries: Sequence[str], first: Sequence[Outcome | Exception]) -> None:
        self._first, self._wider = list(first), pipeline.wider.get_name()
        self._confidence: dict[int, float] = {}
        for at, outcome in enumerate(first):
            if isinstance(outcome, Outcome) and queries[at].strip():
                try:
                    self._confidence[at] = float(pipeline.confidence(queries[at], outcome.documents))
                except Exception as error:
                    self._first[at] = error
        # a confidence that is no number is none
        self.weak = [at for at, value in self._confidence.items() if not value >= pipeline.below]

    def asked(self, queries: list[Any], configs: list[RunnableConfig]) -> tuple[list[Any], list[RunnableConfig]]:
        """The weak questions and their configs."""
        return [queries[at] for at in self.weak], [configs[at] for at in self.weak]

    def outcomes(self, found: Sequence[Outcome | Exception], seconds: float) -> list[Outcome | Exception]:
        """What stands for each question, given what was found for the weak ones."""
        again = dict(zip(self.weak, found, strict=True))
        return [self._outcome(at, one, again.get(at), seconds) for at, one in enumerate(self._first)]

    def _outcome(
        self, at: int, first: Outcome | Exception, again: Outcome | Exception | None, seconds: float
    ) -> Outcome | Exception:
        if isinstance(first, Exception) or at not in self._confidence:
            return first
        usage: dict[str, Any] = {**first.usage, "confidence": self._confidence[at], "widened": False}
        documents = first.documents
        if again is not None:
            usage |= {"wider": self._wider, "seconds": seconds}
        if isinstance(again, Exception):
            usage["failure"] = f"{type(again).__name__}: {' '.join(str(again).split())[:200]}"
        elif again is not None:
            usage |= again.usage
            if again.documents:
                known = {document.id for document in documents}
                usage |= {"widened": True, "new": sum(document.id not in known for document in again.documents)}
                documents = again.documents
        return Outcome([_staged(rank, document) for rank, document in enumerate(documents, 1)], usage)


def _staged(rank: int, document: Document) -> Document:
    return with_stages(document, StageResult(STAGE, score_of(document), rank))
