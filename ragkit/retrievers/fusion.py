"""Several rankings of one corpus into one: pure functions over positions and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ragkit.indexes.base import Ranking, Scores, concatenate, top_k

Normaliser = Literal["min-max", "theoretical-min-max", "z-score"]


def reciprocal_rank_fusion(rankings: Sequence[Ranking], weights: Sequence[float], k: int, *, constant: int = 60) -> Ranking:
    """Sum of `weight / (constant + rank)` with 1-based ranks (Cormack, Clarke and Büttcher, SIGIR 2009); top `k`."""
    parts = [weight / (constant + 1 + np.arange(len(r.positions))) for r, weight in zip(rankings, weights, strict=True)]
    return _sum(rankings, parts, k)


def convex_combination(
    rankings: Sequence[Ranking],
    weights: Sequence[float],
    k: int,
    *,
    normaliser: Normaliser = "min-max",
    floors: Sequence[float | None] | None = None,
) -> Ranking:
    """Weighted sum of normalised scores, weights scaled to 1 (Bruch, Gai and Ingber, TOIS 2023); top `k`.

    A document that a source did not return counts as the bottom of that source's scale: 0, or the lowest z-score it returned.
    `floors` are the lowest scores that sources can give at all (0 for BM25, -1 for cosine; None where unknown), used by
    "theoretical-min-max".
    """
    total = sum(weights)
    lows = floors if floors is not None else [None] * len(rankings)
    parts = []
    for ranking, weight, low in zip(rankings, weights, lows, strict=True):
        scores = normalise(ranking.scores, normaliser, low)
        # adding a constant to every document changes no order, so "missing" can be made zero
        base = min(0.0, float(scores.min())) if len(scores) else 0.0
        parts.append(weight / total * (scores - base))
    return _sum(rankings, parts, k)


def normalise(scores: Scores, normaliser: Normaliser, floor: float | None = None) -> Scores:
    """One source's scores [n] brought to a common scale; equal scores become all ones (min-max) or all zeros (z-score)."""
    if not len(scores):
        return scores
    if normaliser == "z-score":
        deviation = float(scores.std())
        return (scores - scores.mean()) / deviation if deviation > 0 else np.zeros_like(scores)
    low = float(scores.min())
    if normaliser == "theoretical-min-max" and floor is not None:
        low = min(low, floor)
    span = float(scores.max()) - low
    return (scores - low) / span if span > 0 else np.ones_like(scores)


def _sum(rankings: Sequence[Ranking], parts: Sequence[Scores], k: int) -> Ranking:
    positions, where = np.unique(concatenate([ranking.positions for ranking in rankings], np.int64), return_inverse=True)
    scores: Scores = np.bincount(where, weights=concatenate(list(parts), np.float64), minlength=len(positions)).astype(np.float64)
    return top_k(positions, scores, k)
