"""The corpus against a dictionary, and its generations against each other."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit.corpus.changes import SourceText
from ragkit.corpus.corpus import Corpus
from ragkit.documents.provenance import Provenance, StageResult, with_provenance, with_stages
from ragkit.errors import InputError, StaleSnapshotError, StoreError


def upsert(corpus: Corpus, *documents: Document) -> list[int]:
    change = corpus.plan(documents)
    corpus.apply(change)
    return [addition.position for addition in change.additions]


def doc(id: str | None, text: str, **metadata: Any) -> Document:
    return Document(id=id, page_content=text, metadata=metadata)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.sampled_from("abc"), st.sampled_from(["x", "y", "z"]), st.integers(0, 1)),
        st.tuples(st.just("delete"), st.sampled_from("abc")),
        st.tuples(st.just("publish")),
        st.tuples(st.just("crash")),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(OPERATIONS)
def test_generations_behave_like_copies_of_a_dictionary(operations: list[tuple[Any, ...]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.sqlite"
        published: dict[str, tuple[str, int]] = {}
        draft = dict(published)
        generation = 0
        writer = Corpus(path, 1, writable=True)
        used: set[int] = set()
        for operation, *arguments in operations:
            if operation == "upsert":
                id_, text, year = arguments
                positions = upsert(writer, doc(id_, text, year=year))
                assert not used & set(positions), "a position was given twice"
                used |= set(positions)
                draft[id_] = (text, year)
            elif operation == "delete":
                writer.delete(arguments)
                draft.pop(arguments[0], None)
            else:
                if operation == "publish":
                    writer.seal(generation)
                    generation += 1
                    published = dict(draft)
                writer.close()
                writer = Corpus(path, generation + 1, writable=True)
                writer.discard_after(generation)
                draft = dict(published)
            if not generation:
                continue
            reader = Corpus(path, generation)
            for corpus, expected in ((reader, published), (writer, draft)):
                found = corpus.get(["a", "b", "c"])
                assert {d.id: (d.page_content, d.metadata["year"]) for d in found} == expected
                assert len(corpus) == len(expected)
                assert {d.id for d in corpus.documents(corpus.all_positions())} == expected.keys()
            reader.close()
        writer.close()


def test_position_is_stable_while_only_metadata_changes() -> None:
    corpus = Corpus(None, 1)
    [position] = upsert(corpus, doc("a", "text", year=1))
    assert upsert(corpus, doc("a", "text", year=2)) == []
    assert corpus.documents([position])[0].metadata == {"year": 2}
    assert upsert(corpus, doc("a", "other", year=2)) != [position]


def test_nothing_differs_when_the_same_documents_come_again() -> None:
    corpus = Corpus(None, 1)
    documents = [doc("a", "text", year=1), doc(None, "other")]
    upsert(corpus, *documents)
    assert corpus.plan(documents).rows == []


def test_same_text_is_reported_as_a_twin() -> None:
    corpus = Corpus(None, 1)
    [position] = upsert(corpus, doc("a", "text"))
    assert corpus.plan([doc("b", "text")]).additions[0].twin == position
    assert corpus.plan([doc("b", "texts")]).additions[0].twin is None


def test_documents_without_id_get_one_from_text_and_metadata() -> None:
    corpus = Corpus(None, 1)
    same = [doc(None, "text", page=1), doc(None, "text", page=1), doc(None, "text", page=2)]
    upsert(corpus, *same)
    assert len(corpus) == 2
    assert all(document.id for document in corpus.documents(corpus.all_positions()))


DEEP: list[Any] = []
for _ in range(5_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "value", [(1, 2), {1: "x"}, float("nan"), {1, 2}, b"x", object(), DEEP], ids=lambda value: type(value).__name__
)
def test_metadata_that_json_would_change_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"'a'.*'odd'"):
        Corpus(None, 1).plan([doc("a", "text", odd=value)])


def test_lone_surrogate_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"'a'.*page_content.*surrogate at character 2"):
        Corpus(None, 1).plan([doc("a", "ab\ud800")])
    with pytest.raises(InputError, match=r"id holds a lone surrogate at character 0"):
        Corpus(None, 1).plan([doc("\ud800", "ab")])
    with pytest.raises(InputError, match=r"source'\] holds a lone surrogate at character 1"):
        Corpus(None, 1).plan([with_provenance(doc("a", "ab"), Provenance(source="x\udfff"))])
    corpus = Corpus(None, 1)
    upsert(corpus, doc("a", "ab"))
    with pytest.raises(InputError, match="half of a surrogate pair"):
        corpus.source_text("\udfff")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
@settings(deadline=None)
def test_text_and_metadata_come_back_exactly(text: str, metadata: dict[str, str]) -> None:
    if any("\ud800" <= char <= "\udfff" for key, value in metadata.items() for char in key + value):
        return
    corpus = Corpus(None, 1)
    document = Document(id="a", page_content=text, metadata={k: v for k, v in metadata.items() if k != "ragkit"})
    upsert(corpus, document)
    assert corpus.get(["a"]) == [document]


def test_provenance_keeps_the_origin_and_drops_what_stages_did() -> None:
    corpus = Corpus(None, 1)
    record = Provenance(source="file.md", start=10, headings=("A",), passage="whole text", spans=((0, 5),))
    upsert(corpus, with_provenance(doc("a", "whole"), record))
    [stored] = corpus.get(["a"])
    assert stored.page_content == "whole text"
    assert stored.metadata["ragkit"] == {"source": "file.md", "start": 10, "headings": ["A"]}


def test_missing_position_is_an_error() -> None:
    with pytest.raises(StoreError, match="1 passages that the indexes know are not in"):
        Corpus(None, 1).documents([3])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (doc("a", "one"), doc("a", "two")),
        (doc("a", "one", n=1), doc("a", "one", n=2)),
        (doc("a", "one", n=1), doc("a", "one", n=True)),
        (doc("a", "one"), doc("a", "one", n=None)),
    ],
)
def test_different_documents_with_one_id_are_refused(first: Document, second: Document) -> None:
    """Either of them would be lost."""
    corpus = Corpus(None, 1)
    with pytest.raises(InputError, match="the id 'a'"):
        corpus.plan([first, doc("b", "other"), second])
    # one after the other they replace each other
    upsert(corpus, first)
    upsert(corpus, second)
    assert corpus.documents(corpus.all_positions()) == [second]


def test_a_document_may_be_given_twice() -> None:
    for id_ in ("a", None):
        corpus = Corpus(None, 1)
        upsert(corpus, doc(id_, "one", n=1, m={"x": 1, "y": 2}), doc(id_, "one", m={"y": 2, "x": 1}, n=1))
        assert len(corpus) == 1
    # what hits of two questions differ in is no part of the content that gives them an id
    upsert(Corpus(None, 1), doc(None, "one", relevance_score=0.5), doc(None, "one", relevance_score=0.25))


def test_a_reader_of_a_generation_that_is_gone_is_told(tmp_path: Path) -> None:
    path = tmp_path / "corpus.sqlite"
    for generation in (1, 2, 3):
        writer = Corpus(path, generation, writable=True)
        upsert(writer, doc("a", f"text {generation}"))
        writer.seal(generation - 1)
        writer.close()
        if generation == 1:
            reader = Corpus(path, 1)
        if generation < 3:
            assert reader.get(["a"])[0].page_content == "text 1"
    for read in (lambda: reader.get(["a"]), lambda: len(reader), lambda: reader.allowed({}), lambda: reader.sources()):
        with pytest.raises(StaleSnapshotError, match="open the index again"):
            read()
    with pytest.raises(StaleSnapshotError):
        Corpus(path, 1)
    with pytest.raises(StoreError, match="older than the manifest"):
        Corpus(path, 9)


def test_scores_of_stages_are_not_taken_for_metadata() -> None:
    corpus = Corpus(None, 1)
    upsert(corpus, doc("a", "text", n=1))
    hit = with_stages(corpus.get(["a"])[0], StageResult("bm25", 0.5, 1))
    assert hit.metadata["relevance_score"] == 0.5
    assert corpus.plan([hit]).rows == []
    upsert(corpus, doc("b", "text", relevance_score=3))
    assert corpus.get(["b"])[0].metadata == {"relevance_score": 3}


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "corpus.sqlite", 1, writable=True)
    corpus._db.execute("PRAGMA max_page_count = 30")
    with pytest.raises(StoreError, match=r"cannot write .*full"):
        upsert(corpus, doc("a", "x" * 10**6))
    assert len(corpus) == 0
    upsert(corpus, doc("a", "small"))
    assert len(corpus) == 1


def test_sources_are_replaced_per_file() -> None:
    corpus = Corpus(None, 1)
    corpus.replace_sources({"f": [SourceText("f#1", "d1", "ä\r\n"), SourceText("f#2", "d1", "two")]})
    assert corpus.source_text("f#1") == "ä\r\n"
    corpus.replace_sources({"f": [SourceText("f#2", "d2", "new")]})
    assert corpus.source_text("f#1") is None
    assert corpus.sources() == ["f#2"]
    assert corpus.file_digests() == {"f": "d2"}


def test_a_corpus_that_nobody_holds_is_closed(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "corpus.sqlite", 1, writable=True)
    connection = corpus._db
    assert len(corpus) == 0
    del corpus
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "corpus.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="index again"):
        Corpus(path, 1)
    with pytest.raises(StoreError, match="index again"):
        Corpus(tmp_path / "absent.sqlite", 1)


def test_what_cannot_be_opened_is_not_to_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "corpus.sqlite").mkdir()
    with pytest.raises(StoreError, match="unable to open") as caught:
        Corpus(tmp_path / "corpus.sqlite", 1)
    assert "delete" not in str(caught.value)
