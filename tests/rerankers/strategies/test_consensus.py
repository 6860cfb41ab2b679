"""Permutation self-consistency: lockstep, what it repairs, and what it does without answers."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit import InputError
from ragkit.rerankers.strategies.base import Order, Question
from ragkit.rerankers.strategies.consensus import AGGREGATES, consensus
from ragkit.rerankers.strategies.listwise import full, sliding
from ragkit.rerankers.strategies.pairwise import allpair
from ragkit.rerankers.strategies.tournament import listt5, tourrank

SIZES = [*range(8), 19, 20, 21, 25, 60, 95, 100, 120]


def shuffled(n: int, seed: int = 0) -> list[int]:
    return random.Random(seed * 1000 + n).sample(range(n), n)


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("n", SIZES)
def test_what_the_base_promises_the_consensus_promises(aggregate: Any, n: int, play: Any, perfect: Any) -> None:
    relevance = shuffled(n)
    best = sorted(range(n), key=lambda candidate: -relevance[candidate])
    for base, ks in [(full, {1, 3, 10, n}), (sliding, {1, 3, 10}), (listt5, {3})]:
        for k in ks:
            played = play(consensus(base, n, k, m=3, aggregate=aggregate), n, perfect(relevance))
            assert played.order == best[:k] + sorted(best[k:])


@pytest.mark.parametrize(("base", "calls", "rounds"), [(full, 1, 1), (sliding, 9, 9), (tourrank, 26, 5)])
@pytest.mark.parametrize("m", [1, 5, 20])
def test_m_times_the_calls_in_the_rounds_of_the_base(base: Any, calls: int, rounds: int, m: int, play: Any, perfect: Any) -> None:
    """Less what the last stages of two tournaments can have alike, groups of five."""
    played = play(consensus(base, 100, 10, m=m), 100, perfect(shuffled(100)))
    assert len(played.rounds) == rounds
    assert m * calls * (0.95 if base is tourrank else 1) <= len(played.questions) <= m * calls


def test_few_candidates_have_few_shuffles(play: Any, perfect: Any) -> None:
    assert len(play(consensus(full, 2, 2), 2, perfect([1, 2])).questions) == 2
    assert len(play(consensus(full, 3, 3, m=20), 3, perfect([1, 2, 3])).questions) == 6
    assert play(consensus(full, 1, 1), 1, perfect([1])).rounds == []
    assert play(consensus(full, 0, 3), 0, perfect([])).rounds == []


def test_what_two_runs_ask_alike_is_asked_once(play: Any, perfect: Any) -> None:
    """Every comparison of two of three, in both orders: six questions, however many runs."""
    played = play(consensus(allpair, 3, 3, m=6), 3, perfect([1, 3, 2]))
    assert len(played.questions) == 6
    assert played.order == [1, 2, 0]


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_it_repairs_a_judge_that_favours_the_first_it_is_shown(aggregate: Any, play: Any) -> None:
    """One that sees a candidate as the better the further in front it stands; the previous order is bad."""

    def biased(relevance: list[int]) -> Any:
        def answer(question: Order) -> tuple[int, ...]:
            seen = {candidate: relevance[candidate] - at for at, candidate in enumerate(question.candidates)}
            return tuple(sorted(question.candidates, key=lambda candidate: -seen[candidate]))

        return answer

    def right(strategy: Any, relevance: list[int]) -> int:
        order = play(strategy, 20, biased(relevance)).order
        return sum(relevance[candidate] >= 15 for candidate in order[:5])

    once = sum(right(full(20, 5), shuffled(20, seed)) for seed in range(40))
    often = sum(right(consensus(full, 20, 5, m=9, aggregate=aggregate, seed=seed), shuffled(20, seed)) for seed in range(40))
    assert often > once + 20


@pytest.mark.parametrize("base", [full, sliding, listt5, tourrank])
@pytest.mark.parametrize("n", SIZES)
def test_without_answers_nothing_moves(base: Any, n: int, play: Any) -> None:
    played = play(consensus(base, n, 10), n, lambda question: None)
    assert played.order == list(range(n))
    assert all(list(each.ranking) == list(range(n)) for each in played.rounds)


def test_a_run_that_failed_does_not_count_and_a_window_that_failed_stays_in_the_previous_order(play: Any, perfect: Any) -> None:
    judge, first = perfect(list(range(15))), []

    def fails_once(question: Question) -> Any:
        first.append(question)
        return None if len(first) == 1 else judge(question)

    assert play(consensus(full, 15, 15, m=2), 15, fails_once).order == list(range(14, -1, -1))
    relevance = [*range(40, 0, -1)]
    judge = perfect(relevance)
    fails_often = random.Random(0)
    played = play(consensus(sliding, 40, 10, m=4), 40, lambda question: None if fails_often.random() < 0.5 else judge(question))
    assert played.order == list(range(40))


def test_the_seed_decides(play: Any, perfect: Any) -> None:
    asked = [play(consensus(full, 9, 3, seed=seed), 9, perfect(range(9))).questions for seed in (0, 0, 1)]
    assert asked[0] == asked[1] != asked[2]


@given(base=st.sampled_from([full, sliding, listt5]), n=st.integers(0, 40), k=st.integers(0, 40), data=st.data())
@settings(max_examples=40, deadline=None)
def test_whatever_comes_back_it_is_a_permutation(base: Any, n: int, k: int, data: st.DataObject, play: Any) -> None:
    chance = random.Random(data.draw(st.integers(0, 10**6)))

    def judge(question: Order) -> Any:
        garbage = tuple(chance.choice([*question.candidates, -1, n, 0.5, 1.0]) for _ in range(chance.randrange(25)))
        return chance.choice([None, 0.3, (), garbage])

    play(consensus(base, n, k, m=3), n, judge)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1 run"):
        consensus(full, 10, 3, m=0)
    with pytest.raises(InputError, match="kemeny, borda, rrf"):
        consensus(full, 10, 3, aggregate="mean")  # type: ignore[arg-type]
