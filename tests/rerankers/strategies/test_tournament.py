"""TourRank and ListT5: what they promise, counted calls and rounds, and what they do with bad answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit import InputError
from ragkit.rerankers.strategies.base import Order, Question, Strategy
from ragkit.rerankers.strategies.tournament import listt5, tourrank

SIZES = [*range(52), 59, 60, 61, 74, 75, 95, 99, 100, 101, 119, 120]


def shuffled(n: int, seed: int = 0) -> list[int]:
    return random.Random(seed * 1000 + n).sample(range(n), n)


def no_more_than_the_top(relevance: list[int]) -> Callable[[Question], Any]:
    """A judge that never errs about the `top` that matter, and puts the rest in the worst order."""

    def answer(question: Question) -> Any:
        assert isinstance(question, Order)
        best = sorted(question.candidates, key=lambda candidate: -relevance[candidate])
        top = len(best) if question.top is None else question.top
        return tuple(best[:top] + best[top:][::-1])

    return answer


@pytest.mark.parametrize(
    ("m", "keep", "sizes"),
    [(5, 2, range(121)), *((m, keep, SIZES[::5]) for m, keep in [(5, 1), (5, 4), (3, 2), (20, 10), (2, 1)])],
)
def test_listt5_gives_the_right_top_k(m: int, keep: int, sizes: Iterable[int], play: Any) -> None:
    for n in sizes:
        relevance = shuffled(n)
        best = sorted(range(n), key=lambda candidate: -relevance[candidate])
        for k in {1, 3, 10, n}:
            played = play(listt5(n, k, m, keep), n, no_more_than_the_top(relevance))
            assert played.order[:k] == best[:k]
            assert all(1 < len(question.candidates) <= m for question in played.questions)


@pytest.mark.parametrize("seed", range(10))
def test_listt5_beats_the_published_calls(seed: int, play: Any) -> None:
    """35 for the best and about 94 for the best 10 of 100, one after another."""
    for relevance in (shuffled(100, seed), list(range(100)), list(range(100, 0, -1))):
        first = play(listt5(100, 1), 100, no_more_than_the_top(relevance))
        assert (len(first.questions), len(first.rounds)) == (33, 5)
        ten = play(listt5(100, 10), 100, no_more_than_the_top(relevance))
        assert len(ten.questions) <= 69
        assert len(ten.rounds) <= 25


def test_listt5_asks_a_group_that_only_lost_members_for_what_is_unknown(play: Any) -> None:
    """All good ones sit in the first group: it is asked for its best two, and then for the three that are left."""
    asked = play(listt5(100, 6), 100, no_more_than_the_top(list(range(100, 0, -1)))).questions
    assert [question.candidates for question in asked if set(question.candidates) <= set(range(5))] == [
        (0, 1, 2, 3, 4),
        (2, 3, 4),
    ]


def test_the_ranking_so_far_has_those_taken_and_then_those_who_came_furthest(play: Any, perfect: Any) -> None:
    rounds = play(listt5(25, 25), 25, perfect(range(25))).rounds
    assert rounds[0].ranking == list(range(25))
    assert rounds[1].ranking[:10] == [3, 4, 8, 9, 13, 14, 18, 19, 23, 24]
    assert rounds[-1].ranking[:10] == list(range(24, 14, -1))


@pytest.mark.parametrize("rounds", [1, 2, 10])
def test_tourrank_takes_the_published_calls_and_rounds(rounds: int, play: Any, perfect: Any) -> None:
    """13 per tournament in 5 rounds, with groups of 20, 10, 20, 10 and 5."""
    played = play(tourrank(100, 10, rounds=rounds), 100, perfect(shuffled(100)))
    assert [len(each.questions) for each in played.rounds] == [5 * rounds, 5 * rounds, rounds, rounds, rounds]
    shapes = [{(len(question.candidates), question.top) for question in each.questions} for each in played.rounds]
    assert shapes == [{(20, 10)}, {(10, 4)}, {(20, 10)}, {(10, 5)}, {(5, 2)}]


def guaranteed(rounds: list[Any], n: int) -> int:
    """As many as survive all stages but the last, even if all meet in one group; of up to 7, the two whom the last lets win."""
    cuts = [min(question.top for question in each.questions) for each in rounds]
    return min(cuts[:-1], default=min(n, 2))


@pytest.mark.parametrize(
    ("rounds", "group", "sizes"), [(1, 20, range(121)), (3, 20, SIZES[::3]), (2, 10, SIZES), (1, 120, SIZES)]
)
def test_tourrank_promises_those_whom_no_stage_can_cut(rounds: int, group: int, sizes: Iterable[int], play: Any) -> None:
    """4 of 100, and at least 2 with groups of 20, in the right order."""
    for n in sizes:
        relevance = shuffled(n, rounds)
        best = sorted(range(n), key=lambda candidate: -relevance[candidate])
        played = play(tourrank(n, 10, rounds=rounds, seed=n, group=group), n, no_more_than_the_top(relevance))
        promised = guaranteed(played.rounds, n)
        assert promised >= (min(n, 2) if group >= 20 else min(n, 1))
        if n == 100:
            assert promised == {20: 4, 10: 4, 120: 5}[group]
        assert played.order[:promised] == best[:promised]
        for question in played.questions:  # who wins a group is ahead of its last
            members = sorted(question.candidates, key=lambda candidate: -relevance[candidate])
            assert all(played.order.index(member) < played.order.index(members[-1]) for member in members[: question.top])


def test_tourrank_can_lose_the_fifth_if_the_best_meet_in_one_group(play: Any, perfect: Any) -> None:
    """0, 5, 10, 15 and 20 are dealt to one group of the second stage, which lets four of ten go on."""
    relevance = [0] * 100
    for points, candidate in enumerate([20, 15, 10, 5, 0], start=1):
        relevance[candidate] = points
    played = play(tourrank(100, 5), 100, perfect(relevance))
    assert played.order[:4] == [0, 5, 10, 15]
    assert played.order.index(20) >= 20  # behind all who came to the third stage


def test_tourrank_scores_are_the_mean_points(play: Any, perfect: Any) -> None:
    ranked = play(tourrank(100, 10, rounds=4), 100, perfect(list(range(100)))).ranked
    assert [ranked.scores[candidate] for candidate in ranked.order] == sorted(ranked.scores, reverse=True)
    assert ranked.scores[99] == 5
    assert sum(ranked.scores) == 50 + 20 + 10 + 5 + 2


def test_more_tournaments_help_a_judge_that_errs(play: Any) -> None:
    """The points of one tournament can be luck."""

    def right(rounds: int, seed: int) -> int:
        chance, relevance = random.Random(seed), shuffled(100, seed)

        def noisy(question: Question) -> Any:
            noise = {candidate: relevance[candidate] + chance.gauss(0, 15) for candidate in question.candidates}
            return tuple(sorted(question.candidates, key=lambda candidate: -noise[candidate]))

        order = play(tourrank(100, 10, rounds=rounds, seed=seed), 100, noisy).order
        return sum(relevance[candidate] >= 90 for candidate in order[:10])

    assert sum(right(10, seed) for seed in range(20)) > sum(right(1, seed) for seed in range(20)) + 20


MAKERS = [tourrank, partial(tourrank, rounds=5, group=10), listt5, partial(listt5, m=3, keep=1)]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("n", SIZES)
def test_without_answers_nothing_moves(make: Callable[[int, int], Strategy], n: int, play: Any) -> None:
    played = play(make(n, n), n, lambda question: None)
    assert played.order == list(range(n))
    assert all(list(each.ranking) == list(range(n)) for each in played.rounds)
    assert played.ranked.scores is None


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("n", [0, 1, 7])
def test_nothing_is_asked_about_less_than_two_or_for_nobody(make: Callable[[int, int], Strategy], n: int, play: Any) -> None:
    assert play(make(n, 10 if n < 2 else 0), n, lambda question: None).rounds == []


@given(make=st.sampled_from(MAKERS), n=st.integers(0, 130), k=st.integers(0, 130), data=st.data())
@settings(max_examples=80, deadline=None)
def test_whatever_comes_back_it_is_a_permutation(make: Any, n: int, k: int, data: st.DataObject, play: Any) -> None:
    chance = random.Random(data.draw(st.integers(0, 10**6)))

    def judge(question: Order) -> Any:
        garbage = tuple(chance.choice([*question.candidates, -1, n, 0.5, 1.0]) for _ in range(chance.randrange(25)))
        return chance.choice([None, 0.3, (), garbage, tuple(chance.sample(question.candidates, len(question.candidates)))])

    play(make(n, k), n, judge)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"group": 9}])
def test_tournaments_that_cannot_be_played_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError):
        tourrank(100, 10, **wrong)


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"keep": 5}, {"m": 1}])
def test_groups_that_pass_on_nobody_or_everybody_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError):
        listt5(100, 10, **wrong)
