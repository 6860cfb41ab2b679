"""Pipelines: composition, k, traces, batches, async, foreign parts, callbacks."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever

from ragkit import BM25Retriever, ExtractivePruner, HybridRetriever, InputError, Pipeline, Store, provenance
from ragkit.compressor import Task
from ragkit.rerankers.base import Reranker
from ragkit.store.store import bm25_and_dense

TEXTS = [f"Apple number {n} is red. Something else entirely, number {n}. An apple again." for n in range(12)]


class LengthReranker(Reranker):
    """Shortest text first."""

    def scores(self, tasks: Sequence[Task]) -> list[Any]:
        return [np.array([-float(len(d.page_content)) for d in task.documents]) for task in tasks]


class ForeignCompressor(BaseDocumentCompressor):
    """Keeps every other document."""

    def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> Any:
        return documents[::2]


class ForeignRetriever(BaseRetriever):
    """Three documents without ids."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(page_content=f"{query} apple {n}.") for n in range(3)]


@pytest.fixture
def store(make_encoder: Any) -> Store:
    store = Store.memory(bm25_and_dense(make_encoder()))
    store.upsert([Document(id=f"{n:02}", page_content=text, metadata={"n": n}) for n, text in enumerate(TEXTS)])
    return store


@pytest.fixture
def pruner(make_encoder: Any) -> ExtractivePruner:
    return ExtractivePruner(encoder=make_encoder())


def ids(documents: Sequence[Document]) -> list[str | None]:
    return [document.id for document in documents]


def test_stages_run_in_order_and_are_traced(store: Store, pruner: ExtractivePruner) -> None:
    pipeline = HybridRetriever(store=store, k=10) >> LengthReranker(top_k=4) >> pruner
    context = pipeline.ground("red apple")
    assert [(stage.stage, stage.entered, stage.left) for stage in context.trace] == [
        ("hybrid", 12, 10),
        ("rerank", 10, 4),
        ("prune", 4, 4),
    ]
    assert all(stage.seconds > 0 for stage in context.trace)
    assert context.tokens_kept < context.tokens_retrieved
    first = pipeline.invoke("red apple")[0]
    assert [result.stage for result in provenance(first).stages] == ["bm25", "dense", "hybrid", "rerank", "prune"]
    # the shown score is the latest stage's that gave one
    assert first.metadata["relevance_score"] == provenance(first).stages[-2].score


def test_k_is_cut_before_pruning(store: Store, pruner: ExtractivePruner) -> None:
    pipeline = Pipeline(retriever=HybridRetriever(store=store, k=8), stages=[LengthReranker(), pruner], k=3)
    trace = pipeline.ground("apple").trace
    assert [(stage.entered, stage.left) for stage in trace] == [(12, 8), (8, 8), (3, 3)]
    assert len(pipeline.invoke("apple", k=11)) == 11


def test_tokens_retrieved_counts_the_chosen_passages_whole(store: Store, pruner: ExtractivePruner) -> None:
    pipeline = HybridRetriever(store=store, k=2) >> pruner
    unpruned = Pipeline(retriever=HybridRetriever(store=store, k=2), k=2)
    assert pipeline.ground("apple").tokens_retrieved == unpruned.ground("apple").tokens_kept


async def test_all_ways_to_ask_agree(store: Store, pruner: ExtractivePruner) -> None:
    pipeline = HybridRetriever(store=store, k=6) >> LengthReranker(top_k=3) >> pruner
    questions = ["red apple", "", "something else", "zebra"]
    alone = [pipeline.ground(question) for question in questions]
    texts = [context.text for context in alone]
    assert [context.text for context in pipeline.ground_batch(questions)] == texts
    assert [(await pipeline.aground(question)).text for question in questions] == texts
    together = await asyncio.gather(*(pipeline.aground(question) for question in questions))
    assert [context.text for context in together] == texts
    expected = [pipeline.invoke(question) for question in questions]
    assert pipeline.batch(questions) == expected
    assert await pipeline.abatch(questions) == expected
    assert pipeline.ground_batch([]) == []
    assert texts[1] == ""


def test_foreign_retriever_and_compressor(pruner: ExtractivePruner) -> None:
    pipeline = ForeignRetriever() >> pruner
    assert isinstance(pipeline, Pipeline)
    context = (pipeline >> ForeignCompressor()).ground("red")
    assert [stage.stage for stage in context.trace] == ["ForeignRetriever", "prune", "ForeignCompressor"]
    assert len(context.passages) == 2
    with pytest.raises(InputError, match="filter"):
        pipeline.ground("red", filter={"n": 1})


def test_filter_and_budget_reach_their_stage(store: Store) -> None:
    pipeline = Pipeline(retriever=HybridRetriever(store=store), k=3, max_passages=1)
    context = pipeline.ground("apple", filter={"n": {"$in": [3, 5]}})
    assert len(context.passages) == 1
    assert {p.id for p in pipeline.ground("apple", filter={"n": {"$in": [3, 5]}}, max_passages=5).passages} == {"03", "05"}
    with pytest.raises(InputError, match="max_tokens"):
        pipeline.ground("apple", max_tokens=0)


def test_a_pipeline_is_a_stage_of_another(store: Store, pruner: ExtractivePruner) -> None:
    inner = HybridRetriever(store=store, k=6) >> LengthReranker()
    outer = Pipeline(retriever=inner, stages=[pruner], k=2)
    assert [(stage.entered, stage.left) for stage in outer.ground("apple").trace] == [(12, 6), (2, 2)]


def test_only_compressors_can_be_stages(store: Store) -> None:
    with pytest.raises(InputError, match="not str"):
        BM25Retriever(store=store) >> "reranker"  # type: ignore[operator]


class Recorder(BaseCallbackHandler):
    def __init__(self) -> None:
        self.starts: list[tuple[str, Any]] = []
        self.parents: dict[Any, Any] = {}
        self.roots: list[Any] = []

    def _note(self, kind: str, run_id: Any, parent_run_id: Any, name: str) -> None:
        self.starts.append((kind, name))
        self.parents[run_id] = parent_run_id

    def on_retriever_start(self, serialized: Any, query: str, *, run_id: Any, parent_run_id: Any = None, **kwargs: Any) -> None:
        self._note("retriever", run_id, parent_run_id, kwargs["name"])

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: Any, parent_run_id: Any = None, **kwargs: Any) -> None:
        self._note("chain", run_id, parent_run_id, kwargs["name"])


def test_callbacks_see_the_stages_as_children(store: Store, pruner: ExtractivePruner) -> None:
    recorder = Recorder()
    pipeline = HybridRetriever(store=store) >> pruner >> ForeignCompressor()
    pipeline.invoke("apple", {"callbacks": [recorder]})
    assert recorder.starts == [
        ("retriever", "Pipeline"),
        ("retriever", "HybridRetriever"),
        ("chain", "ExtractivePruner"),
        ("chain", "ForeignCompressor"),
    ]
    [root] = [run for run, parent in recorder.parents.items() if parent is None]
    assert list(recorder.parents.values()) == [None, root, root, root]


def test_inputs_stay_as_they_are(store: Store, pruner: ExtractivePruner) -> None:
    documents = HybridRetriever(store=store, k=3).invoke("apple")
    copies = [document.model_copy(deep=True) for document in documents]
    LengthReranker().compress_documents(documents, "apple")
    pruner.compress_documents(documents, "apple")
    assert documents == copies
