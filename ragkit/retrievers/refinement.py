"""A question moved towards the passages it found: Rocchio and relevance models, as pure functions over vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragkit.sparse_vectors import SparseVectors

Floats = NDArray[np.floating[Any]]


def rocchio(query: Floats, passages: Floats, alpha: float, beta: float) -> Floats:
    """`alpha` times the question [dimension] plus `beta` times the mean of the passages [n, dimension]; float32 [dimension].

    Rocchio without its negative part, as in Li et al., "Pseudo Relevance Feedback with Deep Language Models and Dense Retrievers"
    (TOIS 2023). Without passages the question stays as it is.
    """
    if not len(passages):
        return query
    moved: Floats = (alpha * query + beta * passages.mean(0, dtype=np.float64)).astype(np.float32)
    return moved


def average(query: Floats, passages: Floats) -> Floats:
    """The mean of the question's vector and those of the passages, each counting the same (Li et al., TOIS 2023)."""
    return rocchio(query, passages, 1 / (len(passages) + 1), len(passages) / (len(passages) + 1))


def rm3(query: SparseVectors, passages: SparseVectors, scores: Sequence[float], terms: int, original: float) -> SparseVectors:
    """One question's weighted terms: `original` times its own, plus the rest times those of a relevance model.

    RM3 (Abdul-Jaleel et al., TREC 2004) over RM1 (Lavrenko and Croft, SIGIR 2001): a term's weight is the sum, over passages, of
    its share of the passage times the passage's score; the `terms` heaviest stay. Both parts are scaled to a sum of 1.
    `query` has one row, `passages` one per score. Without any weight in the passages the question keeps its own terms alone.
    """
    own, weights = query.row(0)
    weights = weights[own >= 0]  # a term that no passage has would only take its share of the sum
    own = own[own >= 0]
    model: dict[int, float] = {}
    for row, score in enumerate(scores):
        its_terms, its_weights = passages.row(row)
        length = float(its_weights.sum(dtype=np.float64))
        for term, weight in zip(its_terms.tolist(), its_weights.tolist(), strict=True):
            if term >= 0 and weight > 0:
                model[term] = model.get(term, 0.0) + score * weight / length
    best = dict(sorted(model.items(), key=lambda item: (-item[1], item[0]))[:terms])
    mixed: dict[int, float] = {}
    parts = [(dict(zip(own.tolist(), weights.tolist(), strict=True)), original), (best, 1 - original)]
    for part, share in parts if sum(best.values()) > 0 else parts[:1]:
        total = sum(part.values())
        for term, weight in part.items():
            mixed[term] = mixed.get(term, 0.0) + share * weight / total
    return SparseVectors.of([(list(mixed), list(mixed.values()))]).without_zeros()


def stack(rows: Sequence[SparseVectors]) -> SparseVectors:
    """Rows of several, one after the other."""
    return SparseVectors.of([vectors.row(i) for vectors in rows for i in range(len(vectors))])
