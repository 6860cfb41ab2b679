"""Several rankings of one corpus into one: pure functions over positions and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ragkit.errors import InputError
from ragkit.indexes.base import Ranking, Scores, concatenate, top_k

Normaliser = Literal["min-max", "theoretical-min-max", "z-score", "dbsf"]


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
    depth: int | None = None,
) -> Ranking:
    """Weighted sum of normalised scores, weights scaled to 1 (Bruch, Gai and Ingber, TOIS 2023); top `k`.

    `floors` are the lowest scores that sources can give at all (0 for BM25, -1 for cosine; None where unknown), used by
    "theoretical-min-max". A document that a source did not return counts as 0 (or as the lowest returned, should that be less),
    with "z-score" always as the lowest returned. With "theoretical-min-max" it does so too if there are `depth` of these, the
    number asked for: it scored no higher then, but perhaps far above the floor. With "dbsf" and equal weights this is
    distribution-based score fusion.
    """
    total = sum(weights)
    lows = floors if floors is not None else [None] * len(rankings)
    parts, bottom = [], 0.0
    for ranking, weight, low in zip(rankings, weights, lows, strict=True):
        scores = normalise(ranking.scores, normaliser, low)
        cut = depth is not None and len(scores) >= depth
        lowest = float(scores.min()) if len(scores) else 0.0
        missing = lowest if normaliser == "z-score" or (cut and normaliser == "theoretical-min-max") else min(0.0, lowest)
        parts.append(weight / total * (scores - missing))
        bottom += weight / total * missing
    positions, sums = _sum(rankings, parts, k)
    return Ranking(positions, sums + bottom)


def check_weights(weights: Sequence[float] | None, sources: int) -> None:
    """Raise `InputError` unless there are none, or one for each source: finite, non-negative, and not all zero."""
    if weights is None:
        return
    if len(weights) != sources:
        raise InputError(f"weights has {len(weights)} entries for {sources} retrievers; give one for each")
    if not np.isfinite(weights).all() or min(weights) < 0 or sum(weights) <= 0:
        raise InputError("weights must be finite, non-negative and not all zero")


def normalise(scores: Scores, normaliser: Normaliser, floor: float | None = None) -> Scores:
    """One source's scores [n] brought to a common scale.

    "min-max" maps lowest to highest to 0 to 1, "theoretical-min-max" does so from `floor`, "z-score" gives mean 0 and standard
    deviation 1, and "dbsf" maps the mean minus and plus three (sample) standard deviations to 0 and 1 (Mazzeschi, "Distribution-
    based score fusion", 2023). Scores that are equal, up to rounding, say nothing of the order: all become 1 (min-max),
    0 (z-score) or 0.5 (dbsf).
    """
    if not len(scores):
        return scores
    if normaliser in ("z-score", "dbsf"):
        centred = scores - scores.mean()
        deviation = float(centred.std(ddof=int(normaliser == "dbsf"))) if np.ptp(scores) > _rounding(scores) else np.inf
        z: Scores = centred / deviation
        return z if normaliser == "z-score" else 0.5 + z / 6
    low = float(scores.min())
    if normaliser == "theoretical-min-max" and floor is not None:
        low = min(low, floor)
    span = float(scores.max()) - low
    return (scores - low) / span if span > _rounding(scores) else np.ones_like(scores)


def _rounding(scores: Scores) -> float:
    """What scores that are equal but for float32 arithmetic may differ by."""
    return 1e-6 * float(np.abs(scores).max())


def _sum(rankings: Sequence[Ranking], parts: Sequence[Scores], k: int) -> Ranking:
    positions, where = np.unique(concatenate([ranking.positions for ranking in rankings], np.int64), return_inverse=True)
    scores: Scores = np.bincount(where, weights=concatenate(list(parts), np.float64), minlength=len(positions)).astype(np.float64)
    return top_k(positions, scores, k)
