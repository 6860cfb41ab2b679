"""Grounding: numbering, duplicates, budget, citations, extractive answers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit import InputError, extractive_answer
from ragkit.chains.grounding import ground
from ragkit.documents.model import Unit
from ragkit.documents.provenance import Provenance, with_provenance
from ragkit.documents.tokens import RegexTokenizer, count_tokens

TOKENIZER = RegexTokenizer()


def passage(id: str, text: str, start: int = 0, source: str | None = "f.md", **record: Any) -> Document:
    base = Document(id=id, page_content=text, metadata={"relevance_score": 1.0})
    return with_provenance(base, Provenance(source=source, start=start, end=start + len(text), **record))


def scored(id: str, sentences: list[str], scores: list[float]) -> Document:
    text, units = "", []
    for sentence in sentences:
        units.append(Unit(len(text), len(text) + len(sentence)))
        text += sentence + " "
    return passage(id, text.strip(), source=f"{id}.md", units=tuple(units), unit_scores=tuple(scores))


def test_numbers_follow_rank_and_citations_resolve() -> None:
    context = ground("q", [passage("a", "One. Two.", start=7), passage("b", "Three.", start=100)], TOKENIZER)
    assert [(p.n, p.id) for p in context.passages] == [(1, "a"), (2, "b")]
    assert [(c.n, c.start, c.end, c.text) for c in context.citations] == [
        (1, 7, 11, "One."),
        (1, 12, 16, "Two."),
        (2, 100, 106, "Three."),
    ]
    assert context.cite(2) == context.citations[2:]
    assert context.cite(9) == ()
    assert context.text == "[1] f.md\nOne. Two.\n\n[2] f.md\nThree."


def test_overlapping_passages_show_their_common_text_once() -> None:
    whole = "One. Two. Three."
    context = ground("q", [passage("a", whole[:9]), passage("b", whole[5:], start=5), passage("a2", whole[:4])], TOKENIZER)
    assert [c.text for c in context.citations] == ["One.", "Two.", "Three."]
    assert len(context.passages) == 2


def test_same_document_twice_is_shown_once() -> None:
    plain = Document(id="x", page_content="Plain text.")
    assert len(ground("q", [plain, plain, Document(page_content="Plain text.")], TOKENIZER).passages) == 2


def test_plain_documents_cite_themselves() -> None:
    [citation] = ground("q", [Document(id="x", page_content="Plain text.")], TOKENIZER).citations
    assert (citation.source, citation.start, citation.end) == ("x", 0, 11)


def test_budget_takes_whole_sentences_best_first_in_original_order() -> None:
    documents = [scored("a", ["Low one.", "Best of all."], [0.1, 0.9]), scored("b", ["Good too.", "Bad."], [0.8, 0.0])]
    everything = ground("q", documents, TOKENIZER)
    cost = count_tokens(TOKENIZER, [everything.text])[0]
    assert ground("q", documents, TOKENIZER, max_tokens=cost).text == everything.text
    less = ground("q", documents, TOKENIZER, max_tokens=cost - 1)
    assert [c.text for c in less.citations] == ["Low one.", "Best of all.", "Good too."]
    label = count_tokens(TOKENIZER, ["[1] a.md\n"])[0]
    one = ground("q", documents, TOKENIZER, max_tokens=label + count_tokens(TOKENIZER, ["Best of all."])[0])
    assert [c.text for c in one.citations] == ["Best of all."]
    assert ground("q", documents, TOKENIZER, max_tokens=1).passages == ()


@given(st.lists(st.lists(st.tuples(st.text("ab .", max_size=30), st.floats(0, 1)), max_size=4), max_size=4), st.integers(1, 60))
def test_budget_is_never_exceeded(documents: Any, budget: int) -> None:
    made = [
        scored(str(n), [text.strip() or "x" for text, _ in units], [score for _, score in units])
        for n, units in enumerate(documents)
        if units
    ]
    context = ground("q", made, TOKENIZER, max_tokens=budget)
    assert count_tokens(TOKENIZER, [context.text])[0] <= budget
    assert [p.n for p in context.passages] == list(range(1, len(context.passages) + 1))


@pytest.mark.parametrize("bound", ["max_tokens", "max_passages"])
def test_bounds_must_be_positive(bound: str) -> None:
    with pytest.raises(InputError, match=bound):
        ground("q", [], TOKENIZER, **{bound: 0})


def test_nothing_found_abstains() -> None:
    context = ground("q", [], TOKENIZER)
    assert (context.text, context.tokens_retrieved, context.tokens_kept) == ("", 0, 0)
    answer = extractive_answer(context)
    assert answer.abstained
    assert (answer.text, answer.citations) == ("", ())


def test_extractive_answer_takes_the_best_prose_in_reading_order() -> None:
    text = "# Heading\n\nLow. High. Middle."
    units = (Unit(0, 9, "heading"), Unit(11, 15), Unit(16, 21), Unit(22, 29))
    document = passage("a", text, units=units, unit_scores=(0.99, 0.1, 0.9, 0.5))
    answer = extractive_answer(ground("q", [document], TOKENIZER), max_sentences=2)
    assert answer.text == "High. [1] Middle. [1]"
    assert not answer.abstained
    only_heading = passage("b", "# Heading", units=(Unit(0, 9, "heading"),))
    assert extractive_answer(ground("q", [only_heading], TOKENIZER)).text == "# Heading [1]"


def test_html_and_json_are_safe_and_complete() -> None:
    context = ground("<script>alert(1)</script>?", [passage("a", "Text with <b>markup</b> & more.")], TOKENIZER)
    page = context.to_html()
    assert "<script" not in page
    assert "&lt;b&gt;markup" in page
    assert json.loads(json.dumps(context.to_json()))["passages"][0]["text"] == "Text with <b>markup</b> & more."
