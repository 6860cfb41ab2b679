from __future__ import annotations

import numpy as np
import pytest

from ragkit.evaluation.simulation import PERFECT, STRONG, WEAK, Errors, Prices, SimulatedJudge, relevances, simulate
from ragkit.rerankers.strategies.base import Choose, Compare, Grade, Order
from ragkit.rerankers.strategies.groups import groups
from ragkit.rerankers.strategies.listwise import full, sliding
from ragkit.rerankers.strategies.pointwise import pointwise
from ragkit.rerankers.strategies.setwise import heapsort

QUESTIONS = [Grade(0), Compare(0, 2), Compare(2, 0), Choose((2, 0, 1)), Order((1, 2, 0)), Order((1, 2, 0), 1)]


def share_of_first(errors, gap, n=400):
    """How often the first of two, better by `gap`, is said to be better; each pair has its own passages."""
    judge = SimulatedJudge([gap, 0.0] * n, errors, seed=1)
    answers = judge.answer([Compare(2 * at, 2 * at + 1) for at in range(n)])
    return np.mean([answer for answer in answers if answer is not None])


def test_a_perfect_judge_answers_every_kind_of_question():
    judge = SimulatedJudge([3.0, 1.0, 2.0])
    assert judge.answer([Grade(0), Compare(0, 1), Compare(1, 0), Choose((1, 2)), Order((2, 1, 0))]) == [
        3.0,
        1.0,
        0.0,
        (1.0, 2.0),
        (0, 2, 1),
    ]


def test_a_perfect_judge_sees_ties():
    judge = SimulatedJudge([1.0, 1.0])
    assert judge.answer([Compare(1, 0), Choose((1, 0)), Order((1, 0))]) == [0.5, (1.0, 1.0), (0, 1)]


def test_an_ordering_is_written_out_whole():
    judge = SimulatedJudge([0.0, 1.0, 2.0, 3.0])
    assert judge.answer([Order((0, 1, 2, 3), 1), Order((0, 1, 2, 3))]) == [(3, 2, 1, 0), (3, 2, 1, 0)]
    assert judge.spent.completion_tokens == 2 * 4 * Prices().identifier


def test_answers_depend_on_seed_and_question_alone():
    def answers(questions, seed=0):
        return dict(zip(questions, SimulatedJudge([1.0, 2.0, 3.0], WEAK, seed=seed).answer(questions), strict=True))

    together = answers(QUESTIONS)
    assert answers(QUESTIONS[::-1]) == together
    judge = SimulatedJudge([1.0, 2.0, 3.0], WEAK)
    assert [judge.answer([question])[0] for question in QUESTIONS] == list(together.values())
    assert answers(QUESTIONS, seed=1) != together


def test_the_smaller_the_gap_the_more_mistakes():
    errors = Errors(slip=1.0)
    shares = [share_of_first(errors, gap) for gap in (0.0, 0.7, 3.0)]
    assert shares[0] == pytest.approx(0.5, abs=0.1)
    assert shares[0] < shares[1] < shares[2]
    # Thurstone: the difference of two normal errors has the standard deviation sqrt(2), and 0.7 / sqrt(2) has 69% below it
    assert shares[1] == pytest.approx(0.69, abs=0.08)


def test_an_opinion_is_the_same_however_one_asks_and_a_slip_is_not():
    n = 200
    pairs = [Compare(2 * at, 2 * at + 1) for at in range(n)]
    swapped = [Compare(pair.second, pair.first) for pair in pairs]
    for errors, least, most in ((Errors(opinion=1.0), 1.0, 1.0), (Errors(slip=1.0), 0.3, 0.7)):
        judge = SimulatedJudge([0.0] * 2 * n, errors)
        agree = np.mean([a == 1 - b for a, b in zip(judge.answer(pairs), judge.answer(swapped), strict=True)])
        assert least <= agree <= most


def test_doubt_grows_with_relevance():
    judge = SimulatedJudge([0.0] * 400 + [2.0] * 400, Errors(opinion=0.5, doubt=0.25))
    grades = np.array(judge.answer([Grade(at) for at in range(800)]))
    assert np.std(grades[:400]) == pytest.approx(0.5, rel=0.1)
    assert np.std(grades[400:]) == pytest.approx(0.5 + 2 * 0.25, rel=0.1)
    assert np.mean(grades[400:]) == pytest.approx(2.0, abs=0.15)


def test_the_highest_gain_of_any_scale_is_a_whole_answer():
    assert relevances([0, 1], 1) == relevances([0, 2], 2) == relevances([0, 100], 100) == [0.0, 3.0]
    assert relevances([0, 1, 2, 3], 3) == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("strategy", [sliding, groups, pointwise, full, heapsort])
