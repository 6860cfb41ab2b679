"""What ragkit keeps in a document's metadata: there and back, and where in the file a passage is."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from bisect import bisect_right
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit import InputError
from ragkit.documents.blocks import text_blocks
from ragkit.documents.model import Mark, Source, Unit
from ragkit.documents.provenance import (
    Provenance,
    StageResult,
    content_id,
    ensure_id,
    origin,
    passage_text,
    provenance,
    reanchored,
    with_provenance,
    with_stages,
)
from ragkit.documents.split import split
from ragkit.documents.tokens import RegexTokenizer

NATURALS = st.integers(0, 10**9)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
MARKS = st.lists(st.builds(Mark, NATURALS, NATURALS)).map(tuple)
RECORDS = st.builds(
    Provenance,
    source=st.none() | TEXT,
    start=NATURALS,
    end=st.none() | NATURALS,
    headings=st.lists(TEXT).map(tuple),
    lines=MARKS,
    pages=MARKS,
    units=st.none()
    | st.lists(st.builds(Unit, NATURALS, NATURALS, st.sampled_from(["text", "heading", "code", "row"]))).map(tuple),
    stages=st.lists(st.builds(StageResult, TEXT, st.none() | FLOATS, NATURALS)).map(tuple),
    passage=st.none() | TEXT,
    spans=st.none() | st.lists(st.tuples(NATURALS, NATURALS)).map(tuple),
    unit_scores=st.none() | st.lists(FLOATS).map(tuple),
)


@given(RECORDS)
def test_a_record_survives_json(record: Provenance) -> None:
    data = json.loads(json.dumps(record.to_json(), allow_nan=False))
    back = Provenance.from_json(data)
    assert back == record
    assert hash(back) == hash(record)
    for mine, its in ((record.lines, back.lines), (record.units, back.units), (record.stages, back.stages)):
        assert [type(item) for item in mine or ()] == [type(item) for item in its or ()]
    assert back.to_json() == data


@pytest.mark.parametrize("wrong", [{"units": 3}, {"units": [[1]]}, {"stages": ["abcd"]}, {"spans": [[1, 2, 3]]}, {"headings": 7}])
def test_a_record_of_another_shape_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"metadata\['ragkit'\]"):
        provenance(Document("text", metadata={"ragkit": wrong}))


def test_defaults_take_no_room() -> None:
    assert Provenance().to_json() == {}
    assert Provenance(spans=(), units=(), passage="").to_json() == {"spans": [], "units": [], "passage": ""}


@given(RECORDS, RECORDS)
def test_a_document_carries_its_record(first: Provenance, second: Provenance) -> None:
    document = Document(id="a", page_content="text", metadata={"own": {"deep": [1]}, "relevance_score": 2})
    before = copy.deepcopy(document)
    once = with_provenance(document, first)
    kept = copy.deepcopy(once)
    twice = with_provenance(once, second, passage="whole")
    assert (document, once) == (before, kept)
    assert Provenance.from_json(once.metadata["ragkit"]) == first
    assert Provenance.from_json(twice.metadata["ragkit"]).passage == "whole"
    assert twice.metadata["own"] == {"deep": [1]}
    assert twice.metadata["relevance_score"] == 2
    place = origin(Provenance.from_json(twice.metadata["ragkit"]))
    fields = ("source", "start", "end", "headings", "lines", "pages", "units")
    assert [getattr(place, field) for field in fields] == [getattr(second, field) for field in fields]
    assert (place.stages, place.passage, place.spans, place.unit_scores) == ((), None, None, None)


def test_a_strangers_document_has_an_empty_record() -> None:
    for metadata in ({}, {"ragkit": {}}, {"ragkit": None}, {"other": 1}):
        assert provenance(Document(page_content="x", metadata=metadata)) == Provenance()


def test_the_last_score_that_is_one_is_the_relevance_score() -> None:
    document = Document(id="a", page_content="x")
    scored = with_stages(document, StageResult("bm25", 1.5, 1), StageResult("dense", 0.0, 2), StageResult("prune", None, 3))
    assert scored.metadata["relevance_score"] == 0.0
    again = with_stages(scored, StageResult("rerank", None, 1))
    assert again.metadata["relevance_score"] == 0.0
    assert [stage.stage for stage in provenance(again).stages] == ["bm25", "dense", "prune", "rerank"]
    assert "relevance_score" not in document.metadata
    assert "relevance_score" not in with_stages(document, StageResult("rerank", None, 1)).metadata


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 99)), unique_by=lambda mark: mark[0]).map(sorted),
    st.text("ab\n", max_size=40),
)
def test_lines_and_pages_are_counted_from_the_last_mark(marks: list[tuple[int, int]], text: str) -> None:
    record = Provenance(lines=tuple(Mark(*mark) for mark in marks), pages=tuple(Mark(*mark) for mark in marks))
    line: int | None = None
    page: int | None = None
    starts = dict(marks)
    for offset in range(len(text) + 1):
        if line is not None and offset and text[offset - 1] == "\n":
            line += 1
        if offset in starts:
            line = page = starts[offset]
        assert record.line(offset, text) == line
        assert record.page(offset) == page
    assert Provenance().line(3, text) is Provenance().page(3) is None


@given(
    st.lists(st.sampled_from(["One. ", "Two words.", "\n", "\r\n", "\n\n", "| a |\n|--|\n", "日本。"]), max_size=30).map("".join),
    st.lists(st.integers(1, 60), max_size=3, unique=True).map(sorted),
)
@settings(max_examples=150, deadline=None)
def test_every_character_of_a_split_source_knows_its_line_and_page(text: str, breaks: list[int]) -> None:
    pages = [0, *breaks]
    marks = tuple(Mark(offset, number) for number, offset in enumerate(pages, 1))
    for document in split(Source("/f", "/f", text, text_blocks(text), pages=marks), RegexTokenizer(), size=8):
        record = provenance(document)
        for offset in range(len(document.page_content)):
            place = record.start + offset
            assert record.line(offset, document.page_content) == 1 + text[:place].count("\n")
            assert record.page(offset) == bisect_right(pages, place)


def test_an_id_that_is_there_is_kept() -> None:
    for id_ in ("a", ""):
        document = Document(id=id_, page_content="x")
        assert ensure_id(document) is document


def test_an_id_is_made_of_text_and_metadata() -> None:
    def made(text: str, **metadata: Any) -> str | None:
        return ensure_id(Document(page_content=text, metadata=metadata)).id

    assert made("x", a=1, b=[2]) == made("x", b=[2], a=1)
    distinct = [made("x"), made("y"), made("x", a=1), made("x", a="1"), made("x", b=1), made("x", a=[1]), made("")]
    assert len(set(distinct)) == len(distinct)
    assert made("x", path=Path("/p")) == made("x", path=Path("/p")) != made("x", path=Path("/q"))
    assert made("\ud800") != made("\ud801")


def test_an_id_is_the_same_in_every_process() -> None:
    code = "from ragkit.documents.provenance import content_id; print(content_id('日本', {'b': 1, 'a': None}, 0))"
    for seed in ("1", "2"):
        printed = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        assert printed.stdout.strip() == content_id("日本", {"a": None, "b": 1}, 0)


def test_a_record_that_no_longer_fits_the_text_is_left_out() -> None:
    passage, record = "One. Two. Three.", Provenance(source="f", start=5, end=21, headings=("A",))
    whole = with_provenance(Document(id="a", page_content=passage), record)
    pruned = with_provenance(Document(id="a", page_content="One. Three."), record, passage=passage, spans=((0, 4), (10, 16)))
    assert provenance(whole) == record
    assert provenance(pruned).passage == passage_text(pruned) == passage
    for document in (whole, pruned):
        changed = Document(id="a", page_content="Something else", metadata=document.metadata)
        assert provenance(changed) == Provenance(headings=("A",), rewritten=True)
        assert passage_text(changed) == "Something else"


@given(st.text("ab. \n", min_size=1, max_size=30), st.integers(0, 30), st.integers(0, 30))
def test_a_slice_is_anchored_where_it_was(text: str, first: int, second: int) -> None:
    start, end = sorted((min(first, len(text)), min(second, len(text))))
    before = with_provenance(Document(id="a", page_content=text), Provenance(source="f", start=7, end=7 + len(text)))
    after = Document(id="a", page_content=text[start:end], metadata=before.metadata)
    record = provenance(reanchored(before, after))
    [(at, to)] = record.spans or ((0, len(text)),)
    assert record.source == "f"
    assert text[at:to] == text[start:end]


def test_rewritten_text_is_its_own_source() -> None:
    before = with_provenance(Document(id="a", page_content="One. Two."), Provenance(source="f", end=9))
    after = Document(id="a", page_content="A summary", metadata=before.metadata)
    assert provenance(reanchored(before, after)) == Provenance(rewritten=True)
