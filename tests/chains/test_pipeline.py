"""Pipelines: composition, k, traces, batches, async, foreign parts, callbacks."""

import asyncio
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda

from ragkit import (
    BM25Retriever,
    DenseRetriever,
    ExtractivePruner,
    HybridRetriever,
    InputError,
    Pipeline,
    Store,
    index_paths,
    provenance,
)
from ragkit.compressor import Outcome, Task
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


def test_every_document_that_a_stage_returned_is_a_candidate(store: Store, pruner: ExtractivePruner) -> None:
    context = (HybridRetriever(store=store, k=8) >> LengthReranker(top_k=4) >> pruner).ground("apple", k=2)
    returned = {ranked.id for stage in context.trace for ranked in stage.results}
    assert {candidate.id for candidate in context.candidates} == returned
    assert all(candidate.text == TEXTS[int(candidate.id)] for candidate in context.candidates)
    assert {result.stage for result in context.candidates[0].stages} >= {"bm25", "dense", "hybrid"}


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


@pytest.mark.parametrize(("given", "score"), [(np.float32(0.5), 0.5), ("high", None), (1, 1.0)])
def test_the_scores_of_foreign_stages_are_plain_numbers(store: Store, given: Any, score: Any) -> None:
    class Scorer(BaseDocumentCompressor):
        def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> Any:
            return [document.model_copy(update={"metadata": {"relevance_score": given}}) for document in documents]

    context = (BM25Retriever(store=store) >> Scorer()).ground("apple")
    assert {passage.score for passage in context.passages} == {score}
    found = json.loads(json.dumps(context.to_json()))
    assert {ranked[1] for ranked in found["trace"][-1]["results"]} == {score}
    assert "apple" in context.to_html()


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
        self.errors: list[str] = []

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(str(error))

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


class Shortener(BaseDocumentCompressor):
    """A foreign compressor that shortens texts, or rewrites them."""

    rewrite: bool = False

    def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> Any:
        return [
            Document(id=d.id, page_content=f"Summary of {d.id}." if self.rewrite else d.page_content[16:46], metadata=d.metadata)
            for d in documents
        ]


@pytest.mark.parametrize("after_pruner", [False, True])
def test_a_foreign_stage_may_shorten_text(tmp_path: Path, make_encoder: Any, after_pruner: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(TEXTS))
    store = Store.memory(bm25_and_dense(make_encoder()))
    index_paths(store, [path], size=40)
    pipeline: Any = HybridRetriever(store=store, k=2)
    if after_pruner:
        pipeline = pipeline >> ExtractivePruner(encoder=make_encoder(), threshold=0)
    context = (pipeline >> Shortener()).ground("apple number 3")
    assert context.citations
    for citation in context.citations:
        assert citation.source == str(path)
        assert path.read_text()[citation.start : citation.end] == citation.text
    rewritten = (pipeline >> Shortener(rewrite=True)).ground("apple number 3")
    for passage in rewritten.passages:
        assert passage.text == f"Summary of {passage.id}."
        assert [(s.citation.start, s.citation.end, s.citation.line) for s in passage.sentences] == [(0, len(passage.text), None)]


def test_own_filters_are_kept_when_a_call_brings_another(make_encoder: Any) -> None:
    store = Store.memory(bm25_and_dense(make_encoder()))
    store.upsert(
        [Document(id=f"{t}{y}", page_content="same words", metadata={"tenant": t, "year": y}) for t in (0, 1) for y in (1, 2)]
    )
    mine = {"tenant": 0}
    parts: list[Any] = [BM25Retriever(store=store, filter=mine), DenseRetriever(store=store, filter=mine)]
    for retriever in (*parts, HybridRetriever(store=store, filter=mine), HybridRetriever(retrievers=parts)):
        for pipeline in (retriever, Pipeline(retriever=retriever)):
            assert {d.id for d in pipeline.invoke("words")} == {"01", "02"}
            assert {d.id for d in pipeline.invoke("words", filter={"year": 1})} == {"01"}
            assert pipeline.invoke("words", filter={"tenant": 1}) == []


class Dropper(BaseDocumentCompressor):
    """A foreign compressor that makes new documents without ids, as LangChain's extractors do."""

    shout: bool = False

    def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> Any:
        return [
            Document(page_content=d.page_content.upper() if self.shout else d.page_content[9:40], metadata=d.metadata)
            for d in documents
        ]


def test_a_foreign_stage_may_drop_ids(tmp_path: Path, make_encoder: Any) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(TEXTS))
    store = Store.memory(bm25_and_dense(make_encoder()))
    index_paths(store, [path], size=40)
    context = (HybridRetriever(store=store, k=3) >> Dropper()).ground("apple number 3")
    assert {citation.source for citation in context.citations} == {str(path)}
    assert all(path.read_text()[c.start : c.end] == c.text for c in context.citations)
    shouted = (HybridRetriever(store=store, k=3) >> Dropper(shout=True)).ground("apple number 3")
    assert all(passage.source == passage.id for passage in shouted.passages)


