"""LangChain's own standard tests, run on each retriever, on pipelines, and on the corpus behind them."""

from collections.abc import Generator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.indexing.base import DocumentIndex
from langchain_tests.integration_tests import RetrieversIntegrationTests
from langchain_tests.integration_tests.indexer import AsyncDocumentIndexTestSuite, DocumentIndexerTestSuite

from ragkit import BM25Retriever, DenseRetriever, ExtractivePruner, HybridRetriever, Pipeline
from ragkit.store.store import Store, bm25_and_dense

TEXTS = [f"retrieval of passage number {n} from a corpus" for n in range(6)]


@pytest.fixture(autouse=True)
def _store(make_encoder: Any, request: Any) -> None:
    store = Store.memory(bm25_and_dense(make_encoder()))
    store.upsert([Document(page_content=text) for text in TEXTS])
    if request.instance is not None:
        request.instance.store = store
        request.instance.encoder = make_encoder()


class Contract(RetrieversIntegrationTests):
    store: Store
    encoder: Any

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.store}

    @property
    def retriever_query_example(self) -> str:
        return "retrieval of a passage"


class TestBM25(Contract):
    @property
    def retriever_constructor(self) -> type[BM25Retriever]:
        return BM25Retriever


class TestDense(Contract):
    @property
    def retriever_constructor(self) -> type[DenseRetriever]:
        return DenseRetriever


class TestHybrid(Contract):
    @property
    def retriever_constructor(self) -> type[HybridRetriever]:
        return HybridRetriever


class TestPipeline(Contract):
    @property
    def retriever_constructor(self) -> type[Pipeline]:
        return Pipeline

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        pruner = ExtractivePruner(encoder=self.encoder, min_sentences=1)
        return {"retriever": HybridRetriever(store=self.store), "stages": [pruner]}


RETRIEVERS = [BM25Retriever, DenseRetriever, HybridRetriever]


class TestDocumentIndex(DocumentIndexerTestSuite):
    @pytest.fixture(params=RETRIEVERS)
    def index(self, request: Any, make_encoder: Any) -> DocumentIndex:
        return request.param(store=Store.memory(bm25_and_dense(make_encoder())))


class TestDocumentIndexOnDisk(DocumentIndexerTestSuite):
    @pytest.fixture
    def index(self, tmp_path: Any, make_encoder: Any) -> Generator[DocumentIndex, None, None]:
        with Store.create(tmp_path / "index", bm25_and_dense(make_encoder())) as store:
            yield HybridRetriever(store=store)


class TestAsyncDocumentIndex(AsyncDocumentIndexTestSuite):
    @pytest.fixture(params=RETRIEVERS)
    async def index(self, request: Any, make_encoder: Any) -> DocumentIndex:
        return request.param(store=Store.memory(bm25_and_dense(make_encoder())))


def test_langchain_index_with_a_record_manager(make_encoder: Any) -> None:
    encoder = make_encoder()
    retriever = HybridRetriever(store=Store.memory(bm25_and_dense(encoder)))
    manager = InMemoryRecordManager("test")
    manager.create_schema()

    def run(*texts: str) -> dict[str, int]:
        documents = [Document(page_content=text, metadata={"source": "s"}) for text in texts]
        result = index(documents, manager, retriever, cleanup="full", source_id_key="source", key_encoder="blake2b")
        return {key: value for key, value in result.items() if value}

    assert run("one fish", "two fish") == {"num_added": 2}
    assert run("one fish", "red fish") == {"num_added": 1, "num_skipped": 1, "num_deleted": 1}
    assert encoder.encoded == 3
    assert sorted(document.page_content for document in retriever.invoke("fish")) == ["one fish", "red fish"]
