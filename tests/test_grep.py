"""`ragkit grep`: matches with exact spans in their source, each once, and exit codes like grep's."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from langchain_core.documents import Document

from ragkit import Store, index_paths
from ragkit.cli import main
from ragkit.corpus import trigrams
from ragkit.corpus.patterns import Pattern
from ragkit.documents.provenance import Provenance, with_provenance
from ragkit.grep import as_json, grep, shown_lines

FRUIT = "# Fruit\r\n\r\nApples are red. Bananas are yellow.\r\n\r\n## Storage\r\n\r\nKeep bananas away from the 🧊 fridge.\r\n"
LOG = "E-17: disk\nE-17: fan\nE-18: \x1b[31mfan\x1b[0m\n" + "\n".join(f"line {n} says E-{n}." for n in range(100, 160)) + "\n"


class Done(NamedTuple):
    code: int
    out: str
    err: str


class Terminal(io.TextIOWrapper):
    tty = False

    def isatty(self) -> bool:
        return self.tty


def ragkit(*arguments: Any, tty: bool = False) -> Done:
    out, err = Terminal(io.BytesIO(), "utf-8", newline=""), io.StringIO()
    out.tty = tty
    with mock.patch.object(sys, "argv", ["ragkit", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        with pytest.raises(SystemExit) as exit:
            main()
        out.flush()
    return Done(exit.value.code, out.buffer.getvalue().decode("utf-8"), err.getvalue())  # type: ignore[attr-defined]


@pytest.fixture(scope="module", params=[False, True], ids=["scan", "trigrams"])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    (folder / "fruit.md").write_bytes(FRUIT.encode())
    (folder / "server.txt").write_text(LOG)
    (folder / "page.html").write_text(
        "<html><body><h1>Tea</h1>\n<p>Green &amp; black tea <b>come</b> from one plant.</p></body></html>"
    )
    (folder / "facts.jsonl").write_text('{"id": "f1", "text": "The moon\\norbits.", "year": 1969}\n')
    out = tmp_path_factory.mktemp("out") / "index"
    with Store.create(out, {}) as store:
        if request.param:
            with store.write() as draft:
                draft.index_trigrams()
        index_paths(store, [folder], size=40, overlap=16)
    return out


def found(index: Path, *arguments: Any) -> Any:
    done = ragkit("grep", index, *arguments, "--json")
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def test_every_match_is_a_slice_of_its_source(index: Path) -> None:
    for arguments in (["bananas", "-i"], ["E-1"], [r"\w+ says E-\d+\.$", "-E"], ["&"], ["moon\norbits"]):
        answer = found(index, *arguments)
        assert set(answer) == {"pattern", "matches", "passages", "hits"}
        assert answer["matches"] == len(answer["hits"]) > 0
        texts = {name: ragkit("source", index, name).out for name in {hit["source"] for hit in answer["hits"]}}
        for hit in answer["hits"]:
            assert set(hit) == {"id", "source", "start", "end", "span", "line", "page", "text", "context"}
            assert texts[hit["source"]][hit["start"] : hit["end"]] == hit["text"]
            assert hit["text"] in hit["context"]


def test_lines_come_without_their_breaks(index: Path) -> None:
    [hit] = found(index, "# Fruit")["hits"]
    assert hit["context"] == "# Fruit"


def test_text_that_passages_share_is_reported_once(index: Path) -> None:
    answer = found(index, "-E", r"E-\d+")
    assert [hit["text"] for hit in answer["hits"]] == ["E-17", "E-17", "E-18", *(f"E-{n}" for n in range(100, 160))]
    assert answer["matches"] == 63
    assert [hit["line"] for hit in answer["hits"]] == list(range(1, 64))
    with Store.open(index) as store:
        corpus = store.snapshot.corpus
        texts = [d.page_content for d in corpus.documents(corpus.all_positions())]
    assert sum(text.count("E-") for text in texts) > 63, "passages do not overlap, so this shows nothing"
    assert answer["passages"] == sum("E-" in text for text in texts)


def test_count_and_k(index: Path) -> None:
    assert ragkit("grep", index, "says", "--count").out.startswith("60 matches in ")
    assert set(found(index, "says", "--count")) == {"pattern", "matches", "passages"}
    cut = found(index, "says", "-k", 7)
    assert (cut["matches"], [hit["line"] for hit in cut["hits"]]) == (60, list(range(4, 11)))
    assert len(found(index, "says", "-k", 7000)["hits"]) == 60


def test_filter(index: Path) -> None:
    assert {hit["text"] for hit in found(index, "o", "--filter", "year=1969")["hits"]} == {"o"}
    assert ragkit("grep", index, "says", "--filter", "year=1969").code == 1


def test_lines_for_people(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(index) as store:
        folder = Path(store.snapshot.corpus.sources()[0]).parent
    monkeypatch.chdir(folder)
    assert ragkit("grep", index, "yellow").out == "fruit.md:3: Apples are red. Bananas are yellow.\n"
    assert ragkit("grep", index, "E-17").out == "server.txt:1: E-17: disk\nserver.txt:2: E-17: fan\n"
    assert ragkit("grep", index, "disk\nE-17: fan\n").out == "server.txt:1: E-17: disk\nserver.txt:2: E-17: fan\n"
    assert ragkit("grep", index, "-i", "E-18").out == "server.txt:3: E-18: [31mfan[0m\n"
    shown = ragkit("grep", index, "fan", tty=True).out.splitlines()
    assert shown[0] == "\x1b[2mserver.txt:2\x1b[0m: E-17: \x1b[31m\x1b[1mfan\x1b[0m"
    assert shown[1] == "\x1b[2mserver.txt:3\x1b[0m: E-18: [31m\x1b[31m\x1b[1mfan\x1b[0m[0m"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["INDEX", "absent string"], 1, ""),
        (["INDEX", "a.b"], 1, ""),
        (["INDEX", ""], 2, "pattern: is empty"),
        (["INDEX", "a(b", "-E"], 2, "position 1"),
        (["INDEX", "x", "-k", "0"], 2, "k must be a positive integer"),
        (["INDEX", "x", "--filter", "nope"], 2, "KEY=VALUE"),
        (["INDEX", "x", "--filter", "yeer=1"], 2, "'yeer'"),
        (["absent", "x"], 2, "ragkit index"),
        (["INDEX"], 2, "'pattern'"),
    ],
)
def test_exit_codes(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = ragkit("grep", *(index if argument == "INDEX" else argument for argument in arguments))
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert done.err.count("\n") == bool(message)


def test_a_pattern_may_begin_with_a_dash_or_be_blank(index: Path) -> None:
    assert json.loads(ragkit("grep", index, "--json", "--", "-159").out)["matches"] == 1
    assert found(index, " ", "--count")["matches"] > 60


def test_documents_without_a_source_are_their_own() -> None:
    store = Store.memory({})
    text = "one two\n\ntwo"
    overlapping = [
        with_provenance(Document(id="p", page_content="abcabc"), Provenance(source="s", start=10, end=16)),
        with_provenance(Document(id="q", page_content="abcd"), Provenance(source="s", start=13, end=17)),
    ]
    store.upsert([Document(id="a", page_content=text), Document(id="b", page_content=text), *overlapping])
    both = grep(store, Pattern("two"))
    assert (both.matches, both.passages) == (4, 2)
    assert [(hit["source"], hit["start"], hit["line"]) for hit in as_json(both)] == [
        ("a", 4, None), ("a", 9, None), ("b", 4, None), ("b", 9, None),
    ]  # fmt: skip
    assert [typer_free(line) for line in shown_lines(grep(store, Pattern("two\n\nt"), k=1))] == ["a: one two", "a: ", "a: two"]
    shared = grep(store, Pattern("abc"))
    assert (shared.matches, shared.passages) == (2, 2)
    assert [(hit["start"], hit["end"], hit["span"]) for hit in as_json(shared)] == [(10, 13, [0, 3]), (13, 16, [3, 6])]
    store.close()


def typer_free(line: str) -> str:
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m"):
        line = line.replace(code, "")
    return line


def test_indexing_with_trigrams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragkit.store.store.bm25_and_dense", lambda *_: {})
    (tmp_path / "a.md").write_text("Code E-17 means fire.")
    for options, looked_at in (([], 1), (["--exact"], 0), ([], 0)):
        assert ragkit("index", tmp_path / "a.md", "--out", tmp_path / "index", *options).code == 0
        with Store.open(tmp_path / "index") as store:
            assert store.snapshot.corpus._candidates(Pattern("E-18").needs, None).size == looked_at
        assert ragkit("grep", tmp_path / "index", "E-17").code == 0


def test_indexing_with_trigrams_says_if_sqlite_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigrams, "_problem", lambda: "no such module: fts5")
    (tmp_path / "a.md").write_text("Code E-17 means fire.")
    done = ragkit("index", tmp_path / "a.md", "--out", tmp_path / "index", "--exact")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "SQLite >= 3.34" in done.err
    assert not (tmp_path / "index").exists()


def test_a_reader_of_the_output_may_leave(tmp_path: Path) -> None:
    with Store.create(tmp_path / "index", {}) as store:
        store.upsert([Document(page_content="text")])
    command = [sys.executable, "-m", "ragkit", "grep", str(tmp_path / "index"), "-E", ".", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # type: ignore[union-attr]
        assert process.stderr.read() == ""  # type: ignore[union-attr]
