from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.errors import InputError
from ragkit.rerankers.strategies.base import Order
from ragkit.rerankers.strategies.groups import groups


def best(relevance, k):
    return sorted(range(len(relevance)), key=lambda candidate: (-relevance[candidate], candidate))[:k]


def shown(played):
    return sum(len(question.candidates) for question in played.questions)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 120), k=st.sampled_from([0, 1, 3, 10, None]), levels=st.sampled_from([1, 3, 1000]), seed=st.integers())
def test_a_perfect_judge_gives_the_perfect_top_k(play, perfect, n, k, levels, seed):
    k = n if k is None else min(k, n)
    relevance = [random.Random(f"{seed} {at}").randrange(levels) for at in range(n)]
    played = play(groups(n, k), n, perfect(relevance))
    assert played.order[:k] == best(relevance, k)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(), crowded=st.sets(st.integers(0, 4), min_size=1))
def test_top_10_of_100_takes_no_more_than_three_rounds_of_the_cost_of_a_sliding_window(play, perfect, seed, crowded):
    chance = random.Random(seed)
    relevance = chance.sample(range(100), 100)
    # also if all of the best fall into a few of the groups
    for at in chance.sample([at for at in range(100) if at % 5 in crowded], 10):
        relevance[at] += 100
    played = play(groups(100, 10), 100, perfect(relevance))
    assert played.order[:10] == best(relevance, 10)
    assert len(played.rounds) <= 3
    assert len(played.questions) <= 9
    assert shown(played) <= 180


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 120), k=st.integers(0, 130), failures=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 99))
def test_a_judge_that_answers_at_random_gets_a_permutation_and_no_more_than_the_plan(play, n, k, failures, seed):
    chance = random.Random(seed)

    def answer(question):
        return None if chance.random() < failures else tuple(chance.sample(question.candidates, len(question.candidates)))

    played = play(groups(n, k), n, answer)
    if n == 100 and k == 10:
        assert shown(played) <= 180


def test_without_any_answer_the_previous_order_stands(play):
    for n in (2, 20, 21, 100):
        assert play(groups(n, 10), n, lambda question: None).order == list(range(n))


def test_the_best_of_identical_candidates_keep_their_order(play, perfect):
    for n in (1, 2, 20, 57, 100):
        assert play(groups(n, 10), n, perfect([1.0] * n)).order[:10] == list(range(n))[:10]


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_is_asked_where_nothing_can_change(play, perfect, n):
    assert play(groups(n, 10), n, perfect([1.0] * n)).rounds == []


@pytest.mark.parametrize("n", [2, 7, 20])
def test_what_fits_a_window_is_one_question(play, perfect, n):
    played = play(groups(n, 3), n, perfect(range(n)))
    assert played.questions == [Order(tuple(range(n)), 3 if n > 3 else None)]


def test_the_first_round_deals_the_previous_order_out_fairly(play, perfect):
    played = play(groups(100, 10), 100, perfect(range(100)))
    assert played.rounds[0].questions == [Order(tuple(range(start, 100, 5)), 10) for start in range(5)]


def test_the_last_round_shows_the_contenders_in_both_directions(play):
    chance = random.Random(0)
    played = play(groups(100, 10), 100, lambda asked: tuple(chance.sample(asked.candidates, len(asked.candidates))))
    ahead, back = played.rounds[-1].questions
    assert ahead.candidates == back.candidates[::-1]
    assert len(ahead.candidates) == 20


def test_one_failed_group_does_not_lose_its_candidates(play, perfect):
    relevance = [1.0 if at == 50 else 0.0 for at in range(100)]
    judge = perfect(relevance)
    lost = Order(tuple(range(1, 100, 5)), 10)
    played = play(groups(100, 10), 100, lambda question: None if question == lost else judge(question))
    assert played.order[0] == 50
    # the best of the failed group is not behind the worst of the others
    assert played.order.index(1) < 40


def test_a_thousand_candidates_go_down_in_a_few_rounds(play, perfect):
    relevance = random.Random(0).sample(range(1000), 1000)
    played = play(groups(1000, 10), 1000, perfect(relevance))
    assert played.order[:10] == best(relevance, 10)
    assert len(played.rounds) <= 6
    assert shown(played) <= 2 * 1000 - 20


def test_the_same_answers_give_the_same_ranking(play):
    def run():
        return play(groups(100, 10), 100, lambda asked: tuple(sorted(asked.candidates, key=lambda at: at * 37 % 101))).order

    assert run() == run()


def test_a_window_of_one_is_refused():
    with pytest.raises(InputError, match="window"):
        groups(10, 3, window=1)
