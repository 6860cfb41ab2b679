"""Components are pickled for other processes and copied: a store is opened again there, and shared by copies here."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document

from ragkit import BM25Retriever, DenseRetriever, ExtractivePruner, HybridRetriever, InputError, Pipeline, Store
from ragkit.encoders.dense import DenseEncoder
from ragkit.rerankers.cross_encoder import CrossEncoderReranker
from ragkit.store.store import bm25_and_dense

TEXTS = ["Green tea is steeped in hot water.", "Coffee is roasted. It is black.", "Basalt is a dark rock."]
QUESTION = "which tea is green"
ELSEWHERE = """
import pickle, sys
for component in pickle.load(open(sys.argv[1], "rb")):
    print([(document.id, document.page_content) for document in component.invoke(sys.argv[2])])
"""


def found(component: Any) -> list[tuple[str | None, str]]:
    return [(document.id, document.page_content) for document in component.invoke(QUESTION)]


def test_a_second_process_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = HybridRetriever.from_texts(TEXTS, path="index", encoder=DenseEncoder(None, max_length=64), k=2)
    HybridRetriever.from_texts(TEXTS, path="default")
    loaded = HybridRetriever.load("default", k=3)
    pipeline = Pipeline(retriever=made, stages=[ExtractivePruner(encoder=made.store.encoder)], k=1)
    components = [made, loaded, pipeline]
    expected = [found(component) for component in components]  # the encoders are in use: what they hold must not be in the way
    (tmp_path / "components.pickle").write_bytes(pickle.dumps(components))
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path / "components.pickle"), QUESTION],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [*map(str, expected)]


def test_retrievers_over_one_store_still_share_it(tmp_path: Path, make_encoder: Any) -> None:
    store = Store.create(tmp_path / "index", bm25_and_dense(make_encoder()))
    store.upsert([Document(page_content=text) for text in TEXTS])
    retriever = HybridRetriever(retrievers=[BM25Retriever(store=store), DenseRetriever(store=store)])
    again = pickle.loads(pickle.dumps(retriever))
    assert found(again) == found(retriever)
    assert again.store is not store
    assert all(inner.store is again.store for inner in again.retrievers)
    assert again.store.encoder.fingerprint == make_encoder().fingerprint
    again.store.upsert([Document(page_content="tea, green tea")])
    assert store.refresh()
    assert len(store) == len(TEXTS) + 1


def test_copies_share_the_store(tmp_path: Path, make_encoder: Any) -> None:
    for store in (Store.memory(bm25_and_dense(make_encoder())), Store.create(tmp_path / "index", bm25_and_dense(make_encoder()))):
        store.upsert([Document(page_content=text) for text in TEXTS])
        pipeline = HybridRetriever(store=store) >> ExtractivePruner(encoder=make_encoder())
        expected = found(pipeline)
        copied = copy.deepcopy(pipeline)
        assert copied.retriever is not pipeline.retriever
        assert copied.retriever.store is store  # type: ignore[attr-defined]
        copied.retriever.k = copied.stages[0].threshold = 1  # type: ignore[attr-defined]
        assert found(pipeline) == expected


def test_a_store_in_memory_says_what_to_do(make_encoder: Any) -> None:
    retriever = HybridRetriever.from_texts(TEXTS, encoder=make_encoder())
    for component in (retriever, retriever >> ExtractivePruner()):
        with pytest.raises(InputError, match=r"store: .*memory cannot be pickled; save it to a directory"):
            pickle.dumps(component)


def test_a_stage_leaves_behind_what_it_has_loaded() -> None:
    stage = CrossEncoderReranker(model="some/model", max_length=64)
    stage._loaded["some"] = lambda: "weights"  # as little to be pickled as they
    again = pickle.loads(pickle.dumps(stage))
    assert (again.model_dump(), again._loaded) == (stage.model_dump(), {})
    with again._lock:
        pass
    assert copy.deepcopy(stage)._loaded["some"] is stage._loaded["some"]


def test_an_encoder_is_its_arguments() -> None:
    encoder = DenseEncoder(None, max_length=32, query_prompt="query: ")
    vectors = encoder.encode_queries(TEXTS)
    again = pickle.loads(pickle.dumps(encoder))
    assert again.fingerprint == encoder.fingerprint
    assert (again.encode_queries(TEXTS) == vectors).all()
    assert copy.deepcopy(encoder) is encoder


def test_a_store_in_an_engine_is_not_pickled_but_shared_by_copies(tmp_path: Path, make_encoder: Any) -> None:
    pytest.importorskip("lancedb", reason="needs ragkit[lance]")
    retriever = HybridRetriever.from_texts(TEXTS, path=f"lance://{tmp_path}/index", encoder=make_encoder())
    with pytest.raises(InputError, match=r"store: .*lance://.* cannot be pickled"):
        pickle.dumps(retriever)
    assert copy.deepcopy(retriever).store is retriever.store
