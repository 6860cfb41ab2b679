"""ExactRetriever against counting in Python; the store's contracts with a trigram index in it."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_tests.integration_tests import RetrieversIntegrationTests

from ragkit import InputError, Store, provenance
from ragkit.corpus.patterns import Pattern
from ragkit.retrievers.exact import ExactRetriever

TEXTS = ["Error 0x8007: disk", "no error", "error error ERROR", "a quote: “to be”", "Straße 5"]


def hits(retriever: ExactRetriever, query: str, **arguments: Any) -> list[tuple[str | None, float]]:
    return [(d.id, d.metadata["relevance_score"]) for d in retriever.invoke(query, **arguments)]


@pytest.fixture(params=["memory", "directory", "no trigrams"])
def retriever(request: pytest.FixtureRequest, tmp_path: Path) -> ExactRetriever:
    options: dict[str, Any] = {"metadatas": [{"n": n} for n in range(5)], "ids": list("abcde")}
    if request.param == "no trigrams":
        store = Store.create(tmp_path / "store", {})
        store.upsert(
            [
                Document(id=id_, page_content=text, metadata={"n": n})
                for n, (id_, text) in enumerate(zip("abcde", TEXTS, strict=True))
            ]
        )
        return ExactRetriever(store=store)
    return ExactRetriever.from_texts(TEXTS, **options, path=tmp_path / "store" if request.param == "directory" else None)


def test_ranks_by_number_of_occurrences(retriever: ExactRetriever) -> None:
    assert hits(retriever, "error") == [("c", 2), ("b", 1)]
    assert hits(retriever, "r") == [("c", 6), ("a", 3), ("b", 3), ("e", 1)]
    assert hits(retriever, "rr") == [("c", 2), ("a", 1), ("b", 1)]
    assert hits(retriever, "error", k=1) == [("c", 2)]
    assert hits(retriever, "error", filter={"n": {"$lt": 2}}, k=1) == [("b", 1)]
    assert hits(retriever, "absent") == hits(retriever, "  ") == []
    [document] = retriever.invoke("0x8007")
    assert [tuple(stage) for stage in provenance(document).stages] == [("exact", 1.0, 1)]


def test_options(retriever: ExactRetriever) -> None:
    store = retriever.store
    assert hits(ExactRetriever(store=store, ignore_case=True), "ERROR") == [("c", 3), ("a", 1), ("b", 1)]
    assert hits(ExactRetriever(store=store, ignore_case=True), "STRASSE") == [("e", 1)]
    assert hits(ExactRetriever(store=store, regex=True), r"0x\d+|“.*”") == [("a", 1), ("d", 1)]
    with pytest.raises(InputError, match="position 0"):
        ExactRetriever(store=store, regex=True).invoke("(")
    for wrong in ({"timeout": 0}, {"regexp": True}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ExactRetriever(store=store, **wrong)
    with pytest.raises(InputError, match="language"):
        ExactRetriever.from_texts(TEXTS, language="english")


def test_a_wrong_pattern_fails_alone(retriever: ExactRetriever) -> None:
    regex = ExactRetriever(store=retriever.store, regex=True)
    good, bad, blank = regex.batch(["err.r", "(", ""], return_exceptions=True)
    assert [d.id for d in good] == ["c", "b"]
    assert isinstance(bad, InputError)
    assert blank == []


async def test_async_equals_sync(retriever: ExactRetriever) -> None:
    assert await retriever.abatch(["error", "r", "x"]) == retriever.batch(["error", "r", "x"])


def test_empty_store_and_k_beyond_it(tmp_path: Path) -> None:
    for path in (None, tmp_path / "store"):
        retriever = ExactRetriever.from_texts([], path=path)
        assert retriever.invoke("abc", k=1000) == []
        retriever.upsert([Document(id="x", page_content="abc")])
        assert hits(retriever, "abc", k=1000) == [("x", 1)]


ALPHABET = "abAßsé🙂\n"


@settings(max_examples=5, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "set", "delete"]), st.sampled_from("pqrst"), st.text(ALPHABET, max_size=20)), max_size=8
    ),
    st.lists(st.tuples(st.text(ALPHABET, min_size=1, max_size=5), st.booleans()), max_size=5),
    st.integers(1, 8),
)
def test_any_history_of_a_store_equals_brute_force(tmp_path_factory: Any, changes: Any, queries: Any, k: int) -> None:
    store = ExactRetriever.from_texts([], path=tmp_path_factory.mktemp("store") / "index").store
    live: dict[str, str] = {}
    for kind, id_, text in changes:
        if kind == "delete":
            store.delete([id_])
            live.pop(id_, None)
        else:
            store.upsert([Document(id=id_, page_content=text)])
            if live.get(id_) != text:
                live.pop(id_, None)  # a text that changes gets a new position
            live[id_] = text
    for query, ignore_case in queries:
        counts = [(id_, len(Pattern(query, ignore_case).spans(text))) for id_, text in live.items()]
        expected = sorted(((id_, n) for id_, n in counts if n and query.strip()), key=lambda hit: -hit[1])[:k]
        assert hits(ExactRetriever(store=store, ignore_case=ignore_case), query, k=k) == expected
    store.verify()
    store.close()


def test_readers_while_a_writer_publishes(tmp_path: Path) -> None:
    """Every generation holds ten passages with one mark; a search must never see a mixture."""
    store = ExactRetriever.from_texts([f"{n} mark 0000" for n in range(10)], ids=map(str, range(10)), path=tmp_path / "s").store
    reader = ExactRetriever.load(tmp_path / "s", regex=True)
    done, seen = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            seen.append({d.page_content.split()[-1] for d in reader.invoke(r"mark \d{4}", k=100)})

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for generation in range(1, 9):
        store.upsert([Document(id=str(n), page_content=f"{n} mark {generation:04}") for n in range(10)])
    done.set()
    for thread in threads:
        thread.join()
    store.close()
    assert all(len(marks) == 1 for marks in seen)
    reader.store.refresh()
    assert [d.page_content for d in reader.invoke("^3 mark 0008$")] == ["3 mark 0008"]
    reader.store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_kill_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    """A writer replaces all passages by those of the next generation, and is killed: every one is found, or none is."""
    path, count, kills = tmp_path / "store", 700, 10
    texts = [f"passage {n} of 0 tail{n % 7}" for n in range(count)]
    store = ExactRetriever.from_texts(texts, ids=map(str, range(count)), path=path).store
    started = time.monotonic()
    store.upsert([Document(id=str(n), page_content=f"passage {n} of 1 tail{n % 7}") for n in range(count)])
    seconds = time.monotonic() - started
    store.close()
    command = [sys.executable, str(Path(__file__).with_name("exact_kill_worker.py"))]
    current, steps = 1, set()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        for kill in range(kills):
            worker.stdin.write(f"{path} {current + 1} {count} {seconds * 3 * kill / kills}\n")
            worker.stdin.flush()
            assert worker.stdout.readline() == "dead\n"
            reader = ExactRetriever.load(path)
            reader.store.verify()
            found = {n: len(reader.invoke(f"of {n} tail3", k=count)) for n in (current, current + 1)}
            assert sorted(found.values()) == [0, len(range(3, count, 7))]
            steps.add(found[current] == 0)
            current += found[current] == 0
            reader.store.close()
        worker.stdin.close()
    assert steps == {False, True}
    store = Store.open(path)
    store.upsert([Document(id="last", page_content="the last passage")])
    assert [d.id for d in ExactRetriever(store=store).invoke("last pass")] == ["last"]
    assert [d.id for d in ExactRetriever(store=store).invoke(f"passage 77 of {current} ")] == ["77"]
    with sqlite3.connect(path / "corpus.sqlite") as db:
        db.execute("INSERT INTO trigrams (trigrams) VALUES ('integrity-check')")
    db.close()
    store.close()


class TestContract(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[ExactRetriever]:
        return ExactRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": ExactRetriever.from_texts([f"passage {n}" for n in range(6)]).store}

    @property
    def retriever_query_example(self) -> str:
        return "passage"
