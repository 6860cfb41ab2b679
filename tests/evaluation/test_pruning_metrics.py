"""Measures of pruning against straight loops, their properties, and ir-measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit import InputError
from ragkit.evaluation.pruning import (
    Scored,
    ScoredPassage,
    curve,
    gold_first,
    measure,
    quantiles,
    ranking,
    recall_at,
    sweep,
    threshold_for,
)

UNITS = st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 1.0, -2.0]), st.integers(1, 9), st.booleans(), st.booleans())


@st.composite
def judged(draw: st.DrawFn) -> list[ScoredPassage]:
    """Passages of a few questions, some without gold, with many equal scores; at least one gold sentence."""
    passages = []
    for question in range(draw(st.integers(1, 4))):
        for _ in range(draw(st.integers(1, 4))):
            units = draw(st.lists(UNITS, min_size=1, max_size=5))
            passages.append(of_units(question, units, draw(st.none() | st.sampled_from([0.0, 0.3, 0.9]))))
    if not any(passage.gold.any() for passage in passages):
        passages[-1].gold[-1] = True
    return passages


def of_units(question: int, units: Sequence[Any], relevance: float | None = None) -> ScoredPassage:
    scores, lengths, gold, kept = (np.array(values) for values in zip(*units, strict=True))
    return ScoredPassage(question, scores, lengths, gold, kept, relevance)


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def brute_force(passages: list[ScoredPassage], keeps: list[list[bool]]) -> dict[str, float]:
    kept = gold = hits = 0
    removed: list[float] = []
    sides: dict[bool, list[float]] = {True: [], False: []}
    complete: dict[int, bool] = {}
    for passage, keep in zip(passages, keeps, strict=True):
        gone = total = 0
        for at in range(len(keep)):
            total += passage.lengths[at]
            if keep[at]:
                kept += 1
                hits += passage.gold[at]
            else:
                gone += passage.lengths[at]
            if passage.gold[at]:
                gold += 1
                complete[passage.question] = complete.get(passage.question, True) and keep[at]
        removed.append(gone / total)
        sides[any(passage.gold)].append(gone / total)
    precision, recall = (hits / kept if kept else 0.0), hits / gold

    def f(beta: int) -> float:
        return (1 + beta**2) * precision * recall / (beta**2 * precision + recall) if hits else 0.0

    return {
        "precision": precision,
        "recall": recall,
        "f1": f(1),
        "f2": f(2),
        "removed": mean(removed),
        "removed_relevant": mean(sides[True]),
        "removed_irrelevant": mean(sides[False]),
        "whole": mean([float(whole) for whole in complete.values()]),
    }


def at_threshold(passages: list[ScoredPassage], threshold: float) -> dict[str, float]:
    return brute_force(passages, [[score >= threshold for score in passage.scores] for passage in passages])


def all_thresholds(passages: list[ScoredPassage]) -> list[float]:
    return sorted({float(score) for passage in passages for score in passage.scores})


@given(judged())
@settings(deadline=None)
def test_every_measure_is_that_of_straight_loops(passages: list[ScoredPassage]) -> None:
    scored = Scored.of(passages)
    assert measure(scored, scored.kept)._asdict() == pytest.approx(
        brute_force(passages, [passage.kept.tolist() for passage in passages]), nan_ok=True
    )
    thresholds = [*all_thresholds(passages), 0.3, 7.0]
    for threshold, point in sweep(scored, thresholds):
        assert point._asdict() == pytest.approx(at_threshold(passages, threshold), nan_ok=True)


@given(judged())
@settings(deadline=None)
def test_the_curve_is_exact_at_every_score(passages: list[ScoredPassage]) -> None:
    found = curve(Scored.of(passages))
    assert found.thresholds.tolist() == [*all_thresholds(passages), math.inf]
    for threshold, removed, recall in zip(*found, strict=True):
        expected = at_threshold(passages, threshold)
        assert (removed, recall) == pytest.approx((expected["removed"], expected["recall"]))
        if len(found.thresholds) > 2:
            assert recall_at(found, removed) == pytest.approx(recall)


@given(judged(), st.lists(st.floats(-3, 2), min_size=2, max_size=6))
@settings(deadline=None)
def test_a_higher_threshold_keeps_less(passages: list[ScoredPassage], thresholds: list[float]) -> None:
    scored = Scored.of(passages)
    points = [point for _, point in sweep(scored, sorted(thresholds))]
    for lower, higher in pairwise(points):
        assert lower.recall >= higher.recall
        assert lower.whole >= higher.whole
        assert lower.removed <= higher.removed + 1e-12
        assert lower.removed_relevant <= higher.removed_relevant + 1e-12
    found = curve(scored)
    assert (np.diff(found.removed) >= 0).all()
    assert (np.diff(found.recall) <= 0).all()
    assert (found.removed[0], found.recall[0]) == (0, 1)
    assert (found.removed[-1], found.recall[-1]) == pytest.approx((1, 0))


@given(judged(), st.floats(0.01, 1))
@settings(deadline=None)
def test_the_threshold_for_a_share_is_the_largest_that_keeps_it(passages: list[ScoredPassage], share: float) -> None:
    good = [t for t in all_thresholds(passages) if at_threshold(passages, t)["recall"] >= share - 1e-9]
    assert threshold_for(Scored.of(passages), share) == max(good)


@pytest.mark.parametrize(("count", "kept"), [(20, 19), (60, 57), (100, 95), (21, 20), (1, 1)])
def test_a_share_is_counted_in_whole_sentences(count: int, kept: int) -> None:
    scored = Scored.of([of_units(0, [(n / count, 1, True, True) for n in range(count)])])
    assert (scored.scores >= threshold_for(scored, 0.95)).sum() == kept


@given(judged())
@settings(deadline=None)
def test_the_best_sentence_is_the_first_of_equals(passages: list[ScoredPassage]) -> None:
    firsts = []
    for passage in passages:
        if passage.gold.any():
            best = 0
            for at in range(len(passage.scores)):
                if passage.scores[at] > passage.scores[best]:
                    best = at
            firsts.append(bool(passage.gold[best]))
    assert gold_first(Scored.of(passages)) == pytest.approx(mean([float(first) for first in firsts]))


@given(judged())
@settings(deadline=None)
def test_passages_are_ranked_as_ir_measures_ranks_them(passages: list[ScoredPassage]) -> None:
    run: dict[str, dict[str, float]] = {}
    qrels: dict[str, dict[str, int]] = {}
    for question in {passage.question for passage in passages}:
        its = [passage for passage in passages if passage.question == question]
        if len(its) >= 2 and any(passage.gold.any() for passage in its):
            scores = [passage.relevance for passage in its]
            values = [max(passage.scores) for passage in its] if None in scores else scores
            order = sorted(range(len(its)), key=lambda at: (-values[at], at))
            run[str(question)] = {str(at): -float(rank) for rank, at in enumerate(order)}
            qrels[str(question)] = {str(at): int(passage.gold.any()) for at, passage in enumerate(its)}
    found = ranking(Scored.of(passages))
    assert found.questions == len(run)
    if run:
        expected = ir_measures.calc_aggregate([ir_measures.nDCG @ 10, ir_measures.RR], qrels, run)
        assert found[:2] == pytest.approx((expected[ir_measures.nDCG @ 10], expected[ir_measures.RR]))
    else:
        assert math.isnan(found.ndcg)
        assert math.isnan(found.mrr)


@pytest.mark.parametrize("seed", range(5))
def test_only_ten_passages_count_for_ndcg_and_all_for_mrr(seed: int) -> None:
    random = np.random.default_rng(seed)
    gold, scores = random.permutation(25) < 12, random.random(25)
    gold[np.argsort(-scores)[:11]] = False
    found = ranking(Scored.of([of_units(0, [(score, 1, is_gold, True)]) for score, is_gold in zip(scores, gold, strict=True)]))
    qrels = {"q": {str(at): int(is_gold) for at, is_gold in enumerate(gold)}}
    run = {"q": {str(at): float(score) for at, score in enumerate(scores)}}
    expected = ir_measures.calc_aggregate([ir_measures.nDCG @ 10, ir_measures.RR], qrels, run)
    assert found == pytest.approx((expected[ir_measures.nDCG @ 10], expected[ir_measures.RR], 1))
    assert 0 < found.mrr < 0.1


@given(judged(), st.sets(st.integers(0, 3), min_size=1))
@settings(deadline=None)
def test_some_questions_measure_as_if_they_were_alone(passages: list[ScoredPassage], chosen: set[int]) -> None:
    alone = [passage for passage in passages if passage.question in chosen]
    if any(passage.gold.any() for passage in alone):
        part, expected = Scored.of(passages).of_questions(chosen), Scored.of(alone)
        assert measure(part, part.kept) == pytest.approx(measure(expected, expected.kept), nan_ok=True)
        assert ranking(part) == pytest.approx(ranking(expected), nan_ok=True)
        assert (gold_first(part), threshold_for(part)) == (gold_first(expected), threshold_for(expected))


@given(judged(), st.integers(1, 12))
@settings(deadline=None)
def test_quantiles_are_scores(passages: list[ScoredPassage], count: int) -> None:
    found = quantiles(Scored.of(passages), count).tolist()
    assert found == sorted(set(found))
    assert 1 <= len(found) <= count
    assert set(found) <= set(all_thresholds(passages))
    assert found[0] == all_thresholds(passages)[0]


def test_equal_compression_is_interpolated() -> None:
    scored = Scored.of([of_units(0, [(0.9, 6, True, True), (0.5, 2, False, True), (0.1, 2, True, True)])])
    found = curve(scored)
    assert [recall_at(found, removed) for removed in (0, 0.1, 0.2, 0.4, 0.7, 1)] == pytest.approx([1, 0.75, 0.5, 0.5, 0.25, 0])
    assert math.isnan(recall_at(curve(Scored.of([of_units(0, [(1.0, 1, True, True), (1.0, 1, False, True)])])), 0.5))


def test_a_pruner_that_keeps_nothing_has_no_precision() -> None:
    scored = Scored.of([of_units(0, [(0.5, 3, True, False), (0.1, 1, False, False)])])
    point = measure(scored, scored.kept)
    assert point[:5] == (0, 0, 0, 0, 1)
    assert math.isnan(point.removed_irrelevant)
    assert point.whole == 0


@pytest.mark.parametrize(
    ("passages", "message"),
    [
        ([], "none has a gold sentence"),
        ([of_units(0, [(0.1, 1, False, True)])], "none has a gold sentence"),
        ([of_units(0, [(0.1, 1, True, True)]), of_units(0, [(0.1, 0, False, True)])], "a sentence with text"),
        ([of_units(0, [(math.nan, 1, True, True)])], "finite"),
    ],
)
def test_what_cannot_be_measured_is_refused(passages: list[ScoredPassage], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Scored.of(passages)


@pytest.mark.parametrize("share", [0, -0.5, 1.01, math.nan])
def test_a_share_is_a_share(share: float) -> None:
    scored = Scored.of([of_units(0, [(0.1, 1, True, True)])])
    with pytest.raises(InputError, match="share: must be above 0 and at most 1"):
        threshold_for(scored, share)
