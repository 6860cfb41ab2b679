"""The promise of the whole chain: every span of every passage and kept sentence is the slice of the source it claims to be."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit import ExtractivePruner, HybridRetriever, ProvencePruner, Store, index_paths, provenance
from ragkit.store.store import bm25_and_dense

WORDS = [
    "apple",
    "Straße",
    "naïve",
    "日本語の文章。",
    "مرحبا",
    "e\u0301",
    "😀",
    "👩‍👩‍👧",
    "\u200b",
    "x" * 60,
    "Dr.",
    "3.5",
    "end.",
    "Why?",
]
LINE = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
PIECE = st.one_of(
    LINE,
    LINE.map(lambda line: f"# {line}"),
    LINE.map(lambda line: f"## {line} {{ #anchor }}"),
    LINE.map(lambda line: f"{line}\n---"),
    st.lists(LINE, min_size=1, max_size=4).map(lambda lines: "\n".join(f"* {line}" for line in lines)),
    st.lists(LINE, min_size=1, max_size=4).map(lambda lines: "```python\n" + "\n".join(lines) + "\n```"),
    LINE.map(lambda line: f"```\n{line}"),
    st.lists(LINE, min_size=1, max_size=3).map(lambda lines: "| a | b |\n|---|---|\n" + "\n".join(f"| {x} | y |" for x in lines)),
    LINE.map(lambda line: f"    {line}"),
    LINE.map(lambda line: f"> {line}\n> {line}"),
    st.sampled_from(["", "\t", "\f", "<b>html</b>", "[link]: http://x", "***", "\ufeff"]),
)
BREAK = st.sampled_from(["\n\n", "\r\n\r\n", "\n", "\r", "\r\n", "\u2028", "\n\n\n"])
TEXT = st.lists(st.tuples(PIECE, BREAK), min_size=1, max_size=10).map(lambda parts: "".join(a + b for a, b in parts))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(TEXT, st.sampled_from([".md", ".txt", ".rst", ".html"])), min_size=1, max_size=3),
    st.sampled_from([16, 60]),
    st.sampled_from([0, 5]),
    st.floats(0, 1),
    st.one_of(st.none(), st.integers(1, 80)),
    st.booleans(),
)
def test_every_span_is_its_slice(
    make_encoder: Any, make_provence: Any, texts: Any, size: int, overlap: int, threshold: float, budget: Any, trained: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        decoded = {}
        for n, (text, suffix) in enumerate(texts):
            path = Path(name) / f"{n}{suffix}"
            path.write_bytes(text.encode("utf-8"))
            decoded[str(path)] = text
        store = Store.memory(bm25_and_dense(make_encoder()))
        index_paths(store, [name], size=size, overlap=overlap)
        for source in store.snapshot.corpus.sources():
            if source.endswith(".html"):
                decoded[source] = store.snapshot.corpus.source_text(source) or ""
            else:
                assert store.snapshot.corpus.source_text(source) == decoded[source]
        corpus = store.snapshot.corpus
        for document in corpus.documents(corpus.all_positions()):
            record = provenance(document)
            assert document.page_content == decoded[str(record.source)][record.start : record.end]

        pruner = (
            ProvencePruner(model=make_provence(max_length=24), threshold=threshold, keep_title=True, max_tokens=budget)
            if trained
            else ExtractivePruner(encoder=make_encoder(), threshold=threshold)
        )
        pipeline = HybridRetriever(store=store, k=5) >> pruner
        context = pipeline.ground("apple Why? 日本語", max_tokens=budget)
        shown: dict[str, list[tuple[int, int]]] = {}
        for number, passage in enumerate(context.passages, 1):
            assert passage.n == number
            text = decoded[passage.source]
            assert passage.spans == tuple(sorted(passage.spans))
            position = 0
            for start, end in passage.spans:
                position = passage.text.index(text[start:end], position) + (end - start)
            for sentence in passage.sentences:
                citation = sentence.citation
                assert citation.text == text[citation.start : citation.end]
                assert any(start <= citation.start and citation.end <= end for start, end in passage.spans)
                assert (citation.start, citation.end) not in shown.setdefault(passage.source, [])
                shown[passage.source].append((citation.start, citation.end))
                if passage.source.endswith((".md", ".txt", ".rst")):
                    assert citation.line == 1 + text.count("\n", 0, citation.start)
        if budget is not None:
            tokenizer = store.tokenizer
            assert len(tokenizer.starts([context.text])[0]) <= budget
