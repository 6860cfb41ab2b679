"""What every pruner keeps: verbatim spans of the passage, made of whole units, whatever the text looks like."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ValidationError

from ragkit import ExtractivePruner, InputError, provenance
from ragkit.compressor import Task
from ragkit.documents.blocks import markdown_blocks, rst_blocks, text_blocks
from ragkit.documents.model import Source, Unit
from ragkit.documents.provenance import StageResult, with_stages
from ragkit.documents.sentences import units_of
from ragkit.documents.split import split
from ragkit.documents.tokens import RegexTokenizer
from ragkit.pruners.base import Judgement, Pruner

WORDS = ["apple", "pear", "plum", "fig", "日本", "😀", "naïve", "x" * 30]
PIECES = [
    *("The apple fell. Why? A pear did not.", "Dr. No ate a fig. So did e\u0301 plum!", "日本語の文。次の文！apple です。"),
    *("# Apple", "## Pear {#pear}", "Title\n=====", "- apple item. More.\n- pear", "1. plum\n2. fig\n   still fig"),
    *(
        "| apple | pear |\n|---|---|\n| plum | fig |\n| 1 | 2 |",
        "```py\napple = 1\n\npear = 2\n```",
        "    indented apple\n      fig",
    ),
    *(
        "> quoted pear. Again.",
        "👩‍👩‍👧 apple. 😀 pear.",
        "a\x00b\x0cc apple",
        "\u2028plum\u2029",
        "\ufeff",
        "",
        " \t ",
        "fig " * 30,
        "\x85",
    ),
]
TEXTS = st.builds(
    lambda pieces, newline: "".join(piece + gap for piece, gap in pieces).replace("\n", newline),
    st.lists(
        st.tuples(
            st.sampled_from(PIECES) | st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join) | st.text(max_size=15),
            st.sampled_from(["\n", "\n\n", ". ", " "]),
        ),
        max_size=6,
    ),
    st.sampled_from(["\n", "\n", "\r\n", "\r"]),
)
QUERIES = st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)


class Canned(BaseRetriever):
    """A LangChain retriever that always finds the same."""

    found: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return self.found


class Marked(Pruner):
    """Keeps the units that hold the question; a unit scores by how often they do."""

    def judge(self, tasks: Sequence[Task], units: Sequence[Sequence[Sequence[Unit]]]) -> list[list[Any]]:
        return [
            [
                Judgement(np.array([float(whole(document)[unit.start : unit.end].count(task.query)) for unit in its_units]))
                for document, its_units in zip(task.documents, task_units, strict=True)
            ]
            for task, task_units in zip(tasks, units, strict=True)
        ]

    def select(self, task: Task, units: Any, judgements: Sequence[Judgement]) -> list[Any]:
        return [judgement.units > 0 for judgement in judgements]


def whole(document: Document) -> str:
    passage = provenance(document).passage
    return document.page_content if passage is None else passage


@st.composite
def passages(draw: st.DrawFn) -> list[Document]:
    """Some documents of the user's own, and some that the splitter made."""
    made = []
    for n, text in enumerate(draw(st.lists(TEXTS, max_size=3))):
        parser = draw(st.sampled_from([None, markdown_blocks, rst_blocks, text_blocks]))
        if parser is None:
            made.append(Document(id=str(n), page_content=text, metadata={"own": {"n": n}}))
        else:
            source = Source(f"/{n}", f"/{n}", text, parser(text))
            made += split(source, RegexTokenizer(), size=draw(st.sampled_from([8, 40, 200])))
    return [with_stages(document, StageResult("retrieve", n / 7, n + 1)) for n, document in enumerate(made)]


def blank(text: str) -> bool:
    return re.fullmatch(r"[\s\ufeff]*", text) is not None


def kept_units(document: Document) -> list[Unit]:
    record = provenance(document)
    assert record.units is not None
    assert record.spans is not None
    return [unit for unit in record.units if any(start <= unit.start and unit.end <= end for start, end in record.spans)]


