"""What workers of the tests ask: importable by name in every process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bulk_encoders import SlowEncoder
from langchain_core.documents import BaseDocumentCompressor, Document

from ragkit import BM25Retriever, Pipeline, Store
from ragkit.errors import MissingExtraError


class Failing(BaseDocumentCompressor):
    """Fails for questions with FAIL in them, with an exception that does not survive pickling; else leaves all as it is."""

    def compress_documents(self, documents: Sequence[Document], query: str, callbacks: Any = None) -> Sequence[Document]:
        if "FAIL" in query:
            raise MissingExtraError(query, "none")
        return documents


def failing_pipeline(index: str) -> Pipeline:
    """BM25 over an index, and a stage that fails."""
    return BM25Retriever(store=Store.open(index, encoder=SlowEncoder()), k=3) >> Failing()
