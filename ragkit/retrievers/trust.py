"""How far to trust the dense ranking of one question against the one of BM25: a pure function of the two."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ragkit.indexes.base import Positions, Ranking, Scores

DEPTH = 100
"""How many hits of each ranking count."""
USUAL = 2.5
"""The weight where there is no evidence: the best constant on training questions of four sets."""
AGREEMENT, DECISIVENESS, HIGHEST = 1.6, -1.2, 3.5
"""Fitted by benchmarks/fusion_weights.py on training questions of five sets in three languages, as they are and with one side
made worse: vectors cut to fewer dimensions, blurred, or swapped between passages; words that BM25 does not find."""
LOWEST = math.exp(-2)
_TOP, _FEW = 10, 3
_FLAT = 0.02  # a fall of scores by less is taken for this much


class Evidence(NamedTuple):
    """What two rankings of one question say of each other."""

    agreement: float
    """From 0 to 1, the mean of two shares: the BM25 score of the nearest three passages, of the best one; and how far up from the
    farthest to the nearest hit BM25's first lies. What a ranking lacks has its lowest score."""
    decisiveness: float
    """How much of its scale BM25 uses up in its first ten hits, by how much of theirs the cosines do; positive."""


def dense_weight(bm25: Ranking, dense: Ranking, depth: int = DEPTH) -> float:
    """What the dense ranking counts where the one of BM25 counts 1, in a convex combination on theoretical scales.

    It is `exp(AGREEMENT * agreement) * decisiveness ** DECISIVENESS`, kept between `LOWEST` and `HIGHEST`. Rankings are cut at
    100 hits; `depth` is how many were asked for, so that a shorter one is known to be complete.
    """
    found = evidence(bm25, dense, depth)
    if found is None:
        return USUAL
    exponent = AGREEMENT * found.agreement + DECISIVENESS * math.log(found.decisiveness)
    return min(max(math.exp(exponent), LOWEST), HIGHEST)


def evidence(bm25: Ranking, dense: Ranking, depth: int = DEPTH) -> Evidence | None:
    """The evidence that `dense_weight` goes by; None if BM25 has no positive score, or vectors gave ten hits or fewer."""
    positions, scores = bm25.positions[:DEPTH], bm25.scores[:DEPTH]
    near, cosines = dense.positions[:DEPTH], dense.scores[:DEPTH]
    if len(cosines) <= _TOP or not len(scores) or scores[0] <= 0:
        return None
    best, nearest, farthest = float(scores[0]), float(cosines[0]), float(cosines[-1])
    lowest = float(scores[-1]) if len(scores) >= min(depth, DEPTH) else 0.0
    span = max(nearest - farthest, 1e-9)

    support = sum(_score(position, positions, scores, lowest) for position in near[:_FEW]) / (len(near[:_FEW]) * best)
    closeness = (_score(int(positions[0]), near, cosines, farthest) - farthest) / span
    tenth = float(scores[_TOP - 1]) if len(scores) >= _TOP else lowest
    steep = max(1 - tenth / best, _FLAT)
    fall = max((nearest - float(cosines[:_TOP][-1])) / span, _FLAT)
    return Evidence((support + closeness) / 2, steep / fall)


def _score(position: int, positions: Positions, scores: Scores, missing: float) -> float:
    found = np.flatnonzero(positions == position)
    return float(scores[found[0]]) if len(found) else missing
