"""Measures of documents as retrievers return them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_core.documents import Document

from ragkit.evaluation.measures import measure_rankings


def evaluate(
    results: Mapping[str, Sequence[Document]],
    qrels: Mapping[str, Mapping[str, int]],
    measures: Sequence[str] = ("nDCG@10", "R@100", "RR@10"),
) -> dict[str, float]:
    """Mean of each measure over all judged questions; a question without results counts as 0.

    Documents are taken in the order given, whatever their scores; a document that comes twice counts where it comes first.
    Raises `InputError` for a measure that ir-measures does not know.
    """
    rankings = {query: list(dict.fromkeys(str(document.id) for document in found)) for query, found in results.items()}
    return measure_rankings(rankings, qrels, measures).overall
