"""What can be said of one question's candidates from several rankings of them: the input of a learned fusion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragkit.indexes.base import Positions, Ranking, Scores
from ragkit.retrievers.fusion import normalise

Features = NDArray[np.float64]

_TOP = 10
"""How many hits of a ranking a candidate is compared with, and how many the question's features are taken from."""
_RISING, _FALLING, _FREE = 1, -1, 0
_OVERALL = {"fused": _RISING, "fused_behind": _FALLING, "fused_reciprocal_rank": _RISING, "inner_product": _RISING}
_QUESTION = ("terms", "agreement")
_EACH = {
    "score": _RISING,
    "scaled": _RISING,
    "reciprocal_rank": _RISING,
    "found": _RISING,
    "behind": _FALLING,
    "mean_similarity": _FREE,
    "highest_similarity": _FREE,
    "best": _FREE,
    "lead": _FREE,
    "fall": _FREE,
}


class Evidence(NamedTuple):
    """One question: what each retriever found, how that was fused, and the vectors of the fused candidates.

    `vectors` [n, d] belong to `fused.positions` [n], `query` [d] is the question's; d is 0 where there are none.
    """

    rankings: Sequence[Ranking]
    fused: Ranking
    terms: int
    vectors: NDArray[np.float32]
    query: NDArray[np.float32]


def feature_names(stages: Sequence[str]) -> list[str]:
    """Names of the columns of `features`, for rankings by these stages, in letters, digits and underscores."""
    each = [f"{name}_{re.sub(r'[^A-Za-z0-9]', '_', stage)}" for stage in stages for name in _EACH]
    return [*_OVERALL, *_QUESTION, *each]


def directions(retrievers: int) -> list[int]:
    """Per column of `features`: 1 if more of it cannot speak against a candidate, -1 if not for it, 0 if either may be."""
    return [*_OVERALL.values(), *[_FREE] * len(_QUESTION), *[*_EACH.values()] * retrievers]


def features(evidence: Evidence) -> Features:
    """One row per fused candidate and one column per name of `feature_names` [n, columns].

    Of the candidate: fused score, its distance to the best, reciprocal rank, inner product with the question. Of the question:
    number of terms, share of common hits among the first ten of the retrievers. Of each retriever: the candidate's score (the
    lowest returned, if it was not found), the same under min-max (0 if not found), reciprocal rank, whether it was found,
    distance to the best; mean similarity to the first ten hits but itself, weighted by their scaled scores, and the highest one
    (after HybRank, Zhang et al., ACL 2023); the best score, and by what share of it the second and the tenth are lower.
    """
    positions, scores = evidence.fused
    count = len(positions)
    ranks = np.arange(1, count + 1)
    overall = [scores, scores.max(initial=-np.inf) - scores, 1 / ranks, np.einsum("nd,d->n", evidence.vectors, evidence.query)]
    question = [np.full(count, evidence.terms), np.full(count, _agreement(evidence.rankings))]
    each = [column for ranking in evidence.rankings for column in _of_retriever(ranking, positions, evidence.vectors)]
    return np.stack([*overall, *question, *each], axis=1).astype(np.float64)


def _of_retriever(ranking: Ranking, positions: Positions, vectors: NDArray[np.float32]) -> list[Scores]:
    """The columns of `_EACH`, in its order."""
    found, place = _places(ranking.positions, positions)
    scaled = normalise(ranking.scores, "min-max")
    best, lowest = float(ranking.scores.max(initial=0)), 0.0
    if len(ranking.scores):
        best, lowest = float(ranking.scores[0]), float(ranking.scores.min())
    score, share, reciprocal = np.full(len(positions), lowest), np.zeros(len(positions)), np.zeros(len(positions))
    score[found], share[found], reciprocal[found] = ranking.scores[place], scaled[place], 1 / (place + 1)
    mean, highest = _similarities(ranking.positions[:_TOP], scaled[:_TOP], positions, vectors)
    question = [np.full(len(positions), value) for value in (best, _drop(ranking.scores, 1), _drop(ranking.scores, _TOP - 1))]
    return [score, share, reciprocal, found.astype(np.float64), best - score, mean, highest, *question]


def _places(ranked: Positions, wanted: Positions) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which of the wanted are ranked [n], and the 0-based ranks of those that are."""
    at = {int(position): place for place, position in enumerate(ranked)}
    places = np.array([at.get(int(position), -1) for position in wanted], np.int64)
    return places >= 0, places[places >= 0]


def _similarities(hits: Positions, weights: Scores, positions: Positions, vectors: NDArray[np.float32]) -> tuple[Scores, Scores]:
    """Per candidate the weighted mean and the maximum of its inner products with those hits that are candidates too [n]."""
    known, rows = _places(positions, hits)
    if not len(rows):
        return np.zeros(len(positions)), np.zeros(len(positions))
    products = np.asarray(vectors @ vectors[rows].T, np.float64)
    others = positions[:, None] != hits[known][None, :]
    weight = np.where(others, weights[known], 0.0)
    total = weight.sum(1)
    mean = (products * weight).sum(1) / np.where(total > 0, total, 1.0)
    highest = np.where(others, products, -np.inf).max(1)
    return mean, np.where(np.isfinite(highest), highest, 0.0)


def _drop(scores: Scores, place: int) -> float:
    """By what share of the first score that at `place`, or the last, is lower."""
    if not len(scores) or not scores[0]:
        return 0.0
    return float((scores[0] - scores[min(place, len(scores) - 1)]) / abs(scores[0]))


def _agreement(rankings: Sequence[Ranking]) -> float:
    """Mean over all pairs of rankings: the share of the first ten hits that they have in common."""
    tops = [set(ranking.positions[:_TOP].tolist()) for ranking in rankings]
    shares = [len(one & other) / _TOP for one, other in combinations(tops, 2)]
    return sum(shares) / len(shares) if shares else 1.0
