"""Weights of fusion, fitted on a few labelled questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ragkit.errors import InputError
from ragkit.indexes.base import Positions, Ranking

Fuse = Callable[[Sequence[Ranking], Sequence[float], int], Ranking]
"""Rankings of one question, a weight for each, k: the fused ranking. `convex_combination` is one."""

_CUT = 10


class Labelled(NamedTuple):
    """One question: what every source found for it, and the gain of each relevant position."""

    rankings: Sequence[Ranking]
    gains: Mapping[int, float]


class Fitted(NamedTuple):
    """The best weights (they sum to 1) on all questions, and the mean nDCG@10 of questions that were held out of fitting."""

    weights: tuple[float, ...]
    held_out: float


def fit_weights(questions: Sequence[Labelled], fuse: Fuse, *, steps: int = 20, folds: int = 5) -> Fitted:
    """The multiples of 1 / `steps` with the highest mean nDCG@10 as weights, the most even ones of equals.

    Each question is also scored with weights fitted without its fold (question i is in fold i modulo `folds`).
    Raises `InputError` for fewer than two questions or folds, questions without a relevant position, or with unequal numbers of
    sources.
    """
    if steps < 1 or folds < 2:
        raise InputError(f"steps, folds: must be at least 1 and 2, not {steps} and {folds}")
    if len(questions) < 2:
        raise InputError(f"questions: fitting weights needs at least two, not {len(questions)}")
    sources = len(questions[0].rankings)
    for question in questions:
        if len(question.rankings) != sources or not sources:
            raise InputError("questions: all need a ranking from each of the same sources")
        if not any(gain > 0 for gain in question.gains.values()):
            raise InputError("questions: one has no relevant position; leave it out")
    # even weights first, so that argmax prefers them among equals
    grid = sorted(_simplex(sources, steps), key=lambda weights: sum(w * w for w in weights))
    shares = [tuple(w / steps for w in weights) for weights in grid]
    scores = np.array([[ndcg(fuse(q.rankings, w, _CUT).positions, q.gains) for q in questions] for w in shares])
    fold = np.arange(len(questions)) % min(folds, len(questions))
    held_out = 0.0
    for f in np.unique(fold):
        chosen = scores[_best(scores[:, fold != f].mean(1))]
        held_out += float(chosen[fold == f].sum())
    return Fitted(shares[_best(scores.mean(1))], held_out / len(questions))


def ndcg(positions: Positions, gains: Mapping[int, float], cut: int = _CUT) -> float:
    """nDCG of a ranking's first `cut` positions, with gains as they are (Järvelin and Kekäläinen, TOIS 2002); 0 without gains."""
    discounts = 1 / np.log2(np.arange(2, cut + 2))
    found = np.array([gains.get(int(position), 0.0) for position in positions[:cut]])
    ideal = np.sort([gain for gain in gains.values() if gain > 0])[::-1][:cut]
    best = float(ideal @ discounts[: len(ideal)])
    return float(found @ discounts[: len(found)]) / best if best else 0.0


def _best(means: np.ndarray[tuple[int], np.dtype[np.float64]]) -> int:
    return int(np.argmax(means > means.max() - 1e-12))  # the first of those that differ by rounding only


def _simplex(sources: int, steps: int) -> Iterator[tuple[int, ...]]:
    if sources == 1:
        yield (steps,)
        return
    for first in range(steps + 1):
        for rest in _simplex(sources - 1, steps - first):
            yield (first, *rest)
