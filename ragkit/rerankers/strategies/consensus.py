"""Permutation self-consistency: the same candidates in several orders, and one ranking from all the answers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import permutations
from typing import Literal

from ragkit.errors import InputError
from ragkit.rerankers.strategies.aggregation import borda, kemeny, rrf
from ragkit.rerankers.strategies.base import Answer, Order, Question, Ranked, Round, Strategy
from ragkit.rerankers.strategies.relay import advance, renumbered

Aggregate = Literal["kemeny", "borda", "rrf"]

AGGREGATES = {"kemeny": kemeny, "borda": borda, "rrf": rrf}


def consensus(
    base: Callable[[int, int], Strategy], n: int, k: int, m: int = 5, aggregate: Aggregate = "kemeny", seed: int = 0
) -> Strategy:
    """m runs of a listwise strategy, each over another shuffle of the candidates, and their best k aggregated (Tang et al. 2023).

    `base(n, k)` makes a run. The runs are asked side by side: m times the calls of the base in as many rounds, less what two of
    them ask alike; of few candidates there are fewer than m shuffles. What position does to a judge differs from run to run and
    averages out. Where a judge fails to order, the previous order stands in, and a run without any answer does not count.
    """
    if m < 1:
        raise InputError(f"consensus needs at least 1 run, not {m}")
    if aggregate not in AGGREGATES:
        raise InputError(f"aggregate must be one of {', '.join(AGGREGATES)}, not {aggregate!r}")
    return _consensus(base, n, max(k, 0), _shuffles(n, m, seed), aggregate)


def _consensus(
    base: Callable[[int, int], Strategy], n: int, k: int, shuffles: list[tuple[int, ...]], aggregate: Aggregate
) -> Strategy:
    runs = [renumbered(base(n, k), shuffle) for shuffle in shuffles]
    steps = [advance(run) for run in runs]
    known: dict[Question, Answer] = {}
    learnt = [False] * len(runs)
    ranking = list(range(n))
    while any(isinstance(step, Round) for step in steps):
        asked = dict.fromkeys(question for step in steps if isinstance(step, Round) for question in step.questions)
        if new := [question for question in asked if question not in known]:
            answers = yield Round(new, ranking)
            known.update(zip(new, answers, strict=True))
        for at, step in enumerate(steps):
            if isinstance(step, Round):
                learnt[at] |= any(known[question] is not None for question in step.questions)
                steps[at] = advance(runs[at], [_or_previous(question, known[question]) for question in step.questions])
        # a run that has not ended is about a shuffle, and knows nothing yet of those it has not reached
        ended = [step.order[:k] for step, counts in zip(steps, learnt, strict=True) if counts and isinstance(step, Ranked)]
        ranking = AGGREGATES[aggregate](ended, n)
    return Ranked(ranking)


def _or_previous(question: Question, answer: Answer) -> Answer:
    return tuple(sorted(question.candidates)) if answer is None and isinstance(question, Order) else answer


def _shuffles(n: int, m: int, seed: int) -> list[tuple[int, ...]]:
    """m different orders of n candidates, or all that there are."""
    if math.factorial(min(n, 20)) <= m:
        return list(permutations(range(n)))
    chance = random.Random(seed)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < m:
        found[tuple(chance.sample(range(n), n))] = None
    return list(found)
