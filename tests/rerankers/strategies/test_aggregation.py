"""Kemeny against all permutations, Borda and RRF against their formulas, and what every aggregate owes its rankings."""

from __future__ import annotations

import random
from itertools import combinations, pairwise, permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.rerankers.strategies import aggregation
from ragkit.rerankers.strategies.aggregation import borda, kemeny, rrf

AGGREGATES = [kemeny, borda, rrf]


def partial_rankings(largest: int, most: int = 6) -> st.SearchStrategy[tuple[int, list[list[int]]]]:
    """n, and rankings of some or all of n."""
    cut = st.integers(0, largest)
    return st.integers(0, largest).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.tuples(st.permutations(range(n)), cut).map(lambda drawn: list(drawn[0][: drawn[1]])), max_size=most),
        )
    )


def disagreements(order: Any, rankings: list[list[int]]) -> int:
    """Pairs that a ranking has the other way round, by the definition."""
    total = 0
    for ranking in rankings:
        place = {candidate: at for at, candidate in enumerate(ranking)}
        total += sum(place.get(second, 99) < place.get(first, 99) for first, second in combinations(order, 2))
    return total


@given(partial_rankings(7))
@settings(max_examples=80, deadline=None)
def test_kemeny_disagrees_about_as_few_pairs_as_any_ranking(drawn: tuple[int, list[list[int]]]) -> None:
    n, rankings = drawn
    order = kemeny(rankings, n)
    listed = {candidate for ranking in rankings for candidate in ranking}
    possible = [rest + tuple(sorted(set(range(n)) - listed)) for rest in permutations(sorted(listed))]
    assert sorted(order) == list(range(n))
    assert disagreements(order, rankings) == min(disagreements(each, rankings) for each in possible)


@given(st.integers(2, 6).flatmap(lambda n: st.lists(st.permutations(range(n)), min_size=1, max_size=3)))
@settings(max_examples=80, deadline=None)
def test_of_several_best_orders_of_a_circle_the_one_with_the_smaller_numbers_first(rankings: list[list[int]]) -> None:
    """And where majorities decide everything, there is no more than one."""
    n = len(rankings[0])
    best = min(permutations(range(n)), key=lambda order: (disagreements(order, rankings), order))
    ahead = aggregation._ahead(rankings, list(range(n)))
    assert aggregation._exact(ahead) == list(best)
    if len(rankings) % 2:
        assert kemeny(rankings, n) == list(best)


@given(partial_rankings(9))
@settings(max_examples=60, deadline=None)
def test_kemeny_puts_a_candidate_that_beats_all_others_first_and_one_that_loses_to_all_last(
    drawn: tuple[int, list[list[int]]],
) -> None:
    n, rankings = drawn
    order = kemeny(rankings, n)
    ahead = aggregation._ahead(rankings, list(range(n)))
    wins = (ahead > ahead.T).sum(axis=1)
    losses = (ahead < ahead.T).sum(axis=1)
    for candidate in range(n):
        if n > 1 and wins[candidate] == n - 1:
            assert order[0] == candidate
        if n > 1 and losses[candidate] == n - 1:
            assert order[-1] == candidate


def test_a_circle_larger_than_what_is_exact_ends_where_no_move_of_one_candidate_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    rankings = [random.Random(seed).sample(range(20), 20) for seed in range(5)]
    order = kemeny(rankings, 20)
    least = disagreements(order, rankings)
    assert least <= disagreements(borda(rankings, 20), rankings)
    for candidate in order:
        others = [other for other in order if other != candidate]
        assert all(disagreements([*others[:at], candidate, *others[at:]], rankings) >= least for at in range(20))
    few = [ranking[:10] for ranking in rankings]
    exact = disagreements(kemeny([[at for at in ranking if at < 10] for ranking in rankings], 10), few)
    monkeypatch.setattr(aggregation, "EXACT", 1)
    assert disagreements(kemeny([[at for at in ranking if at < 10] for ranking in rankings], 10), few) >= exact


def test_a_noisy_truth_comes_out_of_a_hundred() -> None:
    chance = random.Random(0)
    rankings = [sorted(range(100), key=lambda at: at + chance.gauss(0, 3)) for _ in range(9)]
    for aggregate in AGGREGATES:
        order = aggregate(rankings, 100)
        assert sum(abs(at - candidate) for at, candidate in enumerate(order)) < 150
        assert sum(abs(at - candidate) for at, candidate in enumerate(rankings[0])) > 200


@given(partial_rankings(8))
def test_borda_is_its_formula(drawn: tuple[int, list[list[int]]]) -> None:
    n, rankings = drawn
    points = [0.0] * n
    for ranking in rankings:
        left = [n - 1 - place for place in range(len(ranking), n)]
        for candidate in range(n):
            points[candidate] += n - 1 - ranking.index(candidate) if candidate in ranking else sum(left) / len(left)
    assert borda(rankings, n) == sorted(range(n), key=lambda candidate: (-points[candidate], candidate))


@given(partial_rankings(8))
def test_rrf_is_its_formula(drawn: tuple[int, list[list[int]]]) -> None:
    n, rankings = drawn
    scores = [
        sum(sorted(1 / (61 + ranking.index(candidate)) for ranking in rankings if candidate in ranking)) for candidate in range(n)
    ]
    order = rrf(rankings, n)
    assert sorted(order) == list(range(n))
    for first, second in pairwise(order):
        assert scores[first] > scores[second] - 1e-12
        assert scores[first] != scores[second] or first < second
    assert rrf([[0, 1, 2], [2, 1, 0]], 3, constant=0) == [0, 2, 1]


@pytest.mark.parametrize("aggregate", AGGREGATES)
@given(partial_rankings(8, most=4), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_every_aggregate_respects_agreement_and_not_the_order_of_the_rankings(
    aggregate: Any, drawn: tuple[int, list[list[int]]], chance: random.Random
) -> None:
    n, rankings = drawn
    order = aggregate(rankings, n)
    assert aggregate(chance.sample(rankings, len(rankings)), n) == order
    for ranking in rankings:
        assert aggregate([ranking, ranking], n) == [*ranking, *(other for other in range(n) if other not in ranking)]
    for first, second in combinations(range(n), 2):
        places = [[(*ranking, *[n] * n).index(at) if at in ranking else n for at in (first, second)] for ranking in rankings]
        if places and all(one < two for one, two in places):
            assert order.index(first) < order.index(second)
        if places and all(two < one for one, two in places):
            assert order.index(second) < order.index(first)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_ties_keep_their_order_and_without_rankings_nothing_moves(aggregate: Any) -> None:
    assert aggregate([], 4) == [0, 1, 2, 3]
    assert aggregate([[], []], 3) == [0, 1, 2]
    assert aggregate([], 0) == []
    assert aggregate([[1, 0], [0, 1]], 4) == [0, 1, 2, 3]
    assert aggregate([[3], [1]], 4) == [1, 3, 0, 2]
    assert aggregate([[0, 1, 2], [1, 2, 0], [2, 0, 1]], 3) == [0, 1, 2]
