from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from langchain_core.documents import Document
from typer.testing import CliRunner

from ragkit.chains.default import default_config
from ragkit.errors import InputError, StoreError
from ragkit.evaluation.collection import load_collection
from ragkit.evaluation.eval_command import evaluate
from ragkit.evaluation.finished import Finished
from ragkit.evaluation.indexed import build_store
from ragkit.evaluation.systems import Systems, built_in
from ragkit.llms.base import Completion, Cost
from ragkit.store.store import Store, bm25_and_dense

ir_measures = pytest.importorskip("ir_measures", reason="ir-measures is not installed")

BM25 = {"retriever": {"type": "bm25", "k": 5}}
PRUNED = {"retriever": {"type": "hybrid", "k": 5}, "stages": [{"type": "extractive", "scorer": "bm25", "threshold": 0.5}], "k": 2}

app = typer.Typer()
app.command("eval")(evaluate)


@pytest.fixture(autouse=True)
def no_default_encoder(monkeypatch: pytest.MonkeyPatch, make_encoder: Any, tmp_path: Path) -> list[Any]:
    """A stand-in for the packaged encoder; all that were made."""
    made: list[Any] = []

    def make() -> Any:
        made.append(make_encoder())
        return made[-1]

    monkeypatch.setattr("ragkit.encoders.factory._default", make)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return made


@pytest.fixture
def run(beir: Path, tmp_path: Path) -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(
        app, [str(beir), "--cache", str(tmp_path / "cache"), *map(str, arguments)], catch_exceptions=True
    )


def problem(done: Result) -> str:
    assert isinstance(done.exception, InputError), done.exception
    return str(done.exception)


