"""A source keeps its best passages in front, and no more than it may; nothing is lost."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit.chains.pipeline import Pipeline
from ragkit.documents.provenance import SCORE_KEY, Provenance, provenance, with_provenance
from ragkit.errors import InputError
from ragkit.rerankers.source_cap import SourceCapReranker
from ragkit.retrievers.bm25 import BM25Retriever

rankings = st.lists(st.sampled_from(["a", "b", "c", None]), max_size=12)


def ranked(sources: list[str | None], field: str = "source") -> list[Document]:
    """Documents with falling scores, best first."""
    return [
        Document(id=str(at), page_content="x", metadata={SCORE_KEY: 1 - at / 100, **({field: source} if source else {})})
        for at, source in enumerate(sources)
    ]


def ids(documents: list[Document]) -> list[str]:
    return [str(document.id) for document in documents]


@given(rankings, st.integers(1, 4), st.integers(1, 8))
def test_the_cap_holds_in_the_first_k_where_there_are_others(sources: list[str | None], most: int, k: int) -> None:
    documents = ranked(sources)
    found = SourceCapReranker(most=most).compress_documents(documents, "q")
    assert sorted(ids(found)) == sorted(ids(documents))  # a permutation
    places = {str(document.id): source for document, source in zip(documents, sources, strict=True)}
    counts = Counter(source for source in sources if source)
    room = sum(min(most, n) for n in counts.values()) + sources.count(None)
    if room >= k:
        assert all(n <= most for source, n in Counter(places[id_] for id_ in ids(found)[:k]).items() if source)
    for source in {*sources}:  # each source's own order stays
        own = [id_ for id_ in ids(found) if places[id_] == source]
        assert own == sorted(own, key=int)
    if max(counts.values(), default=0) <= most or set(sources) in ({"a"}, {"b"}, {"c"}):
        assert ids(found) == ids(documents)


@given(rankings, st.integers(1, 4))
def test_scores_tell_of_the_same_order(sources: list[str | None], most: int) -> None:
    documents, reranker = ranked(sources), SourceCapReranker(most=most)
    found = reranker.compress_documents(documents, "q")
    assert [document.metadata[SCORE_KEY] for document in found] == [1 - int(id_) / 100 for id_ in ids(found)]
    assert all(provenance(document).stages[-1] == ("source-cap", None, n) for n, document in enumerate(found, 1))
    if documents:
        from ragkit.compressor import Task

        [scores] = reranker.scores([Task("q", documents, {})])
        assert ids(found) == [id_ for _, id_ in sorted(zip(-scores, ids(documents), strict=True))]


def test_it_says_what_was_moved_and_why() -> None:
    reranker = SourceCapReranker(most=1)
    [outcome] = reranker.outcomes([{"documents": ranked(["a", "a", "b"]), "query": "q"}])
    assert ids(outcome.documents) == ["0", "2", "1"]
    assert outcome.usage == {"moved": 1, "why": {"1": "number 2 of a, of which 1 may stand in front"}}
    [outcome] = reranker.outcomes([{"documents": ranked(["a", "b"]), "query": "q"}])
    assert outcome.usage == {"moved": 0}


def test_a_source_is_the_file_or_the_field_that_is_asked_for() -> None:
    split = [with_provenance(document, Provenance(source="one.md")) for document in ranked(["x", "y"])]
    assert ids(SourceCapReranker(most=1).compress_documents([*split, *ranked(["z"])], "q")) == ["0", "0", "1"]
    by_host = ranked(["h", "h", "i"], field="host")
    assert ids(SourceCapReranker(most=1).compress_documents(by_host, "q")) == ["0", "1", "2"]
    assert ids(SourceCapReranker(most=1, field="host").compress_documents(by_host, "q")) == ["0", "2", "1"]


def test_in_a_pipeline_the_flood_of_one_source_leaves_room() -> None:
    flood = [Document(id=f"f{n}", page_content=f"oil oil oil {n}", metadata={"source": "flood"}) for n in range(9)]
    good = [Document(id=f"g{n}", page_content=f"the pump needs oil {n}", metadata={"source": f"good{n}"}) for n in range(3)]
    retriever = BM25Retriever.from_documents([*flood, *good], k=12)
    pipeline = Pipeline(retriever=retriever, stages=[SourceCapReranker(most=2)], k=5)
    context = pipeline.ground("oil")
    assert Counter(passage.source for passage in context.passages)["flood"] == 2
    assert context.trace[-1].usage["moved"] == 7


def test_a_cap_of_nothing_is_refused() -> None:
    with pytest.raises((InputError, ValueError), match="most"):
        SourceCapReranker(most=0)
