"""Cascades: who is asked what about whom, and what a later stage cannot undo."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit import InputError
from ragkit.rerankers.strategies.base import Compare, Grade, Order, Staged
from ragkit.rerankers.strategies.cascade import cascade
from ragkit.rerankers.strategies.listwise import full, sliding
from ragkit.rerankers.strategies.pairwise import allpair
from ragkit.rerankers.strategies.pointwise import pointwise

MONO_DUO = [(pointwise, 100), (allpair, 10)]


def shuffled(n: int, seed: int = 0) -> list[int]:
    return random.Random(seed * 1000 + n).sample(range(n), n)


def unstaged(*judges: Any) -> Any:
    return lambda staged: judges[staged.stage](staged.question)


@pytest.mark.parametrize("n", [*range(30), 95, 100, 120])
def test_perfect_judges_give_a_perfect_top_k_as_far_as_the_first_stage_reads(n: int, play: Any, perfect: Any) -> None:
    relevance = shuffled(n)
    best = sorted(range(n), key=lambda candidate: -relevance[candidate])
    judge = perfect(relevance)
    for k in {1, 3, 10, n}:
        stages = [(partial(sliding, passes=None), n or 1), (full, 15), (allpair, 5)]
        assert play(cascade(stages, n, k), n, unstaged(judge, judge, judge)).order[:k] == best[:k]
        cut = play(cascade([(full, 10), (allpair, 5)], n, k), n, unstaged(judge, judge)).order
        head = sorted(range(n)[:10], key=lambda candidate: -relevance[candidate])
        assert cut == [*head[: max(k, 5)], *cut[max(k, 5) : 10], *range(10, n)]


def test_calls_and_rounds_are_the_sums_and_every_question_has_its_stage(play: Any, perfect: Any) -> None:
    judge = perfect(shuffled(120))
    played = play(cascade(MONO_DUO, 120, 10), 120, unstaged(judge, judge))
    kinds = [(question.stage, type(question.question)) for question in played.questions]
    assert kinds == [(0, Grade)] * 100 + [(1, Compare)] * 90
    assert len(played.rounds) == 2


def test_a_later_stage_has_the_last_word_about_its_depth_and_only_about_that(play: Any, perfect: Any) -> None:
    up, down = perfect(list(range(100))), perfect(list(range(100, 0, -1)))
    order = play(cascade(MONO_DUO, 100, 10), 100, unstaged(up, down)).order
    assert order == [*range(90, 100), *range(89, -1, -1)]


def test_ties_and_failures_of_a_later_stage_leave_what_the_earlier_one_said(play: Any, perfect: Any) -> None:
    judge = perfect(list(range(50)))
    for later in (lambda question: None, perfect([1.0] * 50)):
        assert play(cascade(MONO_DUO, 50, 10), 50, unstaged(judge, later)).order == list(range(49, -1, -1))
    assert play(cascade(MONO_DUO, 50, 10), 50, unstaged(lambda question: None, judge)).order == [
        *range(9, -1, -1),
        *range(10, 50),
    ]
    assert play(cascade(MONO_DUO, 50, 10), 50, lambda staged: None).order == list(range(50))


def test_a_stage_is_shown_the_best_so_far_first_and_asked_for_what_is_still_needed(play: Any, perfect: Any) -> None:
    judge = perfect(list(range(40)))
    wanted: list[tuple[int, int]] = []

    def remember(n: int, k: int) -> Any:
        wanted.append((n, k))
        return full(n, k)

    stages = [(remember, 30), (remember, 20), (remember, 50)]
    played = play(cascade(stages, 40, 3), 40, unstaged(judge, judge, judge))
    assert wanted == [(30, 30), (20, 20), (40, 3)]
    assert played.questions[1] == Staged(1, Order(tuple(range(29, 9, -1))))
    assert played.rounds[1].ranking == [*range(29, -1, -1), *range(30, 40)]
    wanted.clear()
    play(cascade([(remember, 100), (remember, 5)], 40, 8), 40, unstaged(judge, judge))
    assert wanted == [(40, 8), (5, 5)]


def test_cascades_nest_and_the_outer_stage_is_outside(play: Any, perfect: Any) -> None:
    judge = perfect(shuffled(30))
    inner = partial(cascade, [(pointwise, 30), (full, 10)])
    played = play(cascade([(inner, 30), (allpair, 4)], 30, 4), 30, unstaged(unstaged(judge, judge), judge))
    assert played.order[:4] == sorted(range(30), key=lambda candidate: -shuffled(30)[candidate])[:4]


def test_there_are_no_scores_and_without_stages_nothing_moves(play: Any, perfect: Any) -> None:
    judge = perfect(shuffled(9))
    assert play(cascade([(pointwise, 9)], 9, 3), 9, unstaged(judge)).ranked.scores is None
    assert play(cascade([], 9, 3), 9, judge).order == list(range(9))
    assert play(cascade(MONO_DUO, 9, 0), 9, judge).rounds == []
    for n in (0, 1):
        assert play(cascade(MONO_DUO[1:], n, 5), n, judge).rounds == []


@given(n=st.integers(0, 40), k=st.integers(0, 40), depths=st.lists(st.integers(1, 50), max_size=3), data=st.data())
@settings(max_examples=40, deadline=None)
def test_whatever_comes_back_it_is_a_permutation(n: int, k: int, depths: list[int], data: st.DataObject, play: Any) -> None:
    chance = random.Random(data.draw(st.integers(0, 10**6)))

    def judge(staged: Staged) -> Any:
        assert isinstance(staged.question, Order)
        return chance.choice([None, 0.3, (), tuple(chance.randrange(-2, 50) for _ in range(20))])

    play(cascade([(sliding, depth) for depth in depths], n, k), n, judge)


def test_a_stage_must_read_somebody() -> None:
    with pytest.raises(InputError, match="depth"):
        cascade([(full, 0)], 10, 3)