def test_where_one_passage_in_a_hundred_is_relevant_a_strong_judge_finds_it(strategy):
    """Yes or no judgements, and a first stage that has the one passage among its first ten for two questions of three."""
    chance = np.random.default_rng(0)
    places = [int(place) for place in np.exp(chance.uniform(0, np.log(100), 60))]

    def gain(errors):
        found = []
        for seed, place in enumerate(places):
            relevance = relevances([int(at == place) for at in range(100)], 1)
            order, _ = simulate(strategy(100, 10), SimulatedJudge(relevance, errors, seed=seed))
            found.append(order.index(place))
        return np.mean([discounted(at) for at in found]) - np.mean([discounted(place) for place in places])

    def discounted(at):
        return 1 / np.log2(at + 2) if at < 10 else 0.0

    assert gain(PERFECT) > gain(STRONG) > 0.1
    assert gain(STRONG) > gain(WEAK)


def test_what_is_shown_early_seems_better():
    assert share_of_first(Errors(slip=0.5, early=1.0), 0.0) > 0.8
    judge = SimulatedJudge([0.0] * 20, Errors(slip=0.1, early=1.0))
    order = tuple(range(20))
    assert np.corrcoef(judge.answer([Order(order)])[0], order)[0, 1] > 0.95


def test_in_the_middle_of_a_long_list_relevance_is_lost():
    def seen(size, place):
        relevance = [0.0] * size
        relevance[place] = 1.0
        return SimulatedJudge(relevance, Errors(middle=0.5)).answer([Choose(tuple(range(size)))])[0][place]

    assert seen(21, 0) == seen(21, 20) == 1.0
    assert seen(21, 10) == pytest.approx(1 - 0.5 * 21 / 41)
    assert seen(101, 50) < seen(21, 10) < seen(3, 1) < 1


def test_slips_grow_with_the_number_shown():
    def spread(size, crowd):
        judge = SimulatedJudge([0.0] * 40, Errors(slip=1.0, crowd=crowd))
        values = judge.answer([Choose(tuple(np.roll(range(40), at)[:size].tolist())) for at in range(40)])
        return np.std(values)

    assert spread(2, 0.5) == pytest.approx(1.0, abs=0.2)
    assert spread(32, 0.5) == pytest.approx(3.0, abs=0.3)
    assert spread(32, 0.0) == pytest.approx(1.0, abs=0.1)


def test_grades_lack_something_to_compare_with():
    judge = SimulatedJudge([0.0] * 300, Errors(unanchored=2.0))
    assert np.std(judge.answer([Grade(at) for at in range(300)])) == pytest.approx(2.0, abs=0.3)
    assert judge.answer([Compare(0, 1)]) == [0.5]


def test_answers_fail_at_the_given_rate():
    judge = SimulatedJudge([0.0] * 400, Errors(failures=0.25))
    failed = sum(answer is None for answer in judge.answer([Grade(at) for at in range(400)]))
    assert 60 <= failed <= 140
    assert judge.spent.failures == failed


def test_costs_are_counted_per_question_and_round():
    prices = Prices(passage=100, overhead=50, identifier=4, label=1, seconds=1.0, seconds_per_token=0.01)
    judge = SimulatedJudge([0.0] * 5, PERFECT, prices=prices, concurrency=2)
    judge.answer([Grade(0), Compare(0, 1), Order((0, 1, 2, 3, 4), 2)])
    assert judge.spent[:5] == (3, 1, 8, 3 * 50 + 8 * 100, 1 + 1 + 5 * 4)
    assert judge.spent.tokens == 972
    assert judge.spent.seconds == pytest.approx(1.2)
    assert judge.spent.limited_seconds == pytest.approx(1.01 + 1.2)
    judge.answer([Grade(1)])
    assert judge.spent[:3] == (4, 2, 9)
    assert judge.spent.seconds == pytest.approx(1.2 + 1.01)


def test_simulate_runs_a_strategy_and_counts_like_the_published_formulas():
    relevance = [float(at) for at in range(100)]
    order, spent = simulate(sliding(100, 10), SimulatedJudge(relevance))
    assert list(order[:10]) == list(range(99, 89, -1))
    assert spent[:3] == (9, 9, 180)
    order, spent = simulate(pointwise(100, 10), SimulatedJudge(relevance))
    assert list(order) == list(range(99, -1, -1))
    assert spent[:3] == (100, 1, 100)
    assert spent.limited_seconds == pytest.approx(13 * 1.01)


def test_a_strategy_that_fails_is_not_hidden():
    def broken():
        raise ValueError("broken")
        yield

    with pytest.raises(ValueError, match="broken"):
        simulate(broken(), SimulatedJudge([]))


def test_a_weak_judge_loses_its_way_from_a_random_order_and_a_strong_one_does_not():
    """Sun et al. 2023 for gpt-3.5-turbo; the relevant ones are the last 10 of 100, where the stage before had them first."""

    def found(errors, places):
        counts = []
        for seed in range(10):
            relevance = np.zeros(100)
            relevance[places(seed)] = 3.0
            order, _ = simulate(sliding(100, 10), SimulatedJudge(relevance, errors, seed=seed))
            counts.append(sum(relevance[at] > 0 for at in order[:10]))
        return np.mean(counts)

    def behind(seed):
        return np.random.default_rng(seed).choice(np.arange(20, 100), 10, replace=False)

    assert found(PERFECT, behind) == 10
    assert found(STRONG, behind) > 2 * found(WEAK, behind)
    assert found(WEAK, lambda seed: np.arange(10)) > 2 * found(WEAK, behind)
