"""Plays a strategy with a judge, and checks on the way what holds for every one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

from ragkit.rerankers.strategies.base import Choose, Compare, Grade, Order, Question, Ranked, Round, Strategy


class Played(NamedTuple):
    ranked: Ranked
    rounds: list[Round]

    @property
    def order(self) -> list[int]:
        return list(self.ranked.order)

    @property
    def questions(self) -> list[Question]:
        return [question for asked in self.rounds for question in asked.questions]


def perfect(relevance: Sequence[float]) -> Callable[[Question], Any]:
    """A judge that never errs; a tie is a tie, and stands by number in an ordering."""

    def answer(question: Question) -> Any:
        match question:
            case Grade(candidate):
                return float(relevance[candidate])
            case Compare(first, second):
                return (1 + (relevance[first] > relevance[second]) - (relevance[first] < relevance[second])) / 2
            case Choose(candidates):
                return tuple(float(relevance[candidate]) for candidate in candidates)
            case Order(candidates):
                return tuple(sorted(candidates, key=lambda candidate: (-relevance[candidate], candidate)))

    return answer


def play(strategy: Strategy, n: int, judge: Callable[[Question], Any]) -> Played:
    rounds: list[Round] = []
    seen: set[Any] = set()

    def step(answers: Sequence[Any] | None) -> Ranked | None:
        try:
            rounds.append(strategy.send(answers))  # type: ignore[arg-type]
        except StopIteration as stopped:
            return stopped.value
        return None

    ranked = step(None)
    while ranked is None:
        questions = rounds[-1].questions
        assert questions
        assert sorted(rounds[-1].ranking) == list(range(n))
        assert len(set(questions)) == len(questions)
        assert seen.isdisjoint(questions), "something was asked twice"
        seen.update(questions)
        ranked = step([judge(question) for question in questions])
    assert sorted(ranked.order) == list(range(n))
    return Played(ranked, rounds)


@pytest.fixture(name="play", scope="session")
def _play() -> Callable[[Strategy, int, Callable[[Question], Any]], Played]:
    return play


@pytest.fixture(name="perfect", scope="session")
def _perfect() -> Callable[[Sequence[float]], Callable[[Question], Any]]:
    return perfect
