"""Setwise (Zhuang et al. 2024): which of these few is the best? By the text of the answer or by the scores of the labels."""

from __future__ import annotations

from collections.abc import Sequence

from ragkit.errors import InputError
from ragkit.rerankers.strategies.base import Answer, Choose, Question, Strategy
from ragkit.rerankers.strategies.matches import Group, Match, bubbles_of_matches, heap_of_matches


def heapsort(n: int, k: int, c: int = 3) -> Strategy:
    """Heapsort, c + 1 at once: at most ceil((n - 1) / c) + (k - 1) h calls in at most k h rounds, h = ceil(log_(c + 1) n).

    See `heap_of_matches`. The published form, which shows as many at once, takes more calls on average.
    """
    return heap_of_matches(n, k, _size(c), _BEST)


def bubble(n: int, k: int, c: int = 3) -> Strategy:
    """k passes of windows of c + 1: at most k ceil((n - 1) / c) calls in about ceil((n - 1) / c) + 2 (k - 1) rounds.

    See `bubbles_of_matches`.
    """
    return bubbles_of_matches(n, k, _size(c), _BEST)


def _size(c: int) -> int:
    if c < 1:
        raise InputError(f"c, the number of candidates shown besides the best so far, must be at least 1, not {c}")
    return c + 1


def _winner(group: Group, answers: Sequence[Answer]) -> int:
    (scores,) = answers
    if not isinstance(scores, tuple):
        return min(group)
    return max(zip(scores, group, strict=True), key=lambda scored: (scored[0], -scored[1]))[1]


def _choice(group: Group) -> list[Question]:
    return [Choose(group)]


_BEST = Match(_choice, _winner)
