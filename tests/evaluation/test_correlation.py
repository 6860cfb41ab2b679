"""Correlations beside scipy's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit import InputError
from ragkit.evaluation.correlation import kendall, pearson

pairs = st.lists(st.tuples(st.integers(-5, 5), st.floats(-3, 3, width=16)), min_size=2, max_size=40)


@given(pairs)
def test_scipy_says_the_same(rows: list[tuple[int, float]]) -> None:
    stats = pytest.importorskip("scipy.stats", reason="compares with scipy")
    x, y = map(list, zip(*rows, strict=True))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(pearson(x, y))
        assert math.isnan(kendall(x, y))
        return
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-9)
    if np.std(y) > 1e-6:
        assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-6)


def test_series_that_do_not_fit() -> None:
    for x, y in (([1], [2]), ([1, 2], [1, 2, 3])):
        with pytest.raises(InputError, match="series"):
            kendall(x, y)
