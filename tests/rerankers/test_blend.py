"""Blending: the order of a weighted sum of two stages' scores, or the order that was there."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit import BlendReranker, BM25Retriever, provenance
from ragkit.compressor import Task
from ragkit.documents.provenance import StageResult, with_stages
from ragkit.indexes.base import Scores
from ragkit.rerankers.base import Reranker

score = st.integers(-20, 20).map(lambda n: n / 4)


def documents(before: Sequence[float], last: Sequence[float | None]) -> list[Document]:
    found = []
    for n, (one, other) in enumerate(zip(before, last, strict=True)):
        document = with_stages(Document(id=str(n), page_content=f"text {n}"), StageResult("bm25", one, n + 1))
        found.append(with_stages(document, StageResult("rerank", other, n + 1)))
    return found


def ids(found: Sequence[Document]) -> list[str | None]:
    return [document.id for document in found]


def scaled(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 1.0 for value in values]


@given(st.lists(st.tuples(score, score), min_size=1, max_size=8), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_order_and_scores_are_those_of_the_weighted_sum(pairs: list[tuple[float, float]], weight: float) -> None:
    before, last = zip(*pairs, strict=True)
    found = BlendReranker(weight=weight).compress_documents(documents(before, last), "q")
    sums = [weight * one + (1 - weight) * other for one, other in zip(scaled(before), scaled(last), strict=True)]
    assert sorted(found, key=lambda document: -document.metadata["relevance_score"]) == found
    for document in found:
        assert document.metadata["relevance_score"] == pytest.approx(sums[int(str(document.id))])
        assert [result.stage for result in provenance(document).stages] == ["bm25", "rerank", "blend"]


def test_documents_without_two_scores_keep_their_order() -> None:
    reranker = BlendReranker()
    partly = documents([1, 2, 3], [3, None, 1])
    once = [with_stages(Document(id=str(n), page_content="x"), StageResult("bm25", float(n), 1)) for n in range(3)]
    for given_documents in (partly, once, [Document(id="a", page_content="x"), Document(id="b", page_content="y")]):
        [outcome] = reranker.outcomes([{"query": "q", "documents": given_documents}])
        assert ids(outcome.documents) == ids(given_documents)
        assert outcome.usage["failures"] == 1
    assert reranker.compress_documents([], "q") == []


def test_behind_a_reranker_that_failed_the_retrievers_order_stays() -> None:
    found = [
        with_stages(Document(id=str(n), page_content="x"), StageResult("dense", -n, n), StageResult("hybrid", n, 3 - n))
        for n in range(3)
    ]
    failed = [with_stages(document, StageResult("rerank", None, n)) for n, document in enumerate(found, 1)]
    assert ids(BlendReranker(weight=0.1).compress_documents(failed, "q")) == ["0", "1", "2"]
    assert ids(BlendReranker(weight=0.1).compress_documents(found, "q")) == ["2", "1", "0"]


class Shortest(Reranker):
    """Prefers short texts."""

    def scores(self, tasks: Sequence[Task]) -> list[Scores]:
        """See `Reranker.scores`."""
        return [np.array([-len(document.page_content) for document in task.documents], float) for task in tasks]


def test_in_a_pipeline_it_takes_reranker_and_retriever() -> None:
    texts = ["pump pump pump in a very long text about many other things", "pump", "pump pump in a text"]
    retriever = BM25Retriever.from_texts(texts)
    plain = ids((retriever >> Shortest()).invoke("pump"))
    assert ids((retriever >> Shortest() >> BlendReranker(weight=0)).invoke("pump")) == plain
    assert ids((retriever >> Shortest() >> BlendReranker(weight=1)).invoke("pump")) == ids(retriever.invoke("pump"))
