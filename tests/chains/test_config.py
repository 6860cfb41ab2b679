"""A pipeline from YAML: what is built, and that every mistake names file and field."""

from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document

from ragkit import ExtractivePruner, HybridRetriever, InputError, Pipeline, Store, StoreError
from ragkit.chains.config import build_pipeline
from ragkit.chains.default import default_config
from ragkit.retrievers.multi_hop import MultiHopRetriever
from ragkit.store.store import bm25_and_dense

GOOD = """
store: {store}
retriever: {{type: hybrid, k: 20, weights: [0.3, 0.7], filter: {{lang: en}}}}
stages:
  - {{type: extractive, scorer: bm25, threshold: 0.4}}
k: 3
max_tokens: 100
"""


@pytest.fixture
def store(make_encoder: Any) -> Store:
    return Store.memory(bm25_and_dense(make_encoder()))


def test_fields_reach_their_components(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "ragkit.yaml"
    path.write_text(GOOD.format(store="elsewhere"))
    pipeline = Pipeline.from_config(path, store=store)
    assert isinstance(pipeline.retriever, HybridRetriever)
    assert (pipeline.retriever.k, pipeline.retriever.weights, pipeline.retriever.filter) == (20, [0.3, 0.7], {"lang": "en"})
    [pruner] = pipeline.stages
    assert isinstance(pruner, ExtractivePruner)
    assert (pruner.scorer, pruner.threshold, pipeline.k, pipeline.max_tokens) == ("bm25", 0.4, 3, 100)


def test_the_default_prunes_in_the_language_of_the_store(make_encoder: Any) -> None:
    store = Store.memory(bm25_and_dense(make_encoder(), "german"))
    store.upsert([Document(page_content="Der Preis eines Hauses stieg. Das Wetter blieb schön.")])
    pipeline = build_pipeline(Pipeline, default_config(store.language), store)
    *_, pruner = pipeline.stages
    pipeline.stages = [pruner.model_copy(update={"scorer": "bm25"})]
    assert pipeline.ground("Was kosten Häuser?").text.endswith("\nDer Preis eines Hauses stieg.")


def test_retrievers_may_be_inside_of_retrievers(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "ragkit.yaml"
    halves = "retrievers: [{type: bm25, k: 7}, {type: dense}], weights: [1, 3]"
    path.write_text(f"retriever: {{type: multi-hop, retriever: {{type: hybrid, {halves}}}}}")
    outer = Pipeline.from_config(path, store=store).retriever
    assert isinstance(outer, MultiHopRetriever)
    inner = outer.retriever
    assert isinstance(inner, HybridRetriever)
    assert [type(its).__name__ for its in inner.retrievers] == ["BM25Retriever", "DenseRetriever"]
    assert (inner.weights, inner.retrievers[0].k) == ([1, 3], 7)
    assert all(its.store is store for its in (outer, inner, *inner.retrievers))


def test_the_order_is_a_field(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "ragkit.yaml"
    path.write_text("order: best-at-ends")
    assert Pipeline.from_config(path, store=store).order == "best-at-ends"
    path.write_text("order: random")
    with pytest.raises(InputError, match=r"order: Input should be 'best-first', 'best-last', 'best-at-ends' or 'source'"):
        Pipeline.from_config(path, store=store)


def test_store_comes_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ragkit.yaml"
    path.write_text(GOOD.format(store=tmp_path / "absent"))
    with pytest.raises(StoreError, match="no index at"):
        Pipeline.from_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retriever: {type: hybird}", "retriever.type is 'hybird'; use one of bm25, decomposition, dense, "),
        ("retriever: {type: multi-hop, retriever: {type: dnese}}", "retriever.retriever.type is 'dnese'; use one of bm25"),
        (
            "retriever: {type: hybrid, retrievers: [{type: bm25, kk: 1}]}",
            "retriever.retrievers.0.kk is not a known field",
        ),
        ("retriever: &self {type: multi-hop, retriever: *self}", "is inside of too many others; nest at most 5"),
        ("retriever: {type: hybrid, kk: 3}", "retriever.kk is not a known field; use one of"),
        ("retriever: {type: hybrid, k: 0}", "retriever.k: Input should be greater than 0, got 0"),
        ("retriever: {type: hybrid, weights: [1]}", "retriever.*weights has 1 entries"),
        ("stages: [{type: extractive, threshold: 7}]", "stages.0.threshold: .*less than or equal to 1, got 7"),
        ("stages: [{threshold: 1}]", "stages.0.type is None"),
        ("stages: [{type: cross-encoder}]", "stages.0.model: Field required"),
        ("k: many", "k: Input should be a valid integer"),
        ("maxtokens: 3", "maxtokens is not a known field; use one of store"),
        ("retriever: [", "not valid YAML"),
        ("- a list", "must hold a mapping"),
        ("", "must hold a mapping"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, store: Store, text: str, message: str) -> None:
    path = tmp_path / "ragkit.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        Pipeline.from_config(path, store=store)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_missing_file_and_missing_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml"):
        Pipeline.from_config(tmp_path / "absent.yaml")
    (tmp_path / "ragkit.yaml").write_text("k: 3")
    with pytest.raises(InputError, match="store is missing"):
        Pipeline.from_config(tmp_path / "ragkit.yaml")