async def test_one_failing_question_fails_alone_in_a_pipeline(store: Store) -> None:
    pipeline = HybridRetriever(store=store, k=2) >> Costly() >> LengthReranker()
    for results in (
        pipeline.batch(["apple", "bad"], return_exceptions=True),
        await pipeline.abatch(["apple", "bad"], return_exceptions=True),
    ):
        assert len(results[0]) == 2
        assert isinstance(results[1], ValueError)
    for ask in (pipeline.invoke, pipeline.ground):
        with pytest.raises(ValueError, match="broken"):
            ask("bad")


async def test_a_wrong_question_fails_alone_in_a_pipeline(store: Store) -> None:
    pipeline = HybridRetriever(store=store, k=2) >> LengthReranker()
    asked: list[Any] = [None, "apple"]
    expected = pipeline.invoke("apple")
    for results in (
        pipeline.batch(asked, return_exceptions=True),
        await pipeline.abatch(asked, return_exceptions=True),
    ):
        assert isinstance(results[0], InputError)
        assert results[1] == expected
    for results in (
        pipeline.ground_batch(asked, return_exceptions=True),
        await pipeline.aground_batch(asked, return_exceptions=True),
    ):
        assert isinstance(results[0], InputError)
        assert [passage.id for passage in results[1].passages] == [document.id for document in expected]


async def test_a_callback_that_fails_leaves_no_run_open(store: Store) -> None:
    class Strict(Recorder):
        raise_error = True

        def on_retriever_start(self, serialized: Any, query: str, **kwargs: Any) -> None:
            if query == "bad":
                raise ValueError("no more")
            super().on_retriever_start(serialized, query, **kwargs)

        def on_retriever_error(self, error: BaseException, **kwargs: Any) -> None:
            self.errors.append(str(error))

    retriever = BM25Retriever(store=store)
    one, other = Strict(), Strict()
    results = retriever.batch(["apple", "bad"], {"callbacks": [one]}, return_exceptions=True)
    await retriever.abatch(["apple", "bad"], {"callbacks": [other]}, return_exceptions=True)
    assert [str(result) for result in results] == ["no more", "no more"]
    assert one.errors == other.errors == ["no more"]


async def test_a_cancelled_batch_closes_its_runs(store: Store) -> None:
    begun = asyncio.Event()

    class Slow(LengthReranker):
        async def aprocess(self, tasks: Sequence[Task]) -> Any:
            begun.set()
            await asyncio.Event().wait()

    recorder = Recorder()
    task = asyncio.create_task((HybridRetriever(store=store) >> Slow()).aground("apple", config={"callbacks": [recorder]}))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(recorder.errors) == 2


class Costly(LengthReranker):
    """Reports what it cost, fails on one question, and calls a runnable of its own."""

    def process(self, tasks: Sequence[Task]) -> list[Any]:
        outcomes = super().process(tasks)
        RunnableLambda(lambda value: value, name="inner").batch([task.query for task in tasks], [task.config for task in tasks])
        return [
            ValueError("broken") if task.query == "bad" else Outcome(outcome.documents, {"calls": 2, "tokens": len(task.query)})
            for task, outcome in zip(tasks, outcomes, strict=True)
        ]


def test_cost_of_a_stage_is_in_the_trace_and_scores_too(store: Store) -> None:
    context = (HybridRetriever(store=store, k=3) >> Costly(top_k=2)).ground("apple")
    first, second = context.trace
    assert (first.usage, second.usage) == ({}, {"calls": 2, "tokens": 5})
    assert len(first.results) == 3
    assert [ranked.id for ranked in second.results] == [passage.id for passage in context.passages]
    assert [ranked.score for ranked in second.results] == [passage.score for passage in context.passages]


def test_one_failing_question_fails_alone(store: Store) -> None:
    found = HybridRetriever(store=store, k=2).invoke("apple")
    inputs: list[Any] = [{"documents": found, "query": "good"}, {"documents": found, "query": "bad"}]
    recorder = Recorder()
    good, bad = Costly().batch(inputs, {"callbacks": [recorder]}, return_exceptions=True)
    assert len(good) == 2
    assert isinstance(bad, ValueError)
    assert recorder.errors == ["broken"]
    with pytest.raises(ValueError, match="broken"):
        Costly().batch(inputs)


async def test_grounding_is_one_run_per_question_with_its_stages_inside(store: Store) -> None:
    pipeline = HybridRetriever(store=store) >> Costly()
    ids = [uuid.uuid4(), uuid.uuid4()]
    recorder = Recorder()
    pipeline.ground_batch(["one", "two"], config=[{"callbacks": [recorder], "run_id": id_, "run_name": "mine"} for id_ in ids])
    names = {run: name for (_, name), run in zip(recorder.starts, recorder.parents, strict=True)}
    assert [run for run, parent in recorder.parents.items() if parent is None] == ids
    for id_ in ids:
        children = [run for run, parent in recorder.parents.items() if parent == id_]
        assert [names[child] for child in children] == ["HybridRetriever", "Costly"]
        assert [names[run] for run, parent in recorder.parents.items() if parent == children[1]] == ["inner"]
    alone = Recorder()
    await pipeline.aground("one", config={"callbacks": [alone]})
    assert alone.starts[0] == ("chain", "Pipeline.ground")
    assert [name for _, name in alone.starts[1:]] == ["HybridRetriever", "Costly", "inner"]
