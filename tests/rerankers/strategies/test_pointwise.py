"""Pointwise: one grade each, and nobody moves without one."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit.rerankers.strategies.base import Grade, Ranked, Round
from ragkit.rerankers.strategies.pointwise import pointwise


def run(n: int, k: int, grades: list[Any]) -> tuple[Ranked, list[Round]]:
    strategy, rounds = pointwise(n, k), []
    try:
        rounds.append(next(strategy))
        assert list(rounds[0].ranking) == list(range(n))
        rounds.append(strategy.send([grades[question.candidate] for question in rounds[0].questions]))
    except StopIteration as stopped:
        return stopped.value, rounds
    raise AssertionError("one round is all it takes")


@pytest.mark.parametrize("n", range(121))
def test_n_calls_in_one_round_rank_perfectly_with_ties_in_their_order(n: int) -> None:
    for k in {1, 3, 10, n}:
        grades = [float(candidate * 7 % 5) for candidate in range(n)]
        ranked, rounds = run(n, k, grades)
        assert list(ranked.order) == sorted(range(n), key=lambda candidate: (-grades[candidate], candidate))
        assert [question for asked in rounds for question in asked.questions] == (
            [Grade(candidate) for candidate in range(n)] if n > 1 and k else []
        )


def test_one_without_a_grade_keeps_its_place_and_has_no_score() -> None:
    ranked, _ = run(5, 5, [0.1, None, 0.9, math.nan, 0.5])
    assert list(ranked.order) == [2, 1, 4, 3, 0]
    assert ranked.scores is not None
    assert [None if math.isnan(score) else score for score in ranked.scores] == [0.1, None, 0.9, None, 0.5]


def test_without_any_grade_the_previous_order_stands() -> None:
    assert run(7, 3, [None] * 7)[0] == Ranked(list(range(7)), None)


@given(st.lists(st.one_of(st.none(), st.floats(), st.tuples(st.floats())), max_size=30))
def test_whatever_comes_back_is_a_permutation_sorted_where_there_are_grades(grades: list[Any]) -> None:
    ranked, _ = run(len(grades), 3, grades)
    assert sorted(ranked.order) == list(range(len(grades)))
    known = [
        grades[candidate]
        for candidate in ranked.order
        if isinstance(grades[candidate], float) and not math.isnan(grades[candidate])
    ]
    assert all(before >= after for before, after in itertools.pairwise(known))
