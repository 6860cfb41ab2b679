"""What strategies and judges say to each other: questions, answers, rounds, and the driver's side of the talk.

Candidates are the numbers 0 to n - 1, in the order of the stage before: of two that are judged equal, the smaller comes first.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple


class Grade(NamedTuple):
    """How relevant is this one? Answer: a float, higher is better."""

    candidate: int


class Compare(NamedTuple):
    """Which of the two is better, shown in this order? Answer: a float, 1 the first, 0 the second, 0.5 neither."""

    first: int
    second: int


class Choose(NamedTuple):
    """Which of these is best, shown in this order? Answer: one float per candidate, the best has the most."""

    candidates: tuple[int, ...]


class Order(NamedTuple):
    """Order these, shown in this order, best first. Answer: a tuple that is a permutation of `candidates`.

    `top` tells the judge that only so many of the best matter; the answer is a whole permutation anyhow.
    """

    candidates: tuple[int, ...]
    top: int | None = None


Question = Grade | Compare | Choose | Order
Answer = float | tuple[float, ...] | tuple[int, ...] | None
"""None where the judge failed: a strategy then goes on as if it had seen a tie, so that the previous order stands there."""


class Round(NamedTuple):
    """Questions that do not depend on each other, and the best ranking so far, should these remain without answers."""

    questions: Sequence[Question]
    ranking: Sequence[int]
    """All candidates, best first."""


class Ranked(NamedTuple):
    """The result of a strategy."""

    order: Sequence[int]
    """All candidates, best first; behind the top k that were asked for, in the previous order as far as nothing was learnt."""
    scores: Sequence[float] | None = None
    """A score per candidate, [n] by candidate and not by rank, where the strategy has one that means something."""


Strategy = Generator[Round, Sequence[Answer], Ranked]
"""A started algorithm: yields rounds, is sent one answer per question in their order, returns the result.

A module of strategies offers functions `name(n, k, **settings) -> Strategy` for n candidates of which the best k are wanted.
With n = 0 or 1 they ask nothing. They never ask the same question twice, and stop once the top k cannot change.
"""
