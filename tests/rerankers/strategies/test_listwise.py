"""The sliding window and the full list: what they promise, counted calls, and what they do with bad answers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit import InputError
from ragkit.rerankers.strategies.base import Order, Question, Strategy
from ragkit.rerankers.strategies.listwise import full, sliding

SIZES = [*range(45), 59, 60, 61, 95, 99, 100, 110, 111, 119, 120]


def shuffled(n: int, seed: int = 0) -> list[int]:
    return random.Random(seed * 1000 + n).sample(range(n), n)


def every_k(sizes: Iterable[int]) -> list[tuple[int, int]]:
    return [(n, k) for n in sizes for k in {1, 3, 10, n}]


def no_more_than_the_top(relevance: list[int]) -> Callable[[Question], Any]:
    """A judge that never errs about the `top` that matter, and puts the rest in the worst order."""

    def answer(question: Question) -> Any:
        assert isinstance(question, Order)
        best = sorted(question.candidates, key=lambda candidate: -relevance[candidate])
        top = len(best) if question.top is None else question.top
        assert top < len(best) or question.top is None
        return tuple(best[:top] + best[top:][::-1])

    return answer


def published(n: int, window: int = 20, step: int = 10) -> int:
    """Calls of one pass of RankGPT; it makes none for n < window, which is a bug: there must be one."""
    return 0 if n < 2 else 1 + max(0, math.ceil((n - window) / step))


@pytest.mark.parametrize(
    ("window", "step", "sizes"), [(20, 10, range(121)), *((*each, SIZES) for each in [(4, 2), (5, 4), (10, 3), (2, 1)])]
)
def test_one_pass_gives_the_right_first_window_minus_step_in_the_published_calls(
    window: int, step: int, sizes: Iterable[int], play: Any
) -> None:
    for n, k in every_k(sizes):
        relevance = shuffled(n)
        best = sorted(range(n), key=lambda candidate: -relevance[candidate])
        played = play(sliding(n, k, window, step), n, no_more_than_the_top(relevance))
        promised = min(k, window - step if n > window else n)
        assert played.order[:promised] == best[:promised]
        assert len(played.questions) == len(played.rounds) == published(n, window, step)
        assert all(len(question.candidates) <= window for question in played.questions)


@pytest.mark.parametrize(("window", "step", "sizes"), [(20, 10, range(121)), (10, 7, SIZES[::3]), (10, 3, SIZES[::3])])
def test_as_many_passes_as_k_needs_give_the_right_top_k(window: int, step: int, sizes: Iterable[int], play: Any) -> None:
    """Further passes are ours: the calls are at most those of passes over what the ones before have left."""
    carry = window - step
    for n, k in every_k(sizes):
        relevance = shuffled(n)
        best = sorted(range(n), key=lambda candidate: -relevance[candidate])
        played = play(sliding(n, k, window, step, passes=None), n, no_more_than_the_top(relevance))
        assert played.order[:k] == best[:k]
        assert len(played.questions) <= sum(published(n - settled, window, step) for settled in range(0, min(k, n), carry))
        two = play(sliding(n, k, window, step, passes=2), n, no_more_than_the_top(relevance))
        assert two.order[: min(k, 2 * carry)] == best[: min(k, 2 * carry)]


def test_the_full_list_is_one_call_and_right_for_every_k(play: Any) -> None:
    for n, k in every_k(range(121)):
        relevance = shuffled(n)
        best = sorted(range(n), key=lambda candidate: -relevance[candidate])
        played = play(full(n, k), n, no_more_than_the_top(relevance))
        assert played.order[:k] == best[:k]
        assert len(played.questions) == (n > 1)


def test_the_published_counts_for_a_hundred(play: Any, perfect: Any) -> None:
    assert len(play(sliding(100, 10), 100, perfect(shuffled(100))).rounds) == 9
    assert len(play(full(100, 10), 100, perfect(shuffled(100))).rounds) == 1


@pytest.mark.parametrize("n", [2, 5, 19, 20])
def test_what_fits_into_a_window_is_asked_once(n: int, play: Any, perfect: Any) -> None:
    played = play(sliding(n, 10), n, perfect(shuffled(n)))
    assert [question.candidates for question in played.questions] == [tuple(range(n))]


@pytest.mark.parametrize("n", range(20, 121))
def test_every_candidate_is_seen_also_the_first_ones_at_ragged_ends(n: int, play: Any, perfect: Any) -> None:
    """For n = 25 or 95, RankGPT never looks at the first 5."""
    played = play(sliding(n, 5), n, perfect(list(range(n))))
    assert {candidate for question in played.questions for candidate in question.candidates} == set(range(n))
    assert played.order[:5] == list(range(n - 1, n - 6, -1))
    assert len(played.questions[-1].candidates) == 20


@pytest.mark.parametrize("n", [30, 100])
def test_passes_end_when_one_of_them_changes_nothing(n: int, play: Any, perfect: Any) -> None:
    played = play(sliding(n, n, passes=None), n, perfect(range(n, 0, -1)))
    assert played.order == list(range(n))
    assert len(played.questions) == published(n)


def test_a_judge_may_order_what_nobody_asked_for_but_is_told_what_matters(play: Any, perfect: Any) -> None:
    assert {question.top for question in play(sliding(100, 3), 100, perfect(range(100))).questions} == {3}
    assert {question.top for question in play(sliding(100, 100), 100, perfect(range(100))).questions} == {None}
    assert [question.top for question in play(full(100, 3), 100, perfect(range(100))).questions] == [3]


@pytest.mark.parametrize("make", [sliding, full, lambda n, k: sliding(n, k, passes=None)])
@pytest.mark.parametrize("n", [0, 1, 2, 25, 100])
def test_without_answers_nothing_moves(make: Callable[[int, int], Strategy], n: int, play: Any) -> None:
    assert play(make(n, n), n, lambda question: None).order == list(range(n))


@pytest.mark.parametrize("make", [sliding, full])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_nothing_is_asked_about_less_than_two_or_for_nobody(make: Callable[[int, int], Strategy], n: int, play: Any) -> None:
    assert play(make(n, 10 if n < 2 else 0), n, lambda question: None).rounds == []


def test_a_failed_window_stays_as_it_is_and_the_others_count(play: Any, perfect: Any) -> None:
    judge = perfect(list(range(30)))
    played = play(sliding(30, 5), 30, lambda question: None if 29 in question.candidates else judge(question))
    assert played.order == [*range(19, -1, -1), *range(20, 30)]


@given(n=st.integers(0, 60), k=st.integers(0, 60), passes=st.none() | st.integers(1, 3), data=st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_comes_back_it_is_a_permutation(n: int, k: int, passes: int | None, data: st.DataObject, play: Any) -> None:
    answers = st.none() | st.floats() | st.lists(st.integers(-3, 70) | st.floats()).map(tuple)
    play(sliding(n, k, passes=passes), n, lambda question: data.draw(answers))


@pytest.mark.parametrize("wrong", [{"window": 10}, {"step": 0}, {"step": 20}, {"passes": 0}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError):
        sliding(100, 10, **wrong)
