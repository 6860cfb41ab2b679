"""Query performance prediction: each formula against the definition written out, and what must hold of any of them."""

import math
from statistics import mean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit import InputError
from ragkit.retrievers.prediction import coverage, gap, nqc, overlap, rank_biased_overlap, smv, wig

scores = st.lists(st.floats(0.01, 100), min_size=1, max_size=30).map(lambda values: sorted(values, reverse=True))
ranking = st.permutations("abcdefghijklmno").map(lambda ids: ids[:12])


def ranks(ids: str | list[str]) -> dict[str, int]:
    return {id_: rank for rank, id_ in enumerate(ids, 1)}


@given(scores, st.floats(0.1, 10), st.integers(1, 40))
def test_nqc_and_smv_are_as_defined(values: list[float], corpus: float, k: int) -> None:
    top = values[:k]
    assert nqc(values, corpus, k) == pytest.approx(pstdev(top) / corpus, abs=1e-9)
    expected = mean(score * abs(math.log(score / mean(top))) for score in top) / corpus
    assert smv(values, corpus, k) == pytest.approx(expected, abs=1e-9)


@given(scores, st.integers(1, 9), st.floats(-5, 5), st.integers(1, 40))
def test_wig_is_as_defined(values: list[float], terms: int, corpus: float, k: int) -> None:
    assert wig(values, terms, corpus, k) == pytest.approx(mean(s - corpus for s in values[:k]) / math.sqrt(terms), abs=1e-9)


def test_scores_that_say_nothing() -> None:
    assert [gap([]), nqc([]), smv([]), wig([], 2), gap([3.0]), wig([1.0], 0), smv([-1.0, -2.0])] == [0] * 7
    assert nqc([2.0, 2.0, 2.0]) == smv([2.0, 2.0]) == 0
    assert gap([5.0, 3.5, 1.0]) == 1.5
    with pytest.raises(InputError, match="scores"):
        nqc([1.0, float("nan")])
    with pytest.raises(InputError, match="corpus_score"):
        smv([1.0], 0)


@given(ranking, ranking, st.integers(1, 15))
def test_overlap_counts_what_both_have_near_the_top(one: list[str], other: list[str], depth: int) -> None:
    expected = len(set(one[:depth]) & set(other[:depth])) / min(depth, 12)
    assert overlap(ranks(one), ranks(other), depth) == pytest.approx(expected)


@given(ranking, ranking, st.integers(1, 12), st.floats(0.3, 0.95))
def test_rbo_is_the_infinite_sum_with_the_last_agreement_going_on(one: list[str], other: list[str], depth: int, p: float) -> None:
    agreements = [len(set(one[:d]) & set(other[:d])) / d for d in range(1, depth + 1)]
    terms = [(1 - p) * p ** (d - 1) * agreements[min(d, depth) - 1] for d in range(1, 2000)]
    found = rank_biased_overlap(ranks(one), ranks(other), depth, p)
    assert found == pytest.approx(sum(terms), abs=1e-9)
    assert found == pytest.approx(rank_biased_overlap(ranks(other), ranks(one), depth, p))
    assert 0 <= found <= 1 + 1e-12


def test_rbo_of_the_same_of_others_and_of_short_rankings() -> None:
    assert rank_biased_overlap(ranks("abc"), ranks("abc")) == pytest.approx(1)
    assert rank_biased_overlap(ranks("abc"), ranks("xyz")) == 0
    assert rank_biased_overlap({}, {}) == overlap({}, {}) == 0
    # a change at the top weighs more than one further down
    assert rank_biased_overlap(ranks("abcd"), ranks("bacd")) < rank_biased_overlap(ranks("abcd"), ranks("abdc"))
    # ranks with gaps: what is not known of a ranking is not shared
    assert overlap({"a": 1, "b": 9}, {"a": 2, "b": 12}, 10) == 0.5
    for p, depth in ((0.0, 5), (1.0, 5), (0.5, 0)):
        with pytest.raises(InputError):
            rank_biased_overlap(ranks("a"), ranks("a"), depth, p)


def test_coverage_is_weighed() -> None:
    assert coverage({"rare": 3.0, "common": 1.0}, ["common", "other"]) == 0.25
    assert coverage({"rare": 3.0, "common": 1.0}, ["common", "rare"]) == 1
    assert coverage({}, ["common"]) == 0
