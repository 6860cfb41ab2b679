"""Setwise: exact top k, and fewer calls than the algorithm as published on the same input."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit.errors import InputError
from ragkit.rerankers.strategies.base import Choose, Strategy
from ragkit.rerankers.strategies.setwise import bubble, heapsort

STRATEGIES = [heapsort, bubble]


def relevances(n: int) -> list[list[float]]:
    distinct = random.Random(n).sample(range(n), n)
    return [distinct, [value % 4 for value in distinct], [-candidate for candidate in range(n)], list(range(n)), [1.0] * n]


def most_calls(strategy: Any, n: int, k: int, c: int) -> int:
    k = min(k, n)
    if n < 2 or k < 1:
        return 0
    if strategy is bubble:
        return sum(math.ceil((n - 1 - done) / c) for done in range(k))
    return math.ceil((n - 1) / c) + (k - 1) * height(n, c)


def height(n: int, c: int) -> int:
    """ceil(log_(c + 1) n), without rounding errors."""
    levels = 0
    while (c + 1) ** levels < n:
        levels += 1
    return levels


def published_heapsort(relevance: Sequence[float], k: int, c: int) -> int:
    """The calls of the published heapsort: each node is sifted down against its c children, the last item replaces the top."""
    heap, calls = list(range(len(relevance))), 0

    def sift_down(size: int, at: int) -> int:
        calls = 0
        while children := range(c * at + 1, min(c * at + c + 1, size)):
            calls += 1
            best = max(at, *children, key=lambda place: relevance[heap[place]])
            if best == at:
                break
            heap[at], heap[best] = heap[best], heap[at]
            at = best
        return calls

    for node in range((len(heap) - 2) // c, -1, -1):
        calls += sift_down(len(heap), node)
    for taken in range(1, k):
        heap[0] = heap[len(heap) - taken]
        calls += sift_down(len(heap) - taken, 0)
    return calls


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("c", [3, 19])
@pytest.mark.parametrize("block", range(8))
def test_a_perfect_judge_gives_a_perfect_top_k_with_ties_in_their_order(
    strategy: Callable[..., Strategy], c: int, block: int, play: Any, perfect: Any
) -> None:
    for n in range(block, 121, 8):
        for k in {1, 3, 10, n}:
            for relevance in relevances(n)[n % 2 : n % 2 + 1] if n > 40 else relevances(n):
                played = play(strategy(n, k, c), n, perfect(relevance))
                best = sorted(range(n), key=lambda candidate: (-relevance[candidate], candidate))
                assert played.order[:k] == best[:k]
                assert len(played.questions) <= most_calls(strategy, n, k, c)
                if n > 1 and strategy is heapsort:
                    assert len(played.rounds) <= min(k, n) * height(n, c)
                if n > 1 and strategy is bubble:
                    assert len(played.rounds) <= math.ceil((n - 1) / c) + 2 * (min(k, n) - 1)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("c", [1, 3, 9])
def test_at_most_c_plus_1_are_shown_in_their_previous_order_and_nobody_twice_in_a_round(
    strategy: Callable[..., Strategy], c: int, play: Any, perfect: Any
) -> None:
    for asked in play(strategy(70, 10, c), 70, perfect(relevances(70)[0])).rounds:
        shown = [candidate for question in asked.questions for candidate in question.candidates]
        assert len(set(shown)) == len(shown)
        for question in asked.questions:
            assert 2 <= len(question.candidates) <= c + 1
            assert list(question.candidates) == sorted(question.candidates)


@pytest.mark.parametrize(("c", "published", "measured"), [(3, 81.4, 64), (9, 31.5, 29), (19, 23.3, 22.6)])
def test_heapsort_beats_the_published_calls(c: int, published: float, measured: float, play: Any, perfect: Any) -> None:
    """82, 31 and 23 were measured by others for the 10 best of 100; the published algorithm takes the same here.

    With c = 3 and 9 ours takes fewer on every input; with c = 19 up to 2 more on some (24 at most), and fewer on average.
    """
    ours, theirs = [], []
    for seed in range(60):
        relevance = random.Random(seed).sample(range(100), 100)
        ours.append(len(play(heapsort(100, 10, c), 100, perfect(relevance)).questions))
        theirs.append(published_heapsort(relevance, 10, c))
    assert sum(theirs) / 60 == pytest.approx(published, abs=0.5)
    assert sum(ours) / 60 == pytest.approx(measured, abs=0.5)
    assert sum(ours) < sum(theirs)
    assert all(mine < other for mine, other in zip(ours, theirs, strict=True)) == (c < 19)
    assert max(ours) <= most_calls(heapsort, 100, 10, c)
    sorted_already = list(range(100, 0, -1))
    assert len(play(heapsort(100, 10, c), 100, perfect(sorted_already)).questions) < published_heapsort(sorted_already, 10, c)


def test_bubble_beats_k_passes(play: Any, perfect: Any) -> None:
    """k passes of ceil((n - 1) / c) windows are 330 calls one after the other for 10 of 100 and c = 3; ours are fewer by what is
    known already, 318 in the worst order and 39 in one that is right, in 48 rounds at most.
    """
    worst = play(bubble(100, 10, 3), 100, perfect(range(100)))
    assert (len(worst.questions), len(worst.rounds)) == (318, 48)
    right = play(bubble(100, 10, 3), 100, perfect(range(100, 0, -1)))
    assert (len(right.questions), len(right.rounds)) == (39, 39)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 10, 57])
def test_without_answers_the_previous_order_stands(strategy: Callable[..., Strategy], n: int, play: Any) -> None:
    played = play(strategy(n, 10), n, lambda question: None)
    assert played.order == list(range(n))
    assert bool(played.questions) == (n > 1)


def test_a_choice_without_an_answer_leaves_the_previous_best_in_front(play: Any, perfect: Any) -> None:
    relevance = [0, 1, 2, 3, 9, 8, 7, 6]
    for strategy in STRATEGIES:
        first = play(strategy(8, 1, 3), 8, lambda question: None if 0 in question.candidates else perfect(relevance)(question))
        assert first.order[0] == 0


def test_fewer_wanted_ask_for_less(play: Any, perfect: Any) -> None:
    for strategy in STRATEGIES:
        counts = [len(play(strategy(60, k), 60, perfect(relevances(60)[0])).questions) for k in (0, 1, 3, 10, 60)]
        assert counts[0] == 0
        assert counts[1] == math.ceil(59 / 3)
        assert counts == sorted(set(counts))


def test_behind_the_top_k_winners_stand_before_those_they_beat(play: Any, perfect: Any) -> None:
    relevance = [0.0] * 16
    relevance[15], relevance[14] = 2.0, 1.0
    assert play(heapsort(16, 1, 3), 16, perfect(relevance)).order == [15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_to_compare_with_is_refused_at_once(strategy: Callable[..., Strategy]) -> None:
    with pytest.raises(InputError, match="at least 1, not 0"):
        strategy(10, 3, 0)


@given(n=st.integers(0, 20), k=st.integers(0, 22), c=st.integers(1, 6), strategy=st.sampled_from(STRATEGIES), chance=st.randoms())
def test_whatever_the_answers_are_it_ends_with_a_permutation(
    n: int, k: int, c: int, strategy: Any, chance: Any, play: Any
) -> None:
    def anything(question: Choose) -> Any:
        return chance.choice([None, 0.5, tuple(chance.choice([0.0, 1.0, -1.0, math.nan]) for _ in question.candidates)])

    assert len(play(strategy(n, k, c), n, anything).questions) <= most_calls(strategy, n, k, c)
