"""Exact search in the corpus, with and without trigrams, against brute force over the live texts of a generation."""

import random
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit.corpus import corpus as corpus_module
from ragkit.corpus import trigrams
from ragkit.corpus.corpus import Corpus
from ragkit.corpus.patterns import Pattern
from ragkit.documents.provenance import Provenance, with_provenance
from ragkit.errors import InputError, StaleSnapshotError, StoreError

ALPHABET = 'abAßsSİiı\u0307é🙂\n\0"'
TEXTS = st.text(ALPHABET, max_size=24)
IDS = st.sampled_from("pqrst")
HEADINGS = st.sampled_from([(), ("ab",), ("a", "bß")])
CHANGES = st.one_of(
    st.tuples(st.just("upsert"), IDS, TEXTS, HEADINGS),
    st.tuples(st.just("metadata"), IDS),
    st.tuples(st.just("delete"), IDS),
    st.tuples(st.just("index")),
)
HISTORIES = st.lists(
    st.tuples(st.lists(CHANGES, max_size=6), st.sampled_from(["publish", "publish", "lose", "crash"])), max_size=6
)
PATTERNS = st.one_of(
    st.builds(Pattern, st.text(ALPHABET, min_size=1, max_size=6), st.booleans()),
    st.builds(
        Pattern,
        st.sampled_from(["aba?b", "abs|iß", "[ab]ss", "(ab)+s", "a.b", "^ab", "ab{2}s", "iıi", "\\bab", "bas|x"]),
        st.booleans(),
        st.just(True),
    ),
)


def documents(corpus: Corpus) -> dict[int, str]:
    positions = corpus.all_positions()
    return {int(p): d.page_content for p, d in zip(positions, corpus.documents(positions), strict=True)}


def check(corpus: Corpus, pattern: Pattern) -> None:
    texts = documents(corpus)
    expected = [(position, spans) for position, text in texts.items() if (spans := pattern.spans(text))]
    assert list(corpus.find(pattern)) == expected
    odd = np.array([position for position in texts if position % 2], np.int64)
    assert list(corpus.find(pattern, odd)) == [(position, spans) for position, spans in expected if position % 2]


def change(corpus: Corpus, kind: str, *arguments: Any) -> None:
    if kind == "upsert":
        id_, text, headings = arguments
        document = with_provenance(Document(id=id_, page_content=text), Provenance(headings=headings))
        corpus.apply(corpus.plan([document]))
    elif kind == "metadata":
        changed = [
            Document(id=d.id, page_content=d.page_content, metadata={**d.metadata, "n": d.metadata.get("n", 0) + 1})
            for d in corpus.get(arguments)
        ]
        corpus.apply(corpus.plan(changed))
    elif kind == "delete":
        corpus.delete(arguments)
    else:
        corpus.index_trigrams()


@settings(max_examples=15, deadline=None)
@given(HISTORIES, st.lists(PATTERNS, min_size=1, max_size=8))
def test_any_history_equals_brute_force(tmp_path_factory: Any, histories: Any, patterns: list[Pattern]) -> None:
    path = tmp_path_factory.mktemp("corpus") / "corpus.sqlite"
    Corpus(path, 1, writable=True).close()
    published, readers = 0, []
    for changes, end in histories:
        writer = Corpus(path, published + 1, writable=True)
        writer.discard_after(published)
        for entry in changes:
            change(writer, *entry)
        if end != "lose":
            writer.seal(published)
            for stale in readers[:-1]:
                stale.close()
            readers = readers[-1:]
        if end == "publish":
            published += 1
            readers.append(Corpus(path, published))
        writer.close()
        for reader in readers:
            for pattern in patterns:
                check(reader, pattern)
    with sqlite3.connect(path) as db:
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'trigrams'").fetchone():
            db.execute("INSERT INTO trigrams (trigrams) VALUES ('integrity-check')")
    db.close()
    for reader in readers:
        reader.close()


def indexed(path: Path, texts: list[str], generation: int = 1) -> Corpus:
    corpus = Corpus(path / "corpus.sqlite", generation, writable=True)
    corpus.index_trigrams()
    corpus.apply(corpus.plan([Document(id=f"{generation}.{n}", page_content=text) for n, text in enumerate(texts)]))
    corpus.seal(generation - 1)
    return corpus


def looked_at(corpus: Corpus, pattern: Pattern) -> int:
    return corpus._candidates(pattern.needs, None).size


def test_only_candidates_are_read(tmp_path: Path) -> None:
    chance = random.Random(1)
    corpus = indexed(
        tmp_path, ["".join(chance.choices("abcdefgh", k=30)) for _ in range(500)] + ['say "E-17: AND OR*"', "Straße"]
    )
    assert looked_at(corpus, Pattern('"E-17: AND OR*"')) == 1
    assert looked_at(corpus, Pattern("STRASSE", ignore_case=True)) == 1
    assert looked_at(corpus, Pattern(r"E-\d+|Stra.e", regex=True)) == 502  # "E-" is too short
    assert looked_at(corpus, Pattern(r"\bE-1\d|Stra.e", regex=True)) == 2
    assert looked_at(corpus, Pattern("E-")) == 502
    assert looked_at(corpus, Pattern("x" * 100_000)) == 0
    assert looked_at(corpus, Pattern("\ud800ab")) == 0
    assert list(corpus.find(Pattern("\ud800"))) == []
    corpus.close()


