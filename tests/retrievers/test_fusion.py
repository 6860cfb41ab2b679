"""Fusion against straight-line formulas over dictionaries."""

import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit.indexes.base import Ranking
from ragkit.retrievers.fusion import convex_combination, normalise, reciprocal_rank_fusion


@st.composite
def rankings(draw: Any) -> Ranking:
    positions = draw(st.lists(st.integers(0, 12), unique=True, max_size=8))
    scores = sorted(draw(st.lists(st.integers(-4, 8), min_size=len(positions), max_size=len(positions))), reverse=True)
    return Ranking(np.array(positions, np.int64), np.array(scores, np.float64) / 2)


SOURCES = st.lists(rankings(), min_size=1, max_size=3).flatmap(
    lambda sources: st.tuples(st.just(sources), st.lists(st.integers(1, 5), min_size=len(sources), max_size=len(sources)))
)


def best(scores: dict[int, float], k: int) -> list[tuple[int, float]]:
    return sorted(((p, s) for p, s in scores.items()), key=lambda item: (-round(item[1], 9), item[0]))[:k]


def check(result: Ranking, expected: list[tuple[int, float]]) -> None:
    np.testing.assert_allclose(result.scores, [score for _, score in expected], atol=1e-9)
    found = dict(zip(result.positions.tolist(), result.scores, strict=True))
    assert len(found) == len(expected)
    # rounding may order near-equal sums either way; what is strictly better must be there
    for position, score in expected:
        if score > expected[-1][1] + 1e-9:
            assert position in found


@given(SOURCES, st.integers(1, 10))
def test_rrf_is_one_based_and_weighted(sources: Any, k: int) -> None:
    lists, weights = sources
    scores: dict[int, float] = {}
    for ranking, weight in zip(lists, weights, strict=True):
        for rank, position in enumerate(ranking.positions.tolist(), 1):
            scores[position] = scores.get(position, 0) + weight / (60 + rank)
    check(reciprocal_rank_fusion(lists, weights, k), best(scores, k))


NORMALISERS = ["min-max", "theoretical-min-max", "z-score", "dbsf"]


@given(SOURCES, st.integers(1, 10), st.sampled_from(NORMALISERS), st.none() | st.integers(1, 9))
def test_convex_combination(sources: Any, k: int, normaliser: Any, depth: int | None) -> None:
    lists, weights = sources
    floors = [-3.0, None, -9.0][: len(lists)]
    scores: dict[int, float] = {p: 0.0 for ranking in lists for p in ranking.positions.tolist()}
    for ranking, weight, floor in zip(lists, weights, floors, strict=True):
        values = ranking.scores.tolist()
        if not values:
            continue
        equal = min(values) == max(values)
        if normaliser == "z-score":
            scaled = [0.0 if equal else (v - statistics.mean(values)) / statistics.pstdev(values) for v in values]
        elif normaliser == "dbsf":
            scaled = [0.5 if equal else (v - statistics.mean(values)) / (6 * statistics.stdev(values)) + 0.5 for v in values]
        else:
            low = min(values) if normaliser == "min-max" or floor is None else min(*values, floor)
            scaled = [(v - low) / (max(values) - low) if max(values) > low else 1.0 for v in values]
        more = normaliser == "z-score" or (normaliser == "theoretical-min-max" and depth is not None and len(values) >= depth)
        bottom = min(scaled) if more else min([0.0, *scaled])
        found = dict(zip(ranking.positions.tolist(), scaled, strict=True))
        for position in scores:
            scores[position] += weight / sum(weights) * found.get(position, bottom)
    result = convex_combination(lists, weights, k, normaliser=normaliser, floors=floors, depth=depth)
    check(result, best(scores, k))


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("value", [0.0, 2.0, -7.5, 1e-30, 1e12])
def test_scores_without_a_range_say_nothing(normaliser: Any, value: float) -> None:
    bottom = {"z-score": 0.0, "dbsf": 0.5}.get(normaliser, 1.0)
    for scores in ([value], [value] * 3, [value * (1 + 1e-8), value, value]):
        np.testing.assert_allclose(normalise(np.array(scores), normaliser), bottom, atol=1e-12)
    assert normalise(np.empty(0), normaliser).tolist() == []
    spread = normalise(np.array([value + 1e-3 * abs(value), value, value]), normaliser)
    assert np.isfinite(spread).all()
    assert (value == 0) == (spread[0] == spread[1])


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=30), st.floats(0.01, 100), st.floats(-100, 100))
def test_normalisers_forget_scale_and_origin(values: list[int], scale: float, origin: float) -> None:
    """All but the theoretical one, which knows where the scale begins."""
    scores = np.array(values, np.float64)
    if scores.min() == scores.max():
        return
    for normaliser in ("min-max", "z-score", "dbsf"):
        ours, moved = normalise(scores, normaliser), normalise(scores * scale + origin, normaliser)
        np.testing.assert_allclose(ours, moved, atol=1e-6)


def test_what_a_full_list_leaves_out_is_no_worse_than_its_end() -> None:
    """The second source was cut at its best two, which are nearly equal; the first knows the third document to be better."""
    first = Ranking(np.array([7, 3]), np.array([9.0, 6.0]))
    second = Ranking(np.array([5, 3]), np.array([0.52, 0.5]))
    found = convex_combination([first, second], [1, 1], 1, normaliser="theoretical-min-max", floors=[0.0, -1.0], depth=2)
    assert found.positions.tolist() == [7]
    all_there_is = convex_combination([first, second], [1, 1], 1, normaliser="theoretical-min-max", floors=[0.0, -1.0], depth=3)
    assert all_there_is.positions.tolist() == [3]


@pytest.mark.parametrize("fuse", [reciprocal_rank_fusion, convex_combination])
def test_nothing_fused_is_nothing(fuse: Any) -> None:
    empty = Ranking(np.empty(0, np.int64), np.empty(0))
    assert len(fuse([empty, empty], [1, 1], 5).positions) == 0
