"""`ragkit make-queries`, from an index to a folder that the evaluation reads, with and without a language model."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from typer.testing import CliRunner

from ragkit import HybridRetriever, InputError, RagkitError, Store, bm25_and_dense
from ragkit.evaluation.datasets import load_dataset
from ragkit.evaluation.metrics import evaluate
from ragkit.evaluation.sentences import load_sentences
from ragkit.evaluation.synthetic.command import make_queries
from ragkit.llms import named
from ragkit.llms.named import chat_model

TEXTS = [
    "A brig is a sailing vessel with two square-rigged masts, seen as fast and easy to turn.",
    "Sourdough bread rises with wild yeast and lactic acid bacteria from the flour itself.",
    "The brightest star in the night sky is Sirius, in the constellation Canis Major.",
    "Basalt is a dark volcanic rock that forms when lava rich in iron cools quickly.",
]


@pytest.fixture
def index(tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "index"
    with Store.create(path, bm25_and_dense(encoder)) as store:
        store.upsert([Document(id=f"p{n}", page_content=text) for n, text in enumerate(TEXTS)])
    opened = Store.open
    monkeypatch.setattr(Store, "open", lambda path, encoder=None: opened(path, encoder=encoder or store.encoder))
    return path


def run(*arguments: Any) -> Any:
    app = typer.Typer()
    app.command()(make_queries)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_dataset_without_a_model(index: Path, tmp_path: Path) -> None:
    pytest.importorskip("ir_measures", reason="needs ir-measures")
    done = run(index, "--out", tmp_path / "made", "--n", 3, "-k", 2, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["kept"], told["tried"], told["passages"], told["model"]) == (3, 3, 4, None)
    dataset = load_dataset(tmp_path / "made")
    assert len(dataset.queries) == 3
    with Store.open(index) as store:
        found = dict(zip(dataset.queries, HybridRetriever(store=store).batch(list(dataset.queries.values()), k=2), strict=True))
    # what the round trip promises
    assert evaluate(found, dataset.qrels, ["R@2"])["R@2"] == 1
    assert len(load_sentences(tmp_path / "made").questions) == 3
    again = run(index, "--out", tmp_path / "again", "--n", 3, "-k", 2)
    assert (tmp_path / "again" / "queries.jsonl").read_text() == (tmp_path / "made" / "queries.jsonl").read_text()
    assert "3 questions in" in again.stdout
    assert "synthetic" in again.stdout
    assert isinstance(run(index, "--out", tmp_path / "made").exception, InputError)


def test_a_model_writes_and_is_not_asked_twice(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeListChatModel(responses=["Question: Which rock is dark and volcanic?"])
    monkeypatch.setattr(named, "chat_model", lambda name: model)
    cache = tmp_path / "answers.sqlite"
    done = run(index, "--out", tmp_path / "made", "--model", "fake:one", "-k", 1, "--cache", cache, "--json")
    told = json.loads(done.stdout)
    # one question for all passages: only that of the basalt finds its own
    assert (told["kept"], told["not_found"], told["tried"], told["model"]) == (1, 3, 4, "fake:one")
    assert list(load_dataset(tmp_path / "made").qrels.values()) == [{"p3": 1}]
    model.responses = ["None"]
    other = json.loads(run(index, "--out", tmp_path / "2", "--model", "fake:one", "-k", 1, "--cache", cache, "--json").stdout)
    assert other["kept"] == 1


def test_a_chat_model_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gpt", "openai:", ":gpt"):
        with pytest.raises(InputError, match="provider:name"):
            chat_model(name)
    monkeypatch.setattr(named, "_HOMES", ("no_such_package_at_all",))
    with pytest.raises(RagkitError, match="pip install langchain"):
        chat_model("openai:gpt")


def test_the_provider_is_asked_for_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langchain_openai", reason="needs a provider")
    if not any(_there(home) for home in named._HOMES):
        pytest.skip("needs LangChain")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert chat_model("openai:some-model:v2").model_name == "some-model:v2"
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(RagkitError, match="openai cannot be used"):
        chat_model("openai:some-model")
    with pytest.raises(InputError, match="--model"):
        chat_model("nobody:model")


def _there(home: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(home.partition(".")[0]) is not None
