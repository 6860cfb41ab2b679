"""Long units are slices of their sources, cut the same way for every question."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit import BM25Retriever, Pipeline, Store, bm25_and_dense, index_paths, provenance
from ragkit.corpus.changes import SourceText
from ragkit.documents.provenance import Provenance, with_provenance
from ragkit.documents.tokens import count_tokens
from ragkit.retrievers.long_units import LongUnitRetriever, packed

RNG = np.random.default_rng(2)
WORDS = [f"word{n}" for n in range(40)]


def prose(sentences: int) -> str:
    return " ".join(" ".join(RNG.choice(WORDS, size=8)).capitalize() + "." for _ in range(sentences))


FILES = {
    "long.md": "# Pumps\n\n" + "\n\n".join(f"## Part {n}\n\n{prose(6)}" for n in range(9)) + "\n",
    "plain.txt": "\n\n".join(prose(4) for _ in range(12)),
    "short.txt": "word1 word2 word3. The end.",
}
QUERIES = ["word1 word2", "word3", "word39 word0 unheard"]


@pytest.fixture(params=[0, 20])
def store(request: Any, tmp_path: Path, make_encoder: Any) -> Store:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    store = Store.memory(bm25_and_dense(make_encoder()))
    index_paths(store, [tmp_path], size=60, overlap=request.param)
    return store


async def test_units_are_slices_of_at_most_size_tokens(store: Store) -> None:
    inner = BM25Retriever(store=store)
    retriever = LongUnitRetriever(retriever=inner, size=250, aggregation="sum", k=4)
    seen: dict[str, set[tuple[int, int]]] = {}
    for query in QUERIES:
        passages = inner.invoke(query, k=100)
        found = retriever.invoke(query)
        assert [(d.id, d.page_content, d.metadata) for d in found] == [
            (d.id, d.page_content, d.metadata) for d in await retriever.ainvoke(query)
        ]
        for document in found:
            record = provenance(document)
            assert record.source is not None
            assert record.end is not None
            text = FILES[Path(record.source).name]
            assert document.page_content == text[record.start : record.end]
            assert count_tokens(store.tokenizer, [document.page_content])[0] <= 250
            seen.setdefault(record.source, set()).add((record.start, record.end))
            inside = [
                p
                for p in passages
                if provenance(p).source == record.source
                and record.start <= provenance(p).start
                and (provenance(p).end or 0) <= record.end
            ]
            assert document.metadata["relevance_score"] == pytest.approx(sum(p.metadata["relevance_score"] for p in inside))
            assert [result.stage for result in record.stages] == ["bm25", "long-units"]
            assert record.units
            for unit in record.units:
                piece = document.page_content[unit.start : unit.end]
                assert piece == piece.strip()
                assert piece
                assert record.line(unit.start, document.page_content) == text.count("\n", 0, record.start + unit.start) + 1
            covered = "".join(document.page_content[unit.start : unit.end] for unit in record.units)
            assert "".join(covered.split()) == "".join(document.page_content.split())
        scores = [document.metadata["relevance_score"] for document in found]
        assert scores == sorted(scores, reverse=True)
    # whatever the question, the units are the same; they overlap no more than the passages do
    assert max(map(len, seen.values())) > 1
    for spans in seen.values():
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(sorted(spans)))


def test_one_unit_for_a_whole_source(store: Store) -> None:
    retriever = LongUnitRetriever(retriever=BM25Retriever(store=store), size=100_000)
    found = {Path(provenance(d).source or "").name: d for d in retriever.invoke("word1 word2 word3 word4")}
    assert set(found) == set(FILES)
    assert found["plain.txt"].page_content == FILES["plain.txt"]
    assert provenance(found["long.md"]).headings == ("Pumps",)
    one = LongUnitRetriever(retriever=BM25Retriever(store=store), size=1, k=3)
    best = one.invoke("word1 word2")
    assert [d.id for d in best] == [d.id for d in BM25Retriever(store=store, k=3).invoke("word1 word2")]


def test_what_does_not_pass_the_filter_is_in_no_unit(make_encoder: Any) -> None:
    text = "word one. word two. secret word. word four. word five."
    spans = [(0, 9), (10, 19), (20, 32), (33, 43), (44, 54)]
    store = Store.memory(bm25_and_dense(make_encoder()))
    documents = [
        with_provenance(
            Document(id=str(n), page_content=text[a:b], metadata={"open": n != 2}), Provenance(source="s", start=a, end=b)
        )
        for n, (a, b) in enumerate(spans)
    ]
    store.upsert(documents[::-1])
    inner = BM25Retriever(store=store)
    # without the source's text there is nothing to slice
    found = LongUnitRetriever(retriever=inner, size=100).invoke("word")
    assert len(found) == 1
    assert found[0].page_content in {text[a:b] for a, b in spans}
    with store.write() as draft:
        draft.replace_sources({"s": [SourceText("s", "digest", text)]})
    assert [d.page_content for d in LongUnitRetriever(retriever=inner, size=100).invoke("word")] == [text]
    for retriever, filter in [
        (LongUnitRetriever(retriever=inner, size=100), {"open": True}),
        (LongUnitRetriever(retriever=inner, size=100, filter={"open": True}), None),
        (LongUnitRetriever(retriever=BM25Retriever(store=store, filter={"open": True}), size=100), None),
    ]:
        shown = [d.page_content for d in retriever.invoke("word", filter=filter)]
        assert sorted(shown) == ["word four. word five.", "word one. word two."]


def test_documents_without_a_source_are_units(make_encoder: Any) -> None:
    retriever = LongUnitRetriever.from_texts(["one fish", "two fish"], encoder=make_encoder())
    assert {d.page_content for d in retriever.invoke("fish")} == {"one fish", "two fish"}
    assert [len(found) for found in retriever.batch(["fish", " "])] == [2, 0]


def test_goes_into_a_pipeline(store: Store) -> None:
    context = Pipeline(retriever=LongUnitRetriever(store=store, size=200), k=2, max_tokens=120).ground("word1 word2")
    assert context.passages
    assert context.tokens_kept <= 120


@given(st.lists(st.integers(0, 12), max_size=30), st.integers(1, 15))
def test_packs_are_as_large_as_they_can_be(sizes: list[int], most: int) -> None:
    packs = packed(range(len(sizes)), sizes, most)
    assert [item for pack in packs for item in pack] == list(range(len(sizes)))
    totals = [sum(sizes[item] for item in pack) for pack in packs]
    assert all(total <= most or len(pack) == 1 for total, pack in zip(totals, packs, strict=True))
    assert all(sum(sizes[item] for item in (*pack, after[0])) > most for pack, after in pairwise(packs))
