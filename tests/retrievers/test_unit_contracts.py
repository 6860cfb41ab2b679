"""LangChain's own standard tests, run on the retrievers of units and documents."""

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.indexing.base import DocumentIndex
from langchain_tests.integration_tests import RetrieversIntegrationTests
from langchain_tests.integration_tests.indexer import DocumentIndexerTestSuite

from ragkit import Store, bm25_and_dense
from ragkit.retrievers.documents import DocumentContextRetriever, DocumentRetriever
from ragkit.retrievers.long_units import LongUnitRetriever
from ragkit.retrievers.units import UnitRetriever
from ragkit.store.unit_index import UnitIndex

TEXTS = [f"retrieval of passage number {n}. It is in a corpus." for n in range(6)]
RETRIEVERS = [UnitRetriever, DocumentRetriever, DocumentContextRetriever, LongUnitRetriever]


class Contract(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _store(self, make_encoder: Any) -> None:
        encoder = make_encoder()
        self.store = Store.memory({**bm25_and_dense(encoder), "units": UnitIndex(encoder)})
        self.store.upsert([Document(page_content=text) for text in TEXTS])

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.store}

    @property
    def retriever_query_example(self) -> str:
        return "retrieval of a passage"


class TestUnits(Contract):
    retriever_constructor = UnitRetriever


class TestDocuments(Contract):
    retriever_constructor = DocumentRetriever


class TestDocumentContext(Contract):
    retriever_constructor = DocumentContextRetriever


class TestLongUnits(Contract):
    retriever_constructor = LongUnitRetriever


class TestDocumentIndex(DocumentIndexerTestSuite):
    @pytest.fixture(params=RETRIEVERS)
    def index(self, request: Any, make_encoder: Any) -> DocumentIndex:
        encoder = make_encoder()
        return request.param(store=Store.memory({**bm25_and_dense(encoder), "units": UnitIndex(encoder)}))
