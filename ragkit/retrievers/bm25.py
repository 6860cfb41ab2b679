"""BM25 retrieval."""

from __future__ import annotations

from typing import Any

from ragkit.encoders.lexical import Analyzer
from ragkit.indexes.bm25 import BM25Index
from ragkit.retrievers.single import IndexRetriever
from ragkit.store.text_index import LexicalIndex, TextIndex


class BM25Retriever(IndexRetriever):
    """Ranks passages by BM25. Returns only passages that share a term with the question.

    Options of `from_documents`: `language` (English name or ISO code), `stopwords`, `stemming`, `heading_weight` and
    `title_weight` (how often a term counts that is in the headings above a passage, or in `metadata["title"]`), and those of
    `BM25Index`: `variant` ("lucene", "robertson", "atire", "bm25l", "bm25+", "okapi"), `k1`, `b`, `delta`, `epsilon`.
    """

    index_name: str = "bm25"
    """Which of the store's indexes to search."""

    @property
    def score_floor(self) -> float | None:
        """BM25 scores are not negative (Okapi's may be, for terms that most passages contain)."""
        return 0.0

    @classmethod
    def indexes(
        cls,
        *,
        language: str = "english",
        stopwords: bool = True,
        stemming: bool = True,
        heading_weight: float = 1.0,
        title_weight: float = 1.0,
        **bm25: Any,
    ) -> dict[str, TextIndex]:
        """See `StoreRetriever.indexes`."""
        analyzer = Analyzer(language, stopwords=stopwords, stemming=stemming)
        index = LexicalIndex(analyzer, BM25Index(**bm25), heading_weight=heading_weight, title_weight=title_weight)
        return {"bm25": index}