def assert_pruned(before: Document, after: Document) -> None:
    """`after` is `before`, shortened to whole units that are exact slices of the passage."""
    text, record = whole(before), provenance(after)
    assert record.passage == text
    assert record.spans is not None
    assert record.units is not None
    assert record.unit_scores is not None
    assert len(record.unit_scores) == len(record.units)
    assert record.units == units_of(before)
    # the shortened text is the slices, with one separator between them, and nothing else
    at = end_before = 0
    for number, (start, end) in enumerate(record.spans):
        assert end_before <= start < end <= len(text)
        if number:
            assert after.page_content[at] == ("\n" if re.search("[\r\n]", text[end_before:start]) else " ")
            at += 1
        assert after.page_content[at : at + end - start] == text[start:end]
        at, end_before = at + end - start, end
    assert at == len(after.page_content)
    # a span holds kept units and white space, nothing that was dropped
    for start, end in record.spans:
        rest = start
        for unit in kept_units(after):
            if start <= unit.start < end:
                assert blank(text[rest : unit.start])
                rest = unit.end
        assert rest == end
    # the rest of the document is as it was
    assert after.id == before.id
    assert {**after.metadata, "ragkit": 0} == {**before.metadata, "ragkit": 0}
    earlier = provenance(before)
    assert record.stages[:-1] == earlier.stages
    assert record.stages[-1][:2] == ("prune", None)
    fields = ("source", "start", "end", "headings", "lines", "pages")
    assert [getattr(record, field) for field in fields] == [getattr(earlier, field) for field in fields]
    json.dumps(after.metadata, allow_nan=False)


def assert_all_pruned(before: list[Document], after: list[Document]) -> None:
    position = 0
    for rank, document in enumerate(after, 1):
        while before[position].id != document.id or whole(before[position]) != whole(document):
            position += 1
        assert_pruned(before[position], document)
        assert provenance(document).stages[-1].rank == rank
        position += 1


@pytest.mark.parametrize("scorer", ["dense", "bm25"])
@given(documents=passages(), query=QUERIES, threshold=st.sampled_from([0.0, 0.3, 0.7, 1.0]), empties=st.booleans())
@settings(max_examples=150, deadline=None)
def test_kept_text_is_verbatim(
    make_encoder: Any, scorer: Any, documents: list[Document], query: str, threshold: float, empties: bool
) -> None:
    pruner = ExtractivePruner(scorer=scorer, encoder=make_encoder(), threshold=threshold, drop_empty=not empties)
    before = copy.deepcopy(documents)
    found = pruner.compress_documents(documents, query)
    assert documents == before
    assert_all_pruned(before, found)
    if empties:
        assert [document.id for document in found] == [document.id for document in before]
    else:
        assert all(document.page_content for document in found)
    if not query:
        assert all(not document.page_content for document in found)


@given(documents=passages(), queries=st.tuples(QUERIES, QUERIES, QUERIES), threshold=st.sampled_from([0.0, 0.5]))
@settings(max_examples=150, deadline=None)
def test_pruning_again_only_takes_away(
    make_encoder: Any, documents: list[Document], queries: tuple[str, ...], threshold: float
) -> None:
    pruner = ExtractivePruner(encoder=make_encoder(), threshold=threshold, drop_empty=False)
    before = documents
    for query in queries:
        after = pruner.compress_documents(before, query)
        assert_all_pruned(before, after)
        for old, new, original in zip(before, after, documents, strict=True):
            assert whole(new) == original.page_content
            assert provenance(new).units == units_of(original)
            if provenance(old).spans is not None:
                assert set(kept_units(new)) <= set(kept_units(old))
        before = after


@given(documents=passages(), query=QUERIES, thresholds=st.tuples(st.floats(0, 1), st.floats(0, 1)))
@settings(max_examples=150, deadline=None)
def test_a_higher_threshold_keeps_a_part(
    make_encoder: Any, documents: list[Document], query: str, thresholds: tuple[float, float]
) -> None:
    low, high = (
        ExtractivePruner(encoder=make_encoder(), threshold=threshold, drop_empty=False).compress_documents(documents, query)
        for threshold in sorted(thresholds)
    )
    for generous, strict in zip(low, high, strict=True):
        assert set(kept_units(strict)) <= set(kept_units(generous))


