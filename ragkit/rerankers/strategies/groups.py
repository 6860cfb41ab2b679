"""Our own listwise strategy: groups ordered in parallel, merged by a Plackett-Luce fit, refined where the top k is open."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import pairwise
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError
from ragkit.rerankers.strategies.base import Answer, Order, Ranked, Round, Strategy
from ragkit.rerankers.strategies.orders import order_of, permuted
from ragkit.rerankers.strategies.plackett_luce import plackett_luce

Shown = Sequence[int]
"""Candidates in the order in which a question shows them."""

_KEPT = 0.4
"""The share of the contenders that stays from one round to the next."""


def groups(n: int, k: int, window: int = 20, *, trust: float = 0.5, weight: float = 1.0) -> Strategy:
    """Order groups in parallel, keep the best, and order those again.

    1. All n candidates, in groups of at most `window`, each a fair sample of the previous order: g, g + G, g + 2G, ...
    2. The best 40% in such groups, shown worst first, and so on until a window, or twice k, remain.
    3. Those, shown best first and worst first, so that what a judge gives to the first it shows cancels out. The second of the
       two is left out where all would show more than 2n - `window` passages, which is what a sliding window shows.

    What the answers say together is the Plackett-Luce fit of all orders (`plackett_luce`), where before any answer the candidate
    at rank r has the strength r ** -`trust`, as sure as `weight` choices. But as long as none failed and none contradicts the
    others, there is nothing to estimate: whoever has k better ones is out, and the top k is settled once all its members are
    known to be better than all others. That ends it early. It also means that a judge which does not err is asked, in further
    rounds, what the planned ones leave open, so that it gets the right top k for every n and k.

    The best 10 of 100 take 5 + 2 + 2 questions in 3 rounds and show 180 passages; the sliding window takes 9 questions in 9
    rounds and shows as many. With a judge that does not err these three rounds are enough. Up to `window` candidates are one
    question.
    """
    if window < 2:
        raise InputError(f"window must be at least 2, not {window}")
    return _groups(n, min(k, n), window, _Evidence(n, min(k, n), trust, weight))


def _groups(n: int, k: int, window: int, evidence: _Evidence) -> Strategy:
    asked: set[Order] = set()
    plan = _plan(n, k, window) if n > 1 else []
    ranking = list(range(n))
    is_open = n > 1 and k > 0
    while is_open:
        step = plan.pop(0) if plan else None
        shown = _shown(step, ranking, window) if step else evidence.open_windows(window)
        questions = dict.fromkeys(order_of(group, k) for group in shown if len(group) > 1)
        new = [question for question in questions if question not in asked]
        if not new:
            if step:
                continue
            break
        asked.update(new)
        is_open = evidence.add(new, (yield Round(new, ranking)))
        ranking = evidence.ranking()
    return Ranked(ranking)


class _Step(NamedTuple):
    """A planned round: the best `contenders` in groups, each shown in one or both directions."""

    contenders: int
    best_first: bool
    worst_first: bool
    last: bool = False


def _plan(n: int, k: int, window: int) -> list[_Step]:
    steps = [_Step(n, best_first=True, worst_first=False)]
    last = min(n, max(window, 2 * k))
    contenders = ceil(_KEPT * n)
    while contenders >= 1.5 * last:
        steps.append(_Step(contenders, best_first=False, worst_first=True))
        contenders = ceil(_KEPT * contenders)
    if n > window:
        spent = sum(step.contenders for step in steps)
        steps.append(_Step(last, best_first=True, worst_first=spent + 2 * last <= 2 * n - window, last=True))
    return steps


def _shown(step: _Step, ranking: Shown, window: int) -> list[Shown]:
    """The groups of a planned round: fair samples to find the best; neighbours, and others the other way round, to order them."""
    best = ranking[: step.contenders]
    count = ceil(len(best) / window)
    fair = [best[start::count] for start in range(count)]
    if step.last and count > 1:
        cuts = [0, *range(window // 2, len(best), window), len(best)]
        ahead: list[Shown] = [best[start : start + window] for start in range(0, len(best), window)]
        back: list[Shown] = [best[start:end] for start, end in pairwise(cuts)]
    else:
        ahead = back = fair
    return [*(ahead if step.best_first else ()), *(group[::-1] for group in back if step.worst_first)]


class _Evidence:
    """All answers so far, and what they say together."""

    def __init__(self, n: int, k: int, trust: float, weight: float) -> None:
        self._k = k
        self._prior = -trust * np.log(np.arange(1.0, n + 1))
        self._weight = weight
        self._orders: list[tuple[int, ...]] = []
        self._better = np.zeros((n, n), dtype=np.bool_)
        """Who is known to be better than whom, [better, worse], through others too."""
        self._agrees = True
        """Whether nobody is better than itself."""
        self._whole = True
        """Whether no answer failed."""

    def add(self, questions: Sequence[Order], answers: Sequence[Answer]) -> bool:
        """Take in a round. Returns whether the top k is open."""
        for question, answer in zip(questions, answers, strict=True):
            order = permuted(question, answer)
            self._whole &= order is not None
            if order is not None:
                self._orders.append(order)
                for place, candidate in enumerate(order[: self._k]):
                    self._better[candidate, list(order[place + 1 :])] = True
        if self._agrees:
            self._better = _closure(self._better)
            self._agrees = not self._better.diagonal().any()
        return not (self._agrees and self._settled())

    def ranking(self) -> list[int]:
        """All candidates, best first."""
        strength = plackett_luce(self._orders, self._prior, self._weight, self._k)
        if not self._agrees:
            return [int(candidate) for candidate in np.argsort(-strength, kind="stable")]
        known = self._better.sum(axis=0)
        out = known if self._settled() else known >= self._k
        return _sorted(self._better, np.lexsort((-strength, out)))

    def open_windows(self, window: int) -> list[Shown]:
        """Windows over the contenders which cover all neighbours of whom it is not known who is better."""
        if not (self._agrees and self._whole):
            return []
        contenders = self._contenders()
        windows: list[Shown] = []
        end = 0
        for place, (one, next_) in enumerate(pairwise(contenders)):
            if place + 1 >= end and not self._better[one, next_]:
                windows.append(contenders[place : place + window])
                end = place + window
        return windows

    def _contenders(self) -> list[int]:
        """Who can still be among the best k; whoever is known to be better comes first."""
        known = self._better.sum(axis=0)
        return [int(candidate) for candidate in np.argsort(known, kind="stable") if known[candidate] < self._k]

    def _settled(self) -> bool:
        contenders = self._contenders()
        return len(contenders) == self._k and all(self._better[pair] for pair in pairwise(contenders))


def _sorted(better: NDArray[np.bool_], preferred: NDArray[np.intp]) -> list[int]:
    """The candidates in the `preferred` order as far as nobody stands before one that is known to be better."""
    better = better[np.ix_(preferred, preferred)]
    ahead = better.sum(axis=0)
    free = [place for place in range(len(preferred)) if not ahead[place]]
    order = []
    while free:
        place = heappop(free)
        order.append(int(preferred[place]))
        ahead -= better[place]
        for freed in np.flatnonzero(better[place] & (ahead == 0)):
            heappush(free, int(freed))
    return order


def _closure(better: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Better through others, by the algorithm of Warshall 1962 on rows of bits."""
    n = len(better)
    rows = np.packbits(better, axis=1)
    for between in range(n):
        above = np.flatnonzero(rows[:, between >> 3] >> (7 - (between & 7)) & 1)
        rows[above] |= rows[between]
    return np.unpackbits(rows, axis=1, count=n).astype(np.bool_)
