"""Orders of passages, against plain references; what is kept, and what answers rest on, does not depend on them."""

from collections import deque
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit import BM25Retriever, GroundedContext, InputError, Pipeline, extractive_answer
from ragkit.chains.claims import claims_of
from ragkit.chains.grounding import ground
from ragkit.chains.markers import MarkerStream
from ragkit.chains.ordering import Order, best_at_ends, best_first, best_last, by_source, shown_order
from ragkit.documents.model import Unit
from ragkit.documents.provenance import Provenance, with_provenance
from ragkit.documents.tokens import RegexTokenizer, count_tokens
from ragkit.encoders.lexical import Analyzer

TOKENIZER = RegexTokenizer()
ORDERS: tuple[Order, ...] = get_args(Order)


def passage(source: str, start: int, sentences: list[str], scores: list[float] | None = None, **record: Any) -> Document:
    text, units = "", []
    for sentence in sentences:
        units.append(Unit(len(text), len(text) + len(sentence), "heading" if sentence.startswith("#") else "text"))
        text += sentence + " "
    text = text.strip()
    found = Provenance(
        source=source,
        start=start,
        end=start + len(text),
        units=tuple(units),
        unit_scores=None if scores is None else tuple(scores),
        **record,
    )
    return with_provenance(Document(id=f"{source} {start}", page_content=text), found)


def ids(context: GroundedContext) -> list[str]:
    return [passage.id for passage in context.passages]


@given(st.integers(0, 40))
def test_orders_by_relevance(count: int) -> None:
    assert best_first(count) == sorted(range(count))
    assert best_last(count) == sorted(range(count), reverse=True)
    ends = best_at_ends(count)
    from_the_middle: deque[int] = deque()
    for rank in reversed(range(count)):
        (from_the_middle.append if rank % 2 else from_the_middle.appendleft)(rank)
    assert ends == list(from_the_middle)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=12))
def test_sources_stay_together_in_the_order_of_their_text(places: list[tuple[str, int]]) -> None:
    order = by_source(places)
    assert sorted(order) == list(range(len(places)))
    shown = [places[rank] for rank in order]
    sources = list(dict.fromkeys(source for source, _ in places))
    assert shown == [place for source in sources for place in sorted((p for p in places if p[0] == source), key=lambda p: p[1])]


def test_an_unknown_order_is_named() -> None:
    with pytest.raises(InputError, match="order: 'random' is not known"):
        shown_order("random", [])  # type: ignore[arg-type]


DOCUMENTS = [
    passage("a.md", 40, ["Best of a.", "Rest."], [0.9, 0.2]),
    passage("b.md", 0, ["Only of b."], [0.8]),
    passage("a.md", 0, ["First of a.", "Filler text that is long."], [0.7, 0.1]),
    passage("c.md", 9, ["Only of c."], [0.6]),
]


@pytest.mark.parametrize(
    ("order", "shown"),
    [
        ("best-first", ["a.md 40", "b.md 0", "a.md 0", "c.md 9"]),
        ("best-last", ["c.md 9", "a.md 0", "b.md 0", "a.md 40"]),
        ("best-at-ends", ["a.md 40", "a.md 0", "c.md 9", "b.md 0"]),
        ("source", ["a.md 0", "a.md 40", "b.md 0", "c.md 9"]),
    ],
)
def test_numbers_follow_what_the_reader_sees(order: Order, shown: list[str]) -> None:
    context = ground("q", DOCUMENTS, TOKENIZER, order=order)
    assert ids(context) == shown
    assert [p.n for p in context.passages] == [1, 2, 3, 4]
    assert [p.id for p in context.best_first] == [document.id for document in DOCUMENTS]
    assert [c.n for c in context.citations] == sorted(c.n for c in context.citations)
    places = [context.text.index(f"[{p.n}]") for p in context.passages]
    assert places == sorted(places)
    for p in context.passages:
        assert p.text in context.text[places[p.n - 1] :]
        assert f'id="p{p.n}"' in context.to_html()


sentences = st.lists(st.tuples(st.text("ab.", min_size=1, max_size=9), st.integers(0, 9)), min_size=1, max_size=4)


@given(st.lists(st.tuples(sentences, st.sampled_from("xy"), st.integers(0, 8)), max_size=5), st.integers(1, 60))
def test_what_is_kept_does_not_depend_on_the_order(made: Any, budget: int) -> None:
    documents = [
        passage(source, start, [text for text, _ in units], [score / 9 for _, score in units]) for units, source, start in made
    ]
    documents = list({document.id: document for document in documents}.values())
    whole = [ground("q", documents, TOKENIZER, order=order) for order in ORDERS]
    spans = [sorted((p.source, span) for p in context.passages for span in p.spans) for context in whole]
    assert all(its == spans[0] for its in spans)
    for order in ORDERS:
        context = ground("q", documents, TOKENIZER, order=order, max_tokens=budget)
        assert count_tokens(TOKENIZER, [context.text])[0] <= budget


