"""How well a search went, told from its scores and rankings alone: query performance prediction, as pure functions.

Scores are those of one question's results, best first. None of the figures means anything across retrievers, whose scales differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragkit.errors import InputError


def gap(scores: ArrayLike) -> float:
    """By how much the best score lies above the second; 0 if there are not two."""
    values = _scores(scores)
    return float(values[0] - values[1]) if len(values) > 1 else 0.0


def nqc(scores: ArrayLike, corpus_score: float = 1.0, k: int = 100) -> float:
    """The standard deviation of the `k` best scores, divided by the score of the whole corpus as one document.

    Normalised query commitment (Shtok et al., TOIS 2012): what drifts from the question scores alike. Without a `corpus_score`
    it compares questions of one retriever as far as their scores have one scale. 0 without results.
    """
    values = _scores(scores)[:k]
    return float(values.std()) / _nonzero(corpus_score) if len(values) else 0.0


def smv(scores: ArrayLike, corpus_score: float = 1.0, k: int = 100) -> float:
    """The mean of s * |ln(s / mean)| over the `k` best scores s, divided by the corpus score: magnitude and variance together.

    Tao and Wu, "Query performance prediction by considering score magnitude and variance together" (CIKM 2014). Scores that are
    not positive count as nothing.
    """
    values = _scores(scores)[:k]
    values = values[values > 0]
    if not len(values):
        return 0.0
    return float((values * np.abs(np.log(values / values.mean()))).mean()) / _nonzero(corpus_score)


def wig(scores: ArrayLike, terms: int, corpus_score: float = 0.0, k: int = 5) -> float:
    """The mean of the `k` best scores above the corpus score, divided by the square root of the question's number of terms.

    Weighted information gain (Zhou and Croft, SIGIR 2007). 0 without results or terms.
    """
    values = _scores(scores)[:k]
    return float((values - corpus_score).mean()) / float(np.sqrt(terms)) if len(values) and terms > 0 else 0.0


def overlap(first: Mapping[str, int], second: Mapping[str, int], depth: int = 10) -> float:
    """The share of `depth` places that two rankings give to the same documents; rankings map ids to ranks from 1.

    A ranking that is shorter is compared at the length of the longer of the two. 0 if neither has found anything.
    """
    one, other = _above(first, depth), _above(second, depth)
    longest = max(len(one), len(other))
    return len(one & other) / longest if longest else 0.0


def rank_biased_overlap(first: Mapping[str, int], second: Mapping[str, int], depth: int = 10, p: float = 0.9) -> float:
    """How alike two rankings are, from 0 to 1; the first rank counts most, and `p` says how much less each further one does.

    The agreement at depth d is the number of documents that are among the first d of both, divided by d; that at `depth`, or at
    the end of the longer ranking, is taken for all that lies below (equation 23 of Webber, Moffat and Zobel, "A similarity
    measure for indefinite rankings", TOIS 2010). 0 if neither has found anything. Raises `InputError` for a `p` that is not
    between 0 and 1, or a `depth` below 1.
    """
    if not 0 < p < 1:
        raise InputError(f"p: must lie between 0 and 1, not {p!r}")
    if depth < 1:
        raise InputError(f"depth: must be at least 1, not {depth!r}")
    depth = min(depth, max((*first.values(), *second.values()), default=0))
    if not depth:
        return 0.0
    shared = np.array([len(_above(first, d) & _above(second, d)) / d for d in range(1, depth + 1)])
    weights = p ** np.arange(1, depth + 1)
    return float(shared[-1] * p**depth + (1 - p) / p * (shared @ weights))


def coverage(asked: Mapping[str, float], shown: Sequence[str]) -> float:
    """The share of the question's terms, by weight, that occur among the terms `shown`; 0 for a question without terms.

    With inverse document frequencies as weights, this is how much of what the question is about can be read in the passages.
    """
    total = sum(asked.values())
    there = set(shown)
    return sum(weight for term, weight in asked.items() if term in there) / total if total else 0.0


def _scores(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InputError("scores: must be one list of finite numbers")
    return values


def _nonzero(corpus_score: float) -> float:
    if not corpus_score:
        raise InputError("corpus_score: must not be 0, as it is divided by")
    return abs(corpus_score)


def _above(ranks: Mapping[str, int], depth: int) -> set[str]:
    return {id_ for id_, rank in ranks.items() if rank <= depth}
