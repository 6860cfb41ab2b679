"""Every candidate judged alone: yes or no, a grade, query likelihood, reasoning; what is asked is the judge's business."""

from __future__ import annotations

from math import isnan, nan

from ragkit.rerankers.strategies.base import Grade, Ranked, Round, Strategy


def pointwise(n: int, k: int) -> Strategy:
    """One grade per candidate: n calls in 1 round. Which k are wanted changes nothing: all must be seen to find them.

    A candidate without a grade keeps its place, and the others are sorted around it: nothing speaks for moving it. Its score
    is NaN; with no grade at all there are no scores.
    """
    if n < 2 or k < 1:
        return Ranked(range(n))
    answers = yield Round([Grade(candidate) for candidate in range(n)], range(n))
    scores = [float(answer) if isinstance(answer, int | float) else nan for answer in answers]
    graded = [candidate for candidate in range(n) if not isnan(scores[candidate])]
    order = list(range(n))
    for place, candidate in zip(graded, sorted(graded, key=lambda candidate: -scores[candidate]), strict=True):
        order[place] = candidate
    return Ranked(order, scores if graded else None)
