"""Pairwise ranking prompting, PRP (Qin et al. 2023): which of two? Each pair in both orders, as models prefer a place."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from ragkit.rerankers.strategies.base import Answer, Compare, Question, Ranked, Round, Strategy
from ragkit.rerankers.strategies.matches import Group, Match, bubbles_of_matches, heap_of_matches


def allpair(n: int, k: int) -> Strategy:
    """Every pair in both orders: n(n - 1) calls in 1 round, whichever k are wanted.

    A candidate's score is how many others it beats; where the two answers do not agree on one of the pair, each has half a win.
    """
    if n < 2 or k < 1:
        return Ranked(range(n))
    pairs = list(permutations(range(n), 2))
    answers = yield Round([Compare(*pair) for pair in pairs], range(n))
    said = dict(zip(pairs, answers, strict=True))
    wins = [0.0] * n
    for first, second in pairs:
        if first < second:
            share = _share(said[first, second], said[second, first])
            wins[first] += share
            wins[second] += 1 - share
    return Ranked(sorted(range(n), key=lambda candidate: -wins[candidate]), wins)


def heapsort(n: int, k: int) -> Strategy:
    """Heapsort of pairs: at most 2 (n - 1 + (k - 1) ceil(log2 n)) calls, in at most k ceil(log2 n) rounds; see `heap_of_matches`.

    A win needs both answers to agree; otherwise the previous order stands.
    """
    return heap_of_matches(n, k, 2, _PAIR)


def sliding(n: int, k: int) -> Strategy:
    """k bubble passes over neighbours: at most 2 (k (n - 1) - k (k - 1) / 2) calls, less than the published 2kn, in at most
    n + k - 2 rounds. 2 (n - 1) calls if nothing has to move. See `bubbles_of_matches`; a win is as in `heapsort`.
    """
    return bubbles_of_matches(n, k, 2, _PAIR)


def _both_orders(pair: Group) -> list[Question]:
    first, second = pair
    return [Compare(first, second), Compare(second, first)]


def _winner(pair: Group, answers: Sequence[Answer]) -> int:
    share = _share(*answers)
    return min(pair) if share == 0.5 else pair[0 if share else 1]


def _share(answer: Answer, swapped: Answer) -> float:
    """What the first of a pair wins, from the answer with it shown first and from that with it shown second."""
    if not isinstance(answer, int | float) or not isinstance(swapped, int | float):
        return 0.5
    if answer > 0.5 and swapped < 0.5:
        return 1.0
    return 0.0 if answer < 0.5 and swapped > 0.5 else 0.5


_PAIR = Match(_both_orders, _winner)
