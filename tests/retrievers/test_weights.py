"""Fitted weights: against ir-measures, on a source that is right and one that is wrong, and on questions held out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit import InputError
from ragkit.indexes.base import Ranking
from ragkit.retrievers.fusion import convex_combination
from ragkit.retrievers.weights import Labelled, fit_weights, ndcg


@given(st.permutations(range(15)), st.dictionaries(st.integers(0, 20), st.integers(0, 3), max_size=14))
def test_ndcg_is_that_of_ir_measures(order: list[int], gains: dict[int, int]) -> None:
    ir_measures = pytest.importorskip("ir_measures")
    run = {"q": {str(position): -float(rank) for rank, position in enumerate(order)}}
    qrels = {"q": {str(position): gain for position, gain in gains.items()}}
    expected = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run) if gains else {}
    assert ndcg(np.array(order), gains) == pytest.approx(next(iter(expected.values()), 0.0))


def question(rng: np.random.Generator, good: int) -> Labelled:
    """Source number `good` has the relevant document first, the other two in no order."""
    rankings = [Ranking(rng.permutation(30), np.sort(rng.random(30))[::-1]) for _ in range(3)]
    return Labelled(rankings, {int(rankings[good].positions[0]): 1.0})


def test_the_source_that_is_right_gets_the_weight() -> None:
    rng = np.random.default_rng(0)
    for good in range(3):
        fitted = fit_weights([question(rng, good) for _ in range(30)], convex_combination, steps=5)
        assert sum(fitted.weights) == pytest.approx(1)
        assert fitted.weights[good] == max(fitted.weights)
        assert fitted.held_out > 0.9


def test_equal_sources_get_equal_weights() -> None:
    ranking = Ranking(np.arange(5), np.arange(5, 0, -1.0))
    fitted = fit_weights([Labelled([ranking, ranking], {0: 1.0})] * 3, convex_combination)
    assert fitted == ((0.5, 0.5), 1.0)


def test_held_out_questions_have_no_say() -> None:
    """Four questions follow the first source, one the second; fitted without that one, it is scored by the wrong source."""
    first, second = Ranking(np.array([0]), np.array([1.0])), Ranking(np.array([1]), np.array([1.0]))
    questions = [Labelled([first, second], {0: 1.0})] * 4 + [Labelled([first, second], {1: 1.0})]
    fitted = fit_weights(questions, convex_combination, steps=2, folds=5)
    # with even weights the tie goes to position 0, so those are as good as any for the four
    assert fitted.weights == (0.5, 0.5)
    assert fitted.held_out == pytest.approx((4 + 1 / np.log2(3)) / 5)


def test_bad_questions_are_named() -> None:
    ranking = Ranking(np.arange(3), np.ones(3))
    good = Labelled([ranking, ranking], {0: 1.0})
    for questions in ([], [good], [good, Labelled([ranking], {0: 1.0})], [good, Labelled([ranking] * 2, {0: 0.0})]):
        with pytest.raises(InputError, match=r"^questions: "):
            fit_weights(questions, convex_combination)
    for numbers in ({"folds": 1}, {"steps": 0}):
        with pytest.raises(InputError, match=r"^steps, folds: "):
            fit_weights([good, good], convex_combination, **numbers)
