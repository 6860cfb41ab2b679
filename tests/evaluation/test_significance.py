from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit.errors import InputError
from ragkit.evaluation.significance import holm, randomisation_test

stats = pytest.importorskip("scipy.stats", reason="scipy, which comes with ir-measures, is not installed")

WHOLE = st.lists(st.integers(-4, 4), max_size=9)


@given(WHOLE)
def test_few_differences_are_enumerated(differences: list[int]) -> None:
    observed = abs(sum(differences))
    choices = list(product((1, -1), repeat=len(differences)))
    beyond = sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed for signs in choices)
    # in tenths, as measures are: sums that are equal must stay so
    assert randomisation_test([d / 10 for d in differences]) == pytest.approx(beyond / len(choices))


def test_it_is_the_test_of_scipy() -> None:
    random = np.random.default_rng(3)
    for size in (5, 12, 200):
        first, second = random.random(size), random.random(size) + 0.05
        expected = stats.permutation_test(
            (second, first),
            lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples",
            n_resamples=10_000,
            vectorized=True,
        )
        assert randomisation_test(second - first) == pytest.approx(expected.pvalue, abs=0.02 if size > 13 else 1e-9)


def test_it_agrees_with_the_t_test_where_that_holds() -> None:
    random = np.random.default_rng(5)
    differences = random.normal(0.02, 0.2, 400)
    assert randomisation_test(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.015)


def test_nothing_to_tell_apart() -> None:
    assert randomisation_test([]) == randomisation_test([0.0, 0.0]) == 1.0
    assert randomisation_test([0.5] * 200, rounds=99) == pytest.approx(1 / 100)


def test_the_seed_decides() -> None:
    differences = np.random.default_rng(1).normal(0.01, 0.1, 50)
    assert randomisation_test(differences, seed=1) == randomisation_test(differences, seed=1)
    assert randomisation_test(differences, seed=1) == pytest.approx(randomisation_test(differences, seed=2), abs=0.03)


@pytest.mark.parametrize("differences", [[float("nan")], [[1.0]]])
def test_differences_are_one_finite_number_each(differences: list[float]) -> None:
    with pytest.raises(InputError, match="differences: must be"):
        randomisation_test(differences)
    with pytest.raises(InputError, match="rounds: must be"):
        randomisation_test([1.0], rounds=0)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_what_its_steps_reject(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, at in enumerate(np.argsort(p_values, kind="stable")):
            if (len(p_values) - rank) * p_values[at] > level:
                break
            rejected.add(int(at))
        assert {at for at, p in enumerate(corrected) if p <= level} == rejected
