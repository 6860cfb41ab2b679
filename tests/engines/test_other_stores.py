"""The recipe of docs/stores.md: any LangChain vector store behind ragkit's pipeline."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.vectorstores import InMemoryVectorStore

from ragkit import Pipeline
from ragkit.documents.loaders import load_bytes
from ragkit.documents.split import split
from ragkit.documents.tokens import RegexTokenizer
from ragkit.retrievers.bm25 import BM25Retriever
from ragkit.retrievers.fused import FusedRetriever
from ragkit.retrievers.vector_store import VectorStoreRetriever


class Hashed(Embeddings):
    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._encoder.encode_queries(texts).tolist()  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def test_the_recipe(make_encoder: Any, tmp_path: Any) -> None:
    file = tmp_path / "fruit.md"
    file.write_text("# Fruit\n\nApples are red. Bananas are yellow.\n\n# Cars\n\nCars have four wheels.\n")
    (source,), _ = load_bytes(file.read_bytes(), file)
    passages = list(split(source, RegexTokenizer(), size=8))
    store = InMemoryVectorStore(Hashed(make_encoder()))
    records = InMemoryRecordManager("passages")
    records.create_schema()
    for added in (len(passages), 0):  # the second time nothing is new
        report = index(passages, records, store, cleanup="full", source_id_key=None, key_encoder="blake2b")
        assert report["num_added"] == added

    retriever = VectorStoreRetriever(store=store, scores="similarity", k=2)
    context = Pipeline(retriever=retriever, k=1).ground("Cars have four wheels.")
    assert "four wheels" in context.text
    # with BM25 over the same passages beside it
    held = [Document(id=id_, page_content=one["text"], metadata=one["metadata"]) for id_, one in store.store.items()]
    fused = FusedRetriever(retrievers=[retriever, BM25Retriever.from_documents(held)], k=2)
    best = fused.invoke("Bananas are yellow.")[0]
    assert "Bananas" in best.page_content
    assert len(best.metadata["ragkit"]["stages"]) == 3