def test_trigrams_of_what_cannot_be_seen_any_more_are_removed(tmp_path: Path) -> None:
    indexed(tmp_path, ["alpha one", "beta two"]).close()
    for generation in (2, 3):
        corpus = Corpus(tmp_path / "corpus.sqlite", generation, writable=True)
        corpus.delete(["1.0"])
        corpus.seal(generation - 1)
        assert looked_at(corpus, Pattern("alpha")) == (generation == 2)
        assert looked_at(corpus, Pattern("beta")) == 1
        corpus.close()


def test_a_corpus_without_trigrams_gets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_TRIGRAM_BATCH", 100)  # several transactions
    path = tmp_path / "corpus.sqlite"
    corpus = Corpus(path, 1, writable=True)
    corpus.apply(corpus.plan([Document(page_content=f"passage {n:03}") for n in range(100)]))
    corpus.seal(0)
    assert looked_at(corpus, Pattern("passage 042")) == 100
    corpus.close()
    writer, reader = Corpus(path, 2, writable=True), Corpus(path, 1)
    assert writer.index_trigrams()
    assert list(reader.find(Pattern("passage 042"))) == [(42, [(0, 11)])]
    writer.seal(1)
    assert not writer.index_trigrams()
    for corpus in (writer, reader):
        assert looked_at(corpus, Pattern("passage 042")) == 1
        corpus.close()


def test_another_version_of_unicode_reads_all_and_indexes_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed(tmp_path, ["alpha", "beta", "gamma"]).close()
    monkeypatch.setattr(trigrams, "_FOLDING", 9990)
    reader = Corpus(tmp_path / "corpus.sqlite", 1)
    assert looked_at(reader, Pattern("alpha")) == 3
    reader.close()
    writer = Corpus(tmp_path / "corpus.sqlite", 2, writable=True)
    writer.delete(["1.1"])
    assert writer.index_trigrams()
    writer.seal(1)
    assert looked_at(writer, Pattern("alpha")) == 1
    writer.close()


def test_without_the_extension_everything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed(tmp_path, ["alpha", "beta"]).close()
    monkeypatch.setattr(trigrams, "_problem", lambda: "no such module: fts5")
    corpus = Corpus(tmp_path / "corpus.sqlite", 2, writable=True)
    with pytest.raises(StoreError, match=r"SQLite >= 3.34 with FTS5.*no such module: fts5"):
        corpus.index_trigrams()
    corpus.delete(["1.0"])
    corpus.apply(corpus.plan([Document(id="new", page_content="alphabet")]))
    corpus.seal(1)
    assert [position for position, _ in corpus.find(Pattern("alpha"))] == [2]
    corpus.close()
    monkeypatch.undo()
    corpus = Corpus(tmp_path / "corpus.sqlite", 3, writable=True)
    corpus.seal(2)
    assert [position for position, _ in corpus.find(Pattern("alpha"))] == [2]
    corpus.close()


def test_a_write_that_is_given_up_indexes_nothing(tmp_path: Path) -> None:
    Corpus(tmp_path / "corpus.sqlite", 1, writable=True).close()
    corpus = Corpus(tmp_path / "corpus.sqlite", 1, writable=True)
    assert corpus.index_trigrams()
    corpus.close()
    corpus = Corpus(tmp_path / "corpus.sqlite", 1, writable=True)
    corpus.seal(0)
    assert not trigrams.Trigrams(corpus._db).writable
    corpus.close()


def test_a_large_passage(tmp_path: Path) -> None:
    text = "x" * 9_500_000 + "Straße\0" + "ab" * 250_000
    corpus = indexed(tmp_path, [text, "abc"])
    assert list(corpus.find(Pattern("straSSE\0a", ignore_case=True))) == [(0, [(9_500_000, 9_500_008)])]
    assert [len(spans) for _, spans in corpus.find(Pattern("ab"))] == [250_000, 1]
    corpus.close()


def test_a_reader_notices_that_its_generation_is_gone(tmp_path: Path) -> None:
    indexed(tmp_path, [f"alpha {n}" for n in range(2000)]).close()
    reader = Corpus(tmp_path / "corpus.sqlite", 1)
    found = reader.find(Pattern("alpha"))
    assert next(found)[0] == 0
    for generation in (2, 3):
        writer = Corpus(tmp_path / "corpus.sqlite", generation, writable=True)
        writer.delete([f"1.{n}" for n in range(2000)])
        writer.seal(generation - 1)
        writer.close()
    with pytest.raises(StaleSnapshotError):
        list(found)
    reader.close()


def test_time_is_limited() -> None:
    corpus = Corpus(None, 1)
    corpus.apply(corpus.plan([Document(page_content="a" * 22 + "b"), Document(page_content="c")]))
    with pytest.raises(InputError, match=r"took longer than 0\.001 s"):
        list(corpus.find(Pattern("(a+)+$", regex=True), seconds=0.001))
    assert list(corpus.find(Pattern("c"), seconds=60)) == [(1, [(0, 1)])]
    corpus.close()


def test_nothing_in_memory_is_indexed() -> None:
    corpus = Corpus(None, 1)
    assert not corpus.index_trigrams()
    assert list(corpus.find(Pattern("abc"))) == []
    corpus.close()
