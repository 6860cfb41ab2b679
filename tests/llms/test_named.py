"""A chat model by its name, wherever an `llm` may be a string: asked over HTTP like any other, wrong names said at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document

from ragkit import BM25Retriever, InputError, ListwiseReranker, Pipeline, RagkitError, Store
from ragkit.chains.config import PipelineConfig
from ragkit.evaluation.systems import Systems
from ragkit.llms import named
from ragkit.llms.chat import ChatLLM
from ragkit.llms.local import LocalLLM
from ragkit.llms.named import named_llm
from ragkit.retrievers.expansion import MultiQueryRetriever
from ragkit.store.text_index import LexicalIndex

pytest.importorskip("langchain_openai", reason="langchain-openai is not installed: pip install 'ragkit[openai]'")
pytest.importorskip("langchain", reason="needs LangChain")


@pytest.fixture
def server(chat_server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with chat_server(lambda body: "[2] > [1] > [3]") as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield running


@pytest.fixture
def store() -> Store:
    store = Store.memory({"bm25": LexicalIndex()})
    store.upsert([Document(id=str(n), page_content="tea " * n + "and water") for n in range(1, 4)])
    return store


def test_a_reranker_and_a_retriever_ask_the_model_that_is_named(server: Any, store: Store) -> None:
    found = BM25Retriever(store=store).invoke("tea")
    reranked = ListwiseReranker(llm="openai:some-model:v2").invoke({"query": "tea", "documents": found})
    assert [document.id for document in reranked] == [found[at].id for at in (1, 0, 2)]
    MultiQueryRetriever(store=store, llm="openai:other", retriever=BM25Retriever(store=store)).invoke("tea")
    assert [body["model"] for body in server.bodies] == ["some-model:v2", "other"]


def test_a_file_names_it(server: Any, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "ragkit.yaml"
    path.write_text('retriever: {type: bm25}\nstages: [{type: listwise, llm: "openai:some-model", max_concurrency: 3}]')
    pipeline = Pipeline.from_config(path, store=store)
    found = BM25Retriever(store=store).invoke("tea")
    assert [document.id for document in pipeline.invoke("tea")] == [found[at].id for at in (1, 0, 2)]
    [stage] = pipeline.stages
    model: Any = stage.model()  # type: ignore[attr-defined]
    assert model.max_concurrency == 3


def test_an_evaluation_asks_each_model_once(server: Any, store: Store, tmp_path: Path) -> None:
    def ask(name: str) -> None:
        systems = Systems("corpus", lambda encoder: store, tmp_path / "answers.sqlite")
        config = PipelineConfig(retriever={"type": "bm25"}, stages=[{"type": "listwise", "llm": name}])
        systems.make("mine", config).pipeline.invoke("tea")

    for name in ("openai:one", "openai:two", "openai:one", "openai:two"):
        ask(name)
    assert [body["model"] for body in server.bodies] == ["one", "two"]


def test_a_folder_wins_and_other_names_are_of_local_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openai:mine").mkdir()
    for name in ("openai:mine", tmp_path / "openai:mine", "org/name", "name", "C:\\models\\name", "./some:thing"):
        assert isinstance(named_llm(name), LocalLLM)
    monkeypatch.setattr(named, "chat_model", lambda name, field: pytest.fail("a folder is there"))
    ListwiseReranker(llm="openai:mine")


@pytest.mark.parametrize("name", ["openai:", "nobody:model"])
def test_a_wrong_name_is_said_where_it_stands(name: str, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "ragkit.yaml"
    path.write_text(json.dumps({"retriever": {"type": "bm25"}, "stages": [{"type": "listwise", "llm": name}]}))
    with pytest.raises(InputError, match=r"stages\.0\.llm: ") as caught:
        Pipeline.from_config(path, store=store)
    assert "\n" not in str(caught.value)
    assert "--model" not in str(caught.value)


def test_a_missing_package_and_a_missing_key_are_said(monkeypatch: pytest.MonkeyPatch, store: Store, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(RagkitError, match="llm: openai cannot be used"):
        ListwiseReranker(llm="openai:some-model")
    path = tmp_path / "ragkit.yaml"
    path.write_text('stages: [{type: listwise, llm: "openai:some-model"}]')
    with pytest.raises(RagkitError, match=r"ragkit\.yaml: stages\.0\.llm: openai cannot be used"):
        Pipeline.from_config(path, store=store)
    monkeypatch.setattr(named, "_HOMES", ("no_such_package_at_all",))
    with pytest.raises(RagkitError, match="llm: needs LangChain and the package"):
        ListwiseReranker(llm="openai:some-model")


def test_names_make_chat_models(server: Any) -> None:
    llm = named_llm("openai:some-model", 5)
    assert isinstance(llm, ChatLLM)
    assert llm.max_concurrency == 5
    assert named_llm("openai:other").identity != llm.identity == named_llm("openai:some-model").identity  # type: ignore[attr-defined]