def test_json_and_runs_agree_with_ir_measures(
    run: Callable[..., Result], beir: Path, make_config: Callable[..., Path], tmp_path: Path
) -> None:
    configs = ["--config", make_config("plain", **BM25), "--config", make_config("pruned", **PRUNED)]
    (tmp_path / "theirs.trec").write_text("q1 Q0 p2 1 9 x\nq1 Q0 p1 2 8 x\nq2 Q0 p3 1 1 x\n")
    done = run(*configs, "--run", tmp_path / "theirs.trec", "--runs-out", tmp_path / "runs", "--json")
    assert done.exit_code == 0, done.exception
    found = json.loads(done.stdout)
    assert list(found) == ["dataset", "split", "systems"]
    assert (found["dataset"], found["split"]) == ("tiny", "test")
    assert [system["name"] for system in found["systems"]] == ["plain", "pruned", "theirs"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["plain.trec", "pruned.trec"]
    qrels = [
        ir_measures.Qrel(*line.split("\t")[:2], int(line.split("\t")[2]))
        for line in (beir / "qrels" / "test.tsv").read_text().splitlines()[1:]
    ]
    for system in found["systems"]:
        path = tmp_path / "theirs.trec" if system["name"] == "theirs" else tmp_path / "runs" / f"{system['name']}.trec"
        measures = {name: ir_measures.parse_measure(name) for name in system["metrics"]}
        assert list(measures) == ["nDCG@10", "R@100", "MRR@10"]
        direct = ir_measures.calc_aggregate(measures.values(), qrels, ir_measures.read_trec_run(str(path)))
        assert system["metrics"] == pytest.approx({name: direct[measure] for name, measure in measures.items()})
        assert system["stages"][-1]["metrics"] == system["metrics"]
    # a run of ours is like a run of others
    again = run("--config", make_config("first", **BM25), "--run", tmp_path / "runs" / "pruned.trec", "--metric", "AP", "--json")
    mine, others = json.loads(again.stdout)["systems"]
    assert list(mine["metrics"]) == ["AP"]
    assert others["name"] == "pruned"


def test_the_systems_without_a_config(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, make_provence: Any, no_default_encoder: list[Any]
) -> None:
    model = make_provence()
    monkeypatch.setattr("ragkit.provence.stage.ProvenceModel.from_pretrained", lambda *_, **__: model)
    done = run("--json", "--alone", 2)
    assert done.exit_code == 0, done.exception
    systems = json.loads(done.stdout)["systems"]
    assert [system["name"] for system in systems] == ["bm25", "dense", "hybrid", "default"]
    assert [stage["name"] for stage in systems[3]["stages"]] == ["hybrid", "rerank", "blend", "duplicates", "prune"]
    assert all(stage["ms"]["questions"] == 2 for stage in systems[3]["stages"])
    assert sum(encoder.encoded for encoder in no_default_encoder) == 6
    # the second time nothing is encoded or asked
    monkeypatch.setattr("ragkit.evaluation.experiment._ask", lambda *_: pytest.fail("asked again"))
    assert run("--json", "--alone", 2).stdout == done.stdout
    assert sum(encoder.encoded for encoder in no_default_encoder) == 6


def test_what_is_built_in_stands_beside_a_file(
    run: Callable[..., Result], make_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("--config", "bm25", "--config", make_config("mine", **BM25), "--json")
    built_in_one, mine = json.loads(done.stdout)["systems"]
    assert (built_in_one["name"], mine["name"]) == ("bm25", "mine")
    assert built_in_one["metrics"] == mine["metrics"]
    make_config("bm25", **PRUNED).rename("bm25")  # a file of that name is a file
    [file] = json.loads(run("--config", "bm25", "--json").stdout)["systems"]
    assert [stage["name"] for stage in file["stages"]] == ["hybrid", "prune"]


def test_what_is_not_english_is_not_for_the_english_model() -> None:
    assert [stage["type"] for stage in built_in("en")["default"].stages] == [
        "provence-reranker",
        "blend",
        "duplicates",
        "provence",
    ]
    assert default_config(None).stages == [{"type": "duplicates"}, {"type": "extractive"}]
    assert default_config("de").stages == [{"type": "duplicates"}, {"type": "extractive", "language": "de"}]


def test_tables(run: Callable[..., Result], make_config: Callable[..., Path]) -> None:
    done = run("--config", make_config("plain", **BM25), "--config", make_config("pruned", **PRUNED))
    assert done.stdout.startswith("tiny test: 6 documents, 5 questions, 3 of them with gold sentences, 4 with answers\n")
    for caption in ("Systems: ", "Stage by stage: ", "Context: ", "Significance: "):
        assert caption in done.stdout
    assert re.search(r"\| pruned: 2 prune \| 0\.\d{3} \|", done.stdout)
    one = run("--config", make_config("plain", **BM25), "--limit", 1)
    assert one.stdout.startswith("tiny test: 6 documents, 1 questions")
    assert "Significance" not in one.stdout


def test_people_see_bars_and_tables(
    beir: Path, tmp_path: Path, make_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, Terminal())
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    evaluate(str(beir), config=[make_config("plain", **BM25)], cache=tmp_path / "c")
    shown, bar = sys.stdout.getvalue(), sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "tiny test: 6 documents" in shown
    assert "| ---" not in shown
    assert "5/5" in bar
    assert "6/6" in bar
    evaluate(str(beir), config=[make_config("plain", **BM25)], cache=tmp_path / "d", quiet=True)
    assert sys.stderr.getvalue() == bar  # type: ignore[attr-defined]


def test_bad_input_is_named_before_the_run(
    run: Callable[..., Result], make_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragkit.evaluation.experiment.run_systems", lambda *_, **__: pytest.fail("it ran"))
    plain = make_config("plain", **BM25)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "plain.yaml").write_text("{}")
    (tmp_path / "hybrid.trec").write_text("q1 Q0 p1 1 1 x\n")
    (tmp_path / "strange.trec").write_text("7 Q0 p1 1 1 x\n")
    (tmp_path / "bad.trec").write_text("q1 Q0 p 1 1 1 x\n")
    cases = {
        "measure: 'bogus' cannot be computed": ["--metric", "bogus"],
        "--config: two are named 'plain'": ["--config", plain, "--config", tmp_path / "other" / "plain.yaml"],
        "would be called 'hybrid', as another system is": ["--run", tmp_path / "hybrid.trec"],
        "answers no question of tiny test; its questions have ids like '7', not 'q1'": ["--run", tmp_path / "strange.trec"],
        "bad.trec, line 1: has 7 columns": ["--run", tmp_path / "bad.trec"],
        "split: 'dev' is none of those": ["--split", "dev"],
        f"--html: {tmp_path} is a folder": ["--html", tmp_path],
        f"--runs-out: {plain} is a file": ["--runs-out", plain],
        f"--html: cannot make the folder {plain}": ["--html", plain / "out.html"],
        f"--runs-out: cannot make the folder {plain}": ["--runs-out", plain / "runs"],
        "language": ["--language", "klingon"],
        "typo.yaml: retriever.type is 'bm26'": ["--config", make_config("typo", retriever={"type": "bm26"})],
    }
    for message, arguments in cases.items():
        assert message in problem(run(*arguments)), message


def test_ids_that_no_run_can_hold_are_named_before_the_run(
    run: Callable[..., Result], beir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragkit.evaluation.experiment.run_systems", lambda *_, **__: pytest.fail("it ran"))
    with (beir / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "p 7", "text": "new"}) + "\n")
    assert "the document id 'p 7' is empty or has white space" in problem(run("--runs-out", tmp_path / "runs"))


def test_indexes_of_the_same_texts_are_told_apart(
    run: Callable[..., Result], beir: Path, make_config: Callable[..., Path], make_encoder: Any, tmp_path: Path
) -> None:
    plain = make_config("plain", **BM25)
    found = []
    for name, metadata in (("bare", {}), ("titled", {"title": "apple wheels cars cheese Rhine"})):
        with Store.create(tmp_path / name, bm25_and_dense(make_encoder(), "english")) as store:
            store.upsert(
                Document(id=document.id, page_content=document.page_content, metadata=metadata)
                for document in load_collection(str(beir)).documents.values()
            )
        done = run("--config", plain, "--index", tmp_path / name, "--json")
        assert done.exit_code == 0, done.exception
        found.append(json.loads(done.stdout)["systems"][0]["stages"][0]["passages"])
    assert found[0] < found[1]


def test_an_index_is_used_as_it_is(
    run: Callable[..., Result], beir: Path, make_config: Callable[..., Path], tmp_path: Path
) -> None:
    collection = load_collection(str(beir))
    with build_store(collection, tmp_path / "mine", language="german") as store:
        path = store.path
    assert path is not None
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
    plain = make_config("plain", **BM25)
    assert run("--config", plain, "--index", path).exit_code == 0
    assert run("--config", plain, "--index", path, "--language", "de").exit_code == 0
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()} == before
    assert not (tmp_path / "cache" / "indexes").exists()
    assert "was built for 'de', not 'fr'" in problem(run("--config", plain, "--index", path, "--language", "fr"))
    corpus = beir / "corpus.jsonl"
    text = corpus.read_text()
    corpus.write_text(text.replace("Nothing of", "Much of"))
    assert "has another text for document 'p6'" in problem(run("--config", plain, "--index", path))
    corpus.write_text(text + json.dumps({"_id": "p7", "text": "new"}) + "\n")
    assert "lacks document 'p7'" in problem(run("--config", plain, "--index", path))
    corpus.write_text("".join(text.splitlines(keepends=True)[:-1]))
    assert "holds 6 passages, tiny has 5 documents" in problem(run("--config", plain, "--index", path))
    assert isinstance(run("--config", plain, "--index", tmp_path).exception, StoreError)


