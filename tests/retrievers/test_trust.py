"""The weight of a question's dense ranking: against the formula over plain lists, and what moves it which way."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit.indexes.base import Ranking
from ragkit.retrievers.trust import AGREEMENT, DECISIVENESS, HIGHEST, LOWEST, USUAL, dense_weight


def ranking(positions: list[int], scores: list[float]) -> Ranking:
    return Ranking(np.array(positions, np.int64), np.array(scores, np.float64))


def reference(bm25: dict[int, float], dense: dict[int, float], depth: int) -> float:
    """Both by position, best first."""
    sparse, cosines = list(bm25.values()), list(dense.values())
    rest = sparse[-1] if len(sparse) == depth else 0.0
    padded = sparse + [rest] * 10
    scale = cosines[0] - cosines[-1]
    nearest = list(dense)[:3]
    support = np.mean([bm25.get(position, rest) / sparse[0] for position in nearest])
    closeness = (dense.get(next(iter(bm25)), cosines[-1]) - cosines[-1]) / scale
    steep = max((sparse[0] - padded[9]) / sparse[0], 0.02)
    fall = max((cosines[0] - cosines[:10][-1]) / scale, 0.02)
    weight = math.exp(AGREEMENT * (support + closeness) / 2) * (steep / fall) ** DECISIVENESS
    return float(np.clip(weight, LOWEST, HIGHEST))


@given(st.integers(1, 40), st.integers(11, 40), st.integers(0, 10_000))
def test_agrees_with_the_formula(sparse: int, dense: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = ranking(rng.choice(60, sparse, replace=False).tolist(), np.sort(rng.uniform(0.1, 9, sparse))[::-1].tolist())
    b = ranking(rng.choice(60, dense, replace=False).tolist(), np.sort(rng.uniform(-1, 1, dense))[::-1].tolist())
    first, second = (dict(zip(one.positions.tolist(), one.scores.tolist(), strict=True)) for one in (a, b))
    assert dense_weight(a, b, 40) == pytest.approx(reference(first, second, 40), rel=1e-6)


def test_what_moves_it() -> None:
    falling = [4.0 - 0.19 * n for n in range(20)]
    cosines = [0.9 - 0.02 * n for n in range(20)]
    bm25 = ranking(list(range(20)), falling)
    dense = ranking([50, 51, 0, *range(10, 27)], cosines)
    usual = dense_weight(bm25, dense)
    assert LOWEST < usual < HIGHEST
    assert dense_weight(bm25, ranking([0, 50, 51, *range(10, 27)], cosines)) > usual, "both have the same first"
    assert dense_weight(bm25, ranking(list(range(50, 70)), cosines)) < usual, "neither finds what the other does"
    assert dense_weight(ranking(list(range(20)), [4.0, *[1.0] * 19]), dense) < usual, "BM25 is sure"
    assert dense_weight(bm25, dense._replace(scores=np.array([0.9, *[0.55] * 18, 0.52]))) > usual, "the vectors are sure"


def test_scales_do_not_matter() -> None:
    """Those of BM25's scores, and of the cosines of models that put everything close together."""
    bm25, dense = (
        ranking([3, 1, 4, 5], [9.0, 6.0, 4.0, 1.0]),
        ranking([1, 3, *range(20, 32)], [0.8, 0.6, *np.linspace(0.5, 0.1, 12)]),
    )
    once = dense_weight(bm25, dense)
    assert LOWEST < once < HIGHEST
    assert dense_weight(bm25._replace(scores=bm25.scores * 7), dense) == pytest.approx(once)
    assert dense_weight(bm25, dense._replace(scores=0.8 + dense.scores / 10)) == pytest.approx(once)


def test_only_the_first_hundred_count() -> None:
    bm25 = ranking(list(range(150)), [150.0 - n for n in range(150)])
    dense = ranking(list(range(150))[::-1], [0.9 - 0.002 * n for n in range(150)])
    cut = [Ranking(one.positions[:100], one.scores[:100]) for one in (bm25, dense)]
    assert dense_weight(bm25, dense, 150) == dense_weight(cut[0], cut[1], 100)


def test_without_evidence_the_usual_weight() -> None:
    some, none = ranking([1, 2], [0.5, 0.4]), ranking([], [])
    many = ranking(list(range(11)), [0.9 - 0.01 * n for n in range(11)])
    assert dense_weight(some, many) != USUAL
    for bm25, dense in ((none, many), (some, none), (some, some), (ranking([1], [0.0]), many)):
        assert dense_weight(bm25, dense) == USUAL
    assert dense_weight(some, many._replace(scores=np.full(11, 0.7))) < USUAL, "equal cosines are no evidence for the vectors"
