"""BM25 among a handful of texts, without a store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragkit.corpus.rows import IndexedText
from ragkit.encoders.lexical import Analyzer
from ragkit.indexes.base import Scores
from ragkit.store.text_index import LexicalIndex


def bm25_scores(question: str, texts: Sequence[str], language: str) -> Scores:
    """The BM25 score of each text for the question [texts]; 0 for those that share no term with it."""
    index, scores = LexicalIndex(Analyzer(language)), np.zeros(len(texts))
    if texts:
        index.add(np.arange(len(texts)), index.prepare([IndexedText(text) for text in texts], []))
        (hits,) = index.search([question], len(texts))
        scores[hits.positions] = hits.scores
    return scores