def test_encoding_goes_on_where_it_was(beir: Path, tmp_path: Path, make_encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragkit.evaluation.indexed._AT_ONCE", 2)
    collection = load_collection(str(beir))
    encoder = make_encoder()
    whole = encoder.encode_documents

    def failing(texts: Any, progress: Any = None) -> Any:
        if encoder.encoded >= 4:
            raise KeyboardInterrupt
        return whole(texts, progress)

    encoder.encode_documents = failing
    with pytest.raises(KeyboardInterrupt):
        build_store(collection, tmp_path, encoder=encoder)
    encoder.encode_documents = whole
    told: list[tuple[int, int]] = []
    with build_store(collection, tmp_path, encoder=encoder, progress=lambda *done: told.append(done)) as store:
        assert len(store) == 6
    assert (told, encoder.encoded) == ([(6, 6)], 6)
    # another language or corpus is another index
    with build_store(collection, tmp_path, encoder=encoder, language="german") as store:
        assert encoder.encoded == 12


def test_language_models_are_asked_once(beir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Model:
        identity = "model"

        def __init__(self, name: str) -> None:
            assert name == "some/model"

        def generate(self, prompts: Any, configs: Any = None, until: Any = None) -> Any:
            asked.extend(prompts)
            return [Completion("[2] > [1]", Cost(1, 20, 5)) for _ in prompts]

        async def agenerate(self, *_: Any) -> Any:
            raise NotImplementedError

        score_labels, ascore_labels = generate, agenerate

    monkeypatch.setattr("ragkit.evaluation.systems.named_llm", Model)
    collection = load_collection(str(beir))
    from ragkit.chains.config import PipelineConfig
    from ragkit.evaluation.experiment import run_systems

    def usages(depth: int) -> list[Any]:
        stores = Systems(collection.digest, lambda encoder: build_store(collection, tmp_path), tmp_path / "answers.sqlite")
        config = PipelineConfig(retriever={"type": "bm25", "k": 3}, stages=[{"type": "listwise", "llm": "some/model"}], k=depth)
        [run] = run_systems(collection.queries, [stores.make("mine", config)], finished=Finished(tmp_path / "results"))
        return [traced.steps[1] for traced in run.traced.values()]

    first = usages(1)
    count = len(asked)
    assert 0 < count <= 5
    # another configuration that asks the same
    second = usages(2)
    assert len(asked) == count
    # which costs as much, but nobody knows how long it takes
    for name in ("calls", "prompt_tokens", "completion_tokens", "cached"):
        assert [step.usage[name] for step in second] == [step.usage[name] for step in first]
    assert sum(step.usage["prompt_tokens"] for step in first) == 20 * count
    assert any(step.seconds is not None for step in first)
    assert all(step.seconds is None for step in second if step.usage["calls"])
    assert [step.ids for step in first] == [step.ids for step in second]


class Tags(HTMLParser):
    """All elements of a page, and what it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.names.append(tag)
        self.loads += [f"{name}={value}" for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        assert not [name for name, _ in attributes if name.startswith("on") or name == "style"]


@pytest.fixture
def report(run: Callable[..., Result], beir: Path, make_config: Callable[..., Path], tmp_path: Path) -> Path:
    """With questions, documents and names that are markup."""
    for name in ("queries", "corpus"):
        path = beir / f"{name}.jsonl"
        path.write_text(
            path.read_text().replace("cheese", "<script>alert(1)</script> cheese").replace("Cheese", "<b onclick=x>Cheese")
        )
    (tmp_path / "a&<i>.trec").write_text("q1 Q0 p2 1 9 x\nq1 Q0 gone 2 8 x\n")
    with (beir / "qrels" / "test.tsv").open("a") as file:
        file.write("q3\tgone\t1\n")
    configs = ["--config", make_config("plain", **BM25), "--config", make_config("pruned <x>", **PRUNED)]
    path = tmp_path / "deep" / "report.html"
    done = run(*configs, "--run", tmp_path / "a&<i>.trec", "--html", path)
    assert done.exit_code == 0, done.exception
    return path


def test_the_report_shows_all_and_loads_nothing(report: Path) -> None:
    page = report.read_text()
    tags = Tags()
    tags.feed(page)
    assert set(tags.loads) <= {"href=data:,", "href=#main"}
    assert 'id="main"' in page
    assert "default-src 'none'" in page
    assert "<script>alert" not in page
    assert "<b onclick" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; cheese" in page
    assert "a&amp;&lt;i&gt;" in page
    assert "pruned &lt;x&gt;" in page
    assert "gone: not in the corpus" in page
    # one plot of quality against cost, and one of differences for each system but the first
    assert tags.names.count("svg") == 3
    assert tags.names.count("details") == 5
    # the question that went worst is the first
    assert page.index('<span class="asked">Who knows why?') > page.index('<span class="asked">What')


def test_the_report_opens_in_a_browser(report: Path, tmp_path: Path) -> None:
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip("there is no /usr/bin/chromium")
    problems: list[str] = []
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        for scheme, width in (("light", 1200), ("dark", 360)):
            page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
            page.on("console", lambda message: problems.append(message.text))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", lambda request: None if request.url.startswith("file:") else problems.append(request.url))
            page.goto(report.as_uri())
            assert page.locator("h1").inner_text() == "tiny test"
            assert not page.locator("details table").first.is_visible()
            page.locator("summary").first.click()
            assert page.locator("details table").first.is_visible()
            assert page.locator("svg.plot").first.bounding_box()["width"] > 250
            # wide tables scroll, the page does not
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            page.screenshot(path=str(tmp_path / f"{scheme}.png"), full_page=True)
        browser.close()
    assert problems == []
