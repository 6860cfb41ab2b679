"""What every reranker keeps, whatever its model says: a permutation, untouched inputs, one behaviour through every door."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ValidationError

from ragkit import InputError, provenance
from ragkit.compressor import Task
from ragkit.documents.provenance import StageResult, with_stages
from ragkit.rerankers.base import Reranker

FINITE = st.sampled_from([0.0, -0.0, 1.0, -1.0]) | st.floats(allow_nan=False, allow_infinity=False)
BROKEN = st.sampled_from([math.nan, math.inf, -math.inf])


class Scripted(Reranker):
    """Gives each question the scores that `script` holds for it, and remembers what it was asked."""

    script: dict[str, Any]
    asked: list[str] = []

    def scores(self, tasks: Sequence[Task]) -> list[Any]:
        self.asked += [task.query for task in tasks]
        return [np.asarray(self.script[task.query], np.float64) for task in tasks]


class ByLength(Reranker):
    """The longer the better."""

    def scores(self, tasks: Sequence[Task]) -> list[Any]:
        return [np.array([float(len(document.page_content)) for document in task.documents]) for task in tasks]


class Recorder(BaseCallbackHandler):
    def __init__(self) -> None:
        self.started: list[tuple[str, Any]] = []
        self.ended: list[Any] = []
        self.failed: list[BaseException] = []

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self.started.append((kwargs["name"], inputs))

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.ended.append(outputs)

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self.failed.append(error)


class Canned(BaseRetriever):
    """A LangChain retriever that always finds the same."""

    found: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return self.found


def documents(count: int, prefix: str = "d") -> list[Document]:
    return [Document(id=f"{prefix}{i}", page_content=f"text {i}", metadata={"n": i, "own": {"deep": [i]}}) for i in range(count)]


def ids(found: Sequence[Document]) -> list[Any]:
    return [document.id for document in found]


@given(
    st.lists(st.lists(FINITE, max_size=10) | st.lists(FINITE | BROKEN, max_size=10), max_size=4), st.none() | st.integers(1, 6)
)
def test_a_permutation_sorted_stably_or_left_as_it_was(scores: list[list[float]], top_k: int | None) -> None:
    reranker = Scripted(script={str(q): its_scores for q, its_scores in enumerate(scores)}, top_k=top_k)
    given_documents = [documents(len(its_scores), f"{q}-") for q, its_scores in enumerate(scores)]
    before = copy.deepcopy(given_documents)
    results = reranker.batch([{"documents": found, "query": str(q)} for q, found in enumerate(given_documents)])
    assert len(results) == len(scores)
    assert given_documents == before
    for its_scores, found, result in zip(scores, given_documents, results, strict=True):
        broken = not all(map(math.isfinite, its_scores))
        order = range(len(found)) if broken else sorted(range(len(found)), key=lambda i: -its_scores[i])
        assert ids(result) == [found[i].id for i in order][:top_k]
        for rank, (at, document) in enumerate(zip(order, result, strict=False), 1):
            (stage,) = provenance(document).stages
            assert stage == StageResult("rerank", None if broken else its_scores[at], rank)
            assert document.metadata.get("relevance_score") == (None if broken else its_scores[at])
            assert (document.page_content, document.metadata["n"]) == (found[at].page_content, at)
            json.dumps(document.metadata)


def test_scores_that_are_not_finite_are_one_questions_problem(caplog: pytest.LogCaptureFixture) -> None:
    reranker = Scripted(script={"bad": [1.0, math.nan, 3.0], "good": [1.0, 2.0, 3.0], "none": []})
    found = [with_stages(document, StageResult("bm25", 0.5, n)) for n, document in enumerate(documents(3), 1)]
    with caplog.at_level(logging.WARNING):
        bad, none, good = reranker.batch(
            [{"documents": found[:n], "query": q} for q, n in (("bad", 3), ("none", 0), ("good", 3))]
        )
    assert ids(bad) == ["d0", "d1", "d2"]
    assert [document.metadata["relevance_score"] for document in bad] == [0.5] * 3
    assert ids(good) == ["d2", "d1", "d0"]
    assert none == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Scripted" in caplog.text
    assert "'bad'" in caplog.text


@pytest.mark.parametrize("scores", [[], [9.0], [1.0, 2.0, 3.0, 4.0]])
def test_a_model_that_answers_too_little_or_too_much_loses_nothing(scores: list[float], caplog: pytest.LogCaptureFixture) -> None:
    result = Scripted(script={"q": scores}).compress_documents(documents(3), "q")
    assert ids(result) == ["d0", "d1", "d2"]
    assert "Scripted" in caplog.text


def test_an_answer_for_every_question_is_demanded() -> None:
    class Forgetful(ByLength):
        def scores(self, tasks: Sequence[Task]) -> list[Any]:
            return super().scores(tasks)[:-1]

    with pytest.raises(ValueError, match="shorter"):
        Forgetful().batch([{"documents": documents(1), "query": q} for q in "ab"])


def test_the_model_is_not_asked_about_nothing() -> None:
    reranker = Scripted(script={})
    assert reranker.compress_documents([], "q") == []
    assert reranker.batch([]) == []
    assert reranker.process([]) == []
    assert reranker.asked == []


def test_duplicates_survive_by_position() -> None:
    same_text = [Document(id=name, page_content="same") for name in "ab"]
    same_id = [Document(id="a", page_content="same"), Document(id="a", page_content="other")]
    no_id = [Document(page_content="same"), Document(page_content="same")]
    found = Scripted(script={"q": [0, 1, 2, 3, 4, 5]}).compress_documents([*same_text, *same_id, *no_id], "q")
    assert [document.page_content for document in found] == ["same", "same", "other", "same", "same", "same"]
    assert ids(found)[2:] == ["a", "a", "b", "a"]
    assert found[0].id == found[1].id is not None


def test_documents_without_id_get_one_that_depends_on_the_content_alone() -> None:
    def fresh(text: str, **metadata: Any) -> Document:
        return Document(page_content=text, metadata=metadata)

    given_documents = [fresh("a", x=1), fresh("a", x=2), fresh("b")]
    found = ByLength().compress_documents(given_documents, "q")
    again = ByLength().compress_documents([fresh("b"), fresh("a", x=2), fresh("a", x=1)], "other")
    assert len(set(ids(found))) == 3
    assert ids(found) == ids(again)[::-1]
    assert all(document.id is None for document in given_documents)


def test_changing_a_result_leaves_the_input_alone() -> None:
    given_documents = [Document(page_content="a", metadata={"x": 1}), *documents(1)]
    before = copy.deepcopy(given_documents)
    for document in ByLength().compress_documents(given_documents, "q"):
        document.metadata["x"] = "changed"
        document.metadata["ragkit"]["stages"] = []
        document.page_content = "changed"
    assert given_documents == before


async def test_every_door_leads_to_the_same_result() -> None:
    reranker = ByLength(top_k=2)
    questions = [("q1", [Document(id=t, page_content=t) for t in ("a", "ccc", "bb")]), ("q2", []), ("q3", documents(4))]
    inputs: list[Any] = [{"documents": found, "query": query} for query, found in questions]
    expected = [reranker.compress_documents(found, query) for query, found in questions]
    assert ids(expected[0]) == ["ccc", "bb"]
    assert [await reranker.acompress_documents(found, query) for query, found in questions] == expected
    assert [reranker.invoke(value) for value in inputs] == expected
    assert [await reranker.ainvoke(value) for value in inputs] == expected
    assert reranker.batch(inputs) == expected
    assert await reranker.abatch(inputs) == expected
    assert dict(reranker.batch_as_completed(inputs)) == dict(enumerate(expected))
    assert list(reranker.stream(inputs[0])) == [expected[0]]


def test_stages_add_up_and_the_last_score_is_the_relevance_score() -> None:
    first = Scripted(script={"q": [3.0, 2.0, 1.0]}, top_k=2).compress_documents(documents(3), "q")
    second = Scripted(script={"q": [0.0, 0.5]}).compress_documents(first, "q")
    assert ids(second) == ["d1", "d0"]
    assert provenance(second[0]).stages == (StageResult("rerank", 2.0, 2), StageResult("rerank", 0.5, 1))
    assert second[0].metadata["relevance_score"] == 0.5
    assert first[1].metadata["relevance_score"] == 2.0


async def test_callbacks_see_one_run_per_question() -> None:
    reranker = ByLength()
    inputs: list[Any] = [{"documents": documents(n), "query": f"q{n}"} for n in (2, 3)]
    for way in ("batch", "abatch", "compress", "acompress"):
        recorder = Recorder()
        if way == "batch":
            results = reranker.batch(inputs, {"callbacks": [recorder]})
        elif way == "abatch":
            results = await reranker.abatch(inputs, {"callbacks": [recorder]})
        elif way == "compress":
            results = [reranker.compress_documents(**value, callbacks=[recorder]) for value in inputs]
        else:
            results = [await reranker.acompress_documents(**value, callbacks=[recorder]) for value in inputs]
        assert recorder.started == [("ByLength", value) for value in inputs], way
        assert recorder.ended == results, way


def test_each_question_may_have_its_own_config() -> None:
    recorders = Recorder(), Recorder()
    inputs: list[Any] = [{"documents": documents(n), "query": f"q{n}"} for n in (1, 2)]
    ByLength().batch(inputs, [{"callbacks": [recorder], "run_name": f"run {n}"} for n, recorder in enumerate(recorders)])
    assert [recorder.started for recorder in recorders] == [[("run 0", inputs[0])], [("run 1", inputs[1])]]


def test_errors_reach_the_caller_and_the_callbacks() -> None:
    recorder = Recorder()
    reranker = Scripted(script={})
    value: Any = {"documents": documents(1), "query": "unknown"}
    with pytest.raises(KeyError):
        reranker.invoke(value, {"callbacks": [recorder]})
    assert [type(error) for error in recorder.failed] == [KeyError]
    assert [type(error) for error in reranker.batch([value], return_exceptions=True)] == [KeyError]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"documents": []}, "takes {'documents'"),
        ("question", "takes {'documents'"),
        ({"documents": [], "query": 3}, "query must be a string, not int"),
        ({"documents": [], "query": None}, "query must be a string, not NoneType"),
        ({"documents": ["text"], "query": "q"}, "must be LangChain Documents, not str"),
    ],
)
def test_wrong_inputs_are_named(value: Any, message: str) -> None:
    for call in (ByLength().invoke, lambda wrong: ByLength().batch([wrong])):
        with pytest.raises(InputError, match=message):
            call(value)


@pytest.mark.parametrize("wrong", [None, {}, {"documents": [], "query": 3}, {"documents": None, "query": "q"}])
async def test_a_wrong_input_fails_alone(wrong: Any) -> None:
    good: Any = {"documents": documents(2), "query": "q"}
    expected = ByLength().invoke(good)
    recorder = Recorder()
    for results in (
        ByLength().batch([wrong, good], {"callbacks": [recorder]}, return_exceptions=True),
        await ByLength().abatch([wrong, good], return_exceptions=True),
    ):
        assert isinstance(results[0], InputError)
        assert results[1] == expected
    assert [type(error) for error in recorder.failed] == [InputError]
    assert recorder.ended == [expected]


def test_wrong_fields_are_refused() -> None:
    for wrong in ({"top_k": 0}, {"top_k": -1}, {"topk": 3}):
        with pytest.raises(ValidationError):
            ByLength(**wrong)


async def test_inside_langchains_contextual_compression_retriever() -> None:
    found = [Document(id=t, page_content=t, metadata={"page": len(t)}) for t in ("a", "ccc", "bb")]
    retriever = ContextualCompressionRetriever(base_compressor=ByLength(top_k=2), base_retriever=Canned(found=found))
    recorder = Recorder()
    result = retriever.invoke("q", {"callbacks": [recorder]})
    assert ids(result) == ["ccc", "bb"]
    assert [document.metadata["relevance_score"] for document in result] == [3.0, 2.0]
    assert [document.metadata["page"] for document in result] == [3, 2]
    assert [name for name, _ in recorder.started] == ["ByLength"]
    assert await retriever.ainvoke("q") == result
    assert all("relevance_score" not in document.metadata for document in found)


def test_inside_langchains_compressor_pipeline() -> None:
    chain = DocumentCompressorPipeline(transformers=[ByLength(top_k=2), Scripted(script={"q": [0.0, 1.0]})])
    found = chain.compress_documents([Document(id=t, page_content=t) for t in ("a", "ccc", "bb")], "q")
    assert ids(found) == ["bb", "ccc"]


def test_the_schema_that_langchain_shows_names_both_fields() -> None:
    schema = ByLength().get_input_schema()
    schema.model_validate({"documents": documents(1), "query": "q"})
    for wrong in ({"documents": []}, {"query": "q"}):
        with pytest.raises(ValidationError):
            schema.model_validate(wrong)
