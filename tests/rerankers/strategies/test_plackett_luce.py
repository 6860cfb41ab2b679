from __future__ import annotations

import numpy as np
import pytest

from ragkit.rerankers.strategies.plackett_luce import plackett_luce


def log_posterior(strengths, orders, prior, weight, top):
    """As the docstring states it: the likelihood of the orders, and a Gamma prior on each strength."""
    value = float(np.sum(weight * strengths - weight * np.exp(strengths - prior)))
    for order in orders:
        for place in range(min(len(order) - 1, len(order) if top is None else top)):
            left = strengths[list(order[place:])]
            value += left[0] - np.log(np.exp(left).sum())
    return value


def climb(orders, prior, weight, top, steps=3000):
    """The maximum by gradient ascent, the gradient by differences."""
    at = np.array(prior, dtype=float)
    for _ in range(steps):
        gradient = np.array(
            [
                log_posterior(at + change, orders, prior, weight, top) - log_posterior(at - change, orders, prior, weight, top)
                for change in 1e-5 * np.eye(len(at))
            ]
        )
        at = at + 0.1 * gradient / 2e-5
        if np.abs(gradient).max() < 1e-10:
            break
    return at


@pytest.mark.parametrize("top", [None, 1, 2])
@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_finds_the_most_probable_strengths(weight, top):
    orders = [(2, 0, 1), (0, 3), (1, 2, 3, 0), (4, 1)]
    prior = np.array([0.0, -0.3, -0.5, -0.7, -0.8])
    fitted = plackett_luce(orders, prior, weight, top, tolerance=1e-10)
    np.testing.assert_allclose(fitted, climb(orders, prior, weight, top), atol=1e-4)


def test_without_orders_the_prior_stands():
    prior = [0.0, -1.0, -2.0]
    np.testing.assert_allclose(plackett_luce([], prior), prior)
    np.testing.assert_allclose(plackett_luce([(1,), ()], prior), prior)
    assert len(plackett_luce([], [])) == 0


def test_two_candidates_are_bradley_terry():
    # three wins of four, hardly any prior: the odds are three to one
    fitted = plackett_luce([(0, 1)] * 3 + [(1, 0)], [0.0, 0.0], weight=1e-6, tolerance=1e-12)
    assert np.exp(fitted[0] - fitted[1]) == pytest.approx(3, rel=1e-3)


def test_always_first_or_always_last_stays_finite():
    fitted = plackett_luce([(0, 1, 2)] * 50, [0.0, 0.0, 0.0])
    assert np.isfinite(fitted).all()
    assert fitted[0] > fitted[1] > fitted[2]


def test_behind_top_nothing_is_learnt_from_the_order():
    fitted = plackett_luce([(3, 0, 1, 2)], np.zeros(4), top=1)
    assert fitted[3] > fitted[0]
    assert fitted[0] == pytest.approx(fitted[1]) == pytest.approx(fitted[2])


def test_a_heavy_prior_outweighs_one_answer_and_not_many():
    prior = np.array([0.0, -2.0])
    once, often = (plackett_luce([(1, 0)] * times, prior, weight=10.0) for times in (1, 100))
    assert once[0] > once[1]
    assert often[1] > often[0]
