"""Fusion against straight-line formulas over dictionaries."""

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


@given(SOURCES, st.integers(1, 10), st.sampled_from(["min-max", "theoretical-min-max", "z-score"]))
def test_convex_combination(sources: Any, k: int, normaliser: Any) -> None:
    lists, weights = sources
    floors = [-3.0, None, -9.0][: len(lists)]
    scores: dict[int, float] = {p: 0.0 for ranking in lists for p in ranking.positions.tolist()}
    for ranking, weight, floor in zip(lists, weights, floors, strict=True):
        values = ranking.scores.tolist()
        if not values:
            continue
        if normaliser == "z-score":
            mean = sum(values) / len(values)
            deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
            scaled = [(v - mean) / deviation if deviation else 0.0 for v in values]
            bottom = min(scaled)
        else:
            low = min(values) if normaliser == "min-max" or floor is None else min(*values, floor)
            scaled = [(v - low) / (max(values) - low) if max(values) > low else 1.0 for v in values]
            bottom = 0.0
        found = dict(zip(ranking.positions.tolist(), scaled, strict=True))
        for position in scores:
            scores[position] += weight / sum(weights) * (found.get(position, bottom) - bottom)
    check(convex_combination(lists, weights, k, normaliser=normaliser, floors=floors), best(scores, k))


def test_zero_ranges_are_guarded() -> None:
    assert normalise(np.array([2.0, 2.0]), "min-max").tolist() == [1, 1]
    assert normalise(np.array([2.0, 2.0]), "z-score").tolist() == [0, 0]
    assert normalise(np.array([]), "min-max").tolist() == []


@pytest.mark.parametrize("fuse", [reciprocal_rank_fusion, convex_combination])
def test_nothing_fused_is_nothing(fuse: Any) -> None:
    empty = Ranking(np.empty(0, np.int64), np.empty(0))
    assert len(fuse([empty, empty], [1, 1], 5).positions) == 0
