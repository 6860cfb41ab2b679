"""BM25 retrieval."""

from __future__ import annotations

from typing import Any

from ragkit.encoders.lexical import Analyzer
from ragkit.indexes.bm25 import BM25Index
from ragkit.indexes.bm25_formulas import Variant
from ragkit.retrievers.base import UnknownOptionError
from ragkit.retrievers.single import IndexRetriever
from ragkit.store.text_index import LexicalIndex, TextIndex


class BM25Retriever(IndexRetriever):
    """Ranks passages by BM25. Returns only passages that share a term with the question.

    Options of `from_documents`: `language` (English name or ISO code), `stopwords`, `stemming`, `heading_weight` and
    `title_weight` (how often a term counts that is in the headings above a passage, or in `metadata["title"]`), and those of
    `BM25Index`: `variant` ("lucene", "robertson", "atire", "bm25l", "bm25+", "okapi"), `k1`, `b`, `delta`, `epsilon`,
    `budget`.
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
        variant: Variant = "lucene",
        k1: float = 1.2,
        b: float = 0.75,
        delta: float | None = None,
        epsilon: float = 0.25,
        budget: int | None = None,
        **unknown: Any,
    ) -> dict[str, TextIndex]:
        """See `StoreRetriever.indexes`."""
        if unknown:
            raise UnknownOptionError(next(iter(unknown)))
        analyzer = Analyzer(language, stopwords=stopwords, stemming=stemming)
        index = BM25Index(variant, k1, b, delta, epsilon, budget=budget)
        return {"bm25": LexicalIndex(analyzer, index, heading_weight=heading_weight, title_weight=title_weight)}