def test_the_budget_goes_to_the_best_in_every_order() -> None:
    for order in ORDERS:
        context = ground("q", DOCUMENTS, TOKENIZER, order=order, max_tokens=24)
        assert sorted(ids(context)) == ["a.md 40", "b.md 0"]


def test_text_that_two_passages_share_stays_with_the_better_one() -> None:
    text = "One. Two. Three."
    parts = [("late", text[5:], 5), ("early", text[:9], 0)]
    documents = [
        with_provenance(Document(id=id_, page_content=part), Provenance(source="f", start=start, end=start + len(part)))
        for id_, part, start in parts
    ]
    for order in ORDERS:
        context = ground("q", documents, TOKENIZER, order=order)
        assert {p.id: p.text for p in context.passages} == {"late": "Two. Three.", "early": "One."}
    assert [c.text for c in ground("q", documents, TOKENIZER, order="source").citations] == ["One.", "Two.", "Three."]


def test_answers_rest_on_the_same_sentences_in_every_order() -> None:
    documents = [Document(id=id_, page_content=f"Tea number {id_} is green. Tea is a drink.") for id_ in "stuv"]
    extracted, evidence = [], []
    for order in ORDERS:
        context = ground("What is green?", documents, TOKENIZER, order=order)
        extracted.append({citation.id for citation in extractive_answer(context, max_sentences=2).citations})
        stream = MarkerStream(4)
        text = stream.feed("Tea is a green drink.") + stream.finish()
        [claim] = claims_of(text, stream.markers, context, Analyzer())
        evidence.append({(citation.id, citation.text) for citation in claim.evidence})
        assert [citation.n for citation in claim.evidence] == sorted(citation.n for citation in claim.evidence)
    assert all(its == extracted[0] for its in extracted)
    assert all(its == evidence[0] for its in evidence)


def test_a_heading_is_shown_once() -> None:
    section = ("Guide", "Tea")
    documents = [
        passage("g.md", 0, ["# Guide", "## Tea", "Green."], headings=section),
        passage("g.md", 30, ["Black."], headings=section),
        passage("g.md", 60, ["White."], headings=("Guide", "Others")),
        passage("h.md", 0, ["# GUIDE { #top }", "Coffee."], headings=("Guide",)),
        Document(id="plain", page_content="Water is wet.", metadata={"title": "Water"}),
        Document(id="named", page_content="Milk: it is white.", metadata={"title": "Milk"}),
    ]
    assert [p.header for p in ground("q", documents, TOKENIZER).passages] == [
        "g.md",
        "",
        "g.md > Guide > Others",
        "h.md",
        "plain > Water",
        "named",
    ]
    assert [p.label for p in ground("q", documents, TOKENIZER).passages][:2] == ["g.md > Guide > Tea"] * 2
    text = ground("q", documents[:2], TOKENIZER).text
    assert text == "[1] g.md\n# Guide ## Tea Green.\n\n[2]\nBlack."
    apart = ground("q", [documents[1], documents[3], documents[0]], TOKENIZER)
    assert [p.header for p in apart.passages] == ["g.md > Guide > Tea", "h.md", "g.md"]


def test_two_documents_of_one_title_are_told_apart() -> None:
    documents = [Document(id=id_, page_content=f"Text {id_}.", metadata={"title": "T"}) for id_ in "ab"]
    assert [p.header for p in ground("q", documents, TOKENIZER).passages] == ["a > T", "b > T"]


async def test_a_pipeline_has_an_order_and_a_call_may_have_another() -> None:
    texts = ["tea tea tea", "tea tea and milk", "tea with milk and a biscuit"]
    documents = [Document(id=str(n), page_content=text) for n, text in enumerate(texts)]
    pipeline = Pipeline(retriever=BM25Retriever.from_documents(documents), order="best-last")
    ranked = [document.id for document in pipeline.invoke("tea")]
    assert ids(pipeline.ground("tea")) == ranked[::-1]
    assert ids(pipeline.ground("tea", order="best-first")) == ranked
    assert ids(await pipeline.aground("tea", order="best-first")) == ranked
    assert [ids(context) for context in await pipeline.aground_batch(["tea"], order="best-at-ends")] == [
        [ranked[0], ranked[2], ranked[1]]
    ]
    with pytest.raises(InputError, match="order: 'bogus'"):
        pipeline.ground("tea", order="bogus")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="best-at-ends"):
        Pipeline(retriever=pipeline.retriever, order="bogus")