@given(documents=passages(), query=QUERIES, least=st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_min_sentences_keeps_the_best_of_each_document(
    make_encoder: Any, documents: list[Document], query: str, least: int
) -> None:
    pruner = ExtractivePruner(encoder=make_encoder(), threshold=1.0, min_sentences=least, drop_empty=False)
    found = pruner.compress_documents(documents, query)
    assert_all_pruned(documents, found)
    for document in found:
        record, kept = provenance(document), kept_units(document)
        assert record.units is not None
        assert record.unit_scores is not None
        assert len(kept) >= min(least, len(record.units))
        scores = dict(zip(record.units, record.unit_scores, strict=True))
        left_out = [scores[unit] for unit in record.units if unit not in kept]
        assert max(left_out, default=0.0) <= min((scores[unit] for unit in kept), default=1.0)


def test_a_dropped_sentence_stays_dropped_between_two_that_stay() -> None:
    text = "One red fish. Two blue. Three red fish."
    first = Marked().compress_documents([Document(id="a", page_content=text)], "red")
    for query, scores in (("fish", (1, 0, 1)), ("fish", (1, 0, 1)), ("r", (1, 0, 2))):
        (again,) = first = Marked().compress_documents(first, query)
        assert again.page_content == "One red fish. Three red fish."
        assert provenance(again).spans == ((0, 13), (24, 39))
        assert provenance(again).unit_scores == scores
    (least,) = Marked(min_sentences=3).compress_documents(first, "nothing")
    assert least.page_content == "One red fish. Three red fish."


def test_neighbours_become_one_slice_and_gaps_one_separator() -> None:
    text = "A kiwi.  A kiwi too.\nNone here. A kiwi.\n\nNothing.\n\nA kiwi at last."
    (document,) = Marked().compress_documents([Document(page_content=text)], "kiwi")
    assert document.page_content == "A kiwi.  A kiwi too.\nA kiwi.\nA kiwi at last."


def test_documents_of_which_nothing_is_kept() -> None:
    documents = [Document(id=str(n), page_content=text) for n, text in enumerate(["a pear", "a fig", "", " \n"])]
    (kept,) = Marked().compress_documents(documents, "fig")
    assert (kept.id, kept.page_content) == ("1", "a fig")
    assert provenance(kept).stages == (StageResult("prune", None, 1),)
    empty, kept, *blanks = Marked(drop_empty=False).compress_documents(documents, "fig")
    assert [document.page_content for document in (empty, kept, *blanks)] == ["", "a fig", "", ""]
    assert provenance(empty).spans == ()
    assert whole(empty) == "a pear"
    assert [provenance(document).units for document in blanks] == [(), ()]
    # even then it can be pruned again
    assert Marked(min_sentences=1).compress_documents([empty, *blanks], "pear") == []


def test_duplicates_survive() -> None:
    documents = [Document(id=name, page_content="A fig.") for name in "aab"]
    assert [document.id for document in Marked().compress_documents(documents, "fig")] == ["a", "a", "b"]
    assert len(Marked().compress_documents([Document(page_content="A fig.")] * 2, "fig")) == 2


def test_a_huge_sentence_is_one_unit() -> None:
    huge = "fig " * 25_000
    text = f"A plum. {huge.strip()}. A pear."
    (document,) = Marked().compress_documents([Document(page_content=text)], "plum")
    assert len(document.page_content) < 9_000 or document.page_content.startswith("A plum. fig")
    assert_pruned(Document(id=document.id, page_content=text), document)


async def test_every_door_leads_to_the_same_result(make_encoder: Any) -> None:
    pruner = ExtractivePruner(encoder=make_encoder(), threshold=0.4)
    inputs: list[Any] = [
        {"documents": [Document(id=str(n), page_content=PIECES[n]) for n in chosen], "query": query}
        for chosen, query in (((0, 1, 2), "apple"), ((), "pear"), ((4, 7), ""), ((14, 15), "fig"), ((9, 10, 0), "plum fig"))
    ]
    expected = [pruner.compress_documents(**value) for value in inputs]
    assert any(expected)
    assert [await pruner.acompress_documents(**value) for value in inputs] == expected
    assert [pruner.invoke(value) for value in inputs] == expected
    assert pruner.batch(inputs) == expected
    assert await pruner.abatch(inputs) == expected
    assert pruner.process([]) == []


def test_inside_langchains_contextual_compression_retriever() -> None:
    found = [Document(page_content="A kiwi. A pear.", metadata={"relevance_score": 0.25, "page": 3})]
    retriever = ContextualCompressionRetriever(base_compressor=Marked(), base_retriever=Canned(found=found))
    (document,) = retriever.invoke("pear")
    assert document.page_content == "A pear."
    assert document.metadata["relevance_score"] == 0.25
    assert document.metadata["page"] == 3


def test_wrong_fields_are_refused() -> None:
    for wrong in ({"min_sentences": -1}, {"threshold": 1.5}, {"threshold": -0.1}, {"scorer": "tfidf"}, {"treshold": 0.5}):
        with pytest.raises(ValidationError):
            ExtractivePruner(**wrong)
    with pytest.raises(InputError, match="documents must be LangChain Documents, not str"):
        Marked().invoke({"documents": ["text"], "query": "q"})  # type: ignore[list-item]
