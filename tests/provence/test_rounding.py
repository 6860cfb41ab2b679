"""Scores of units against the definitions, written out one unit and one token at a time."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit.documents.model import Unit
from ragkit.provence.pair import Judged
from ragkit.provence.rounding import above, unit_scores

ROUNDINGS = ["mean", "vote", "released"]
PROBABILITY = st.sampled_from([0.0, 0.1, 0.5, 1.0]) | st.floats(0, 1, width=32)
THRESHOLD = st.sampled_from([0.0, 0.1, 0.5, 1.0]) | st.floats(0, 1)


@st.composite
def cases(draw: st.DrawFn, probability: Any = PROBABILITY) -> tuple[Judged, list[Unit]]:
    """Tokens and units, each in order and apart from one another, at places that have nothing to do with each other."""
    edges = sorted(draw(st.lists(st.integers(0, 40), max_size=16, unique=True)))
    units = [Unit(start, end) for start, end in zip(edges[::2], edges[1::2], strict=False)]
    if draw(st.booleans()):  # without gaps, as in scripts without spaces
        units = [Unit(start, end) for start, end in pairwise(edges)]
    cuts = sorted(draw(st.lists(st.integers(0, 45), max_size=24)))
    tokens = [(start, end) for start, end in pairwise(cuts) if draw(st.booleans())]
    keep = draw(st.lists(probability, min_size=len(tokens), max_size=len(tokens)))
    spans = np.array(tokens, np.int64).reshape(-1, 2)
    return Judged(0.0, np.array(keep, np.float32), spans[:, 0], spans[:, 1]), units


def tokens_of(judged: Judged, units: list[Unit]) -> list[list[float]]:
    """The probabilities of each unit's tokens: a token is the first unit's that it shares a character with."""
    found: list[list[float]] = [[] for _ in units]
    for probability, start, end in zip(judged.keep.tolist(), judged.starts, judged.ends, strict=True):
        characters = set(range(start, max(end, start + 1)))
        owner = next((at for at, unit in enumerate(units) if characters & set(range(unit.start, unit.end))), None)
        if owner is not None:
            found[owner].append(probability)
    return found


def straight(probabilities: list[float], rounding: str, threshold: float) -> float:
    values = probabilities if rounding == "mean" else [float(p > threshold) for p in probabilities]
    return math.fsum(values) / len(values)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@given(case=cases(), threshold=THRESHOLD)
def test_scores_are_the_definitions(rounding: Any, case: tuple[Judged, list[Unit]], threshold: float) -> None:
    judged, units = case
    found = unit_scores(judged, units, rounding, threshold)
    per_unit = tokens_of(judged, units)
    assert found.shape == (len(units),)
    known = [straight(its, rounding, threshold) if its else None for its in per_unit]
    for at, score in enumerate(found):
        if known[at] is not None:
            assert score == pytest.approx(known[at], abs=1e-12)
            continue
        before = [other for other in known[:at] if other is not None][-1:]
        after = [other for other in known[at:] if other is not None][:1]
        assert score == pytest.approx(min(before + after, default=0.0), abs=1e-12)


@given(case=cases(), threshold=THRESHOLD)
def test_what_is_kept(case: tuple[Judged, list[Unit]], threshold: float) -> None:
    judged, units = case
    rules: dict[Any, Any] = {
        "mean": lambda its: math.fsum(its) / len(its) > threshold + 1e-12,
        "vote": lambda its: sum(p > threshold for p in its) * 2 > len(its),
        "released": lambda its: sum(p > threshold for p in its) > threshold * len(its),
    }
    for rounding, rule in rules.items():
        kept = above(unit_scores(judged, units, rounding, threshold), rounding, threshold)
        for its, is_kept in zip(tokens_of(judged, units), kept, strict=True):
            close = its and rounding != "vote" and math.isclose(straight(its, rounding, threshold), threshold, abs_tol=1e-9)
            if its and not close:
                assert is_kept == rule(its)


@given(case=cases(), thresholds=st.tuples(THRESHOLD, THRESHOLD), rounding=st.sampled_from(ROUNDINGS))
def test_a_higher_threshold_keeps_a_part(case: tuple[Judged, list[Unit]], thresholds: Any, rounding: Any) -> None:
    low, high = (above(unit_scores(*case, rounding, threshold), rounding, threshold) for threshold in sorted(thresholds))
    assert not (high & ~low).any()


@pytest.mark.parametrize("rounding", ROUNDINGS)
@given(case=cases(PROBABILITY | st.just(math.nan)))
def test_what_is_not_a_number_is_seen(rounding: Any, case: tuple[Judged, list[Unit]]) -> None:
    judged, units = case
    found = unit_scores(judged, units, rounding, 0.5)
    for its, score in zip(tokens_of(judged, units), found, strict=True):
        if its:
            assert math.isnan(score) == any(map(math.isnan, its))


def test_a_vote_needs_more_than_half() -> None:
    judged = Judged(0.0, np.array([0.6, 0.4, 0.6, 0.6, 0.4], np.float32), np.arange(5), np.arange(5) + 1)
    units = [Unit(0, 2), Unit(2, 5)]
    assert above(unit_scores(judged, units, "vote", 0.5), "vote", 0.5).tolist() == [False, True]
    assert above(unit_scores(judged, units, "released", 0.5), "released", 0.5).tolist() == [False, True]
    assert above(unit_scores(judged, units, "released", 0.3), "released", 0.3).tolist() == [True, True]
    assert unit_scores(judged, units, "mean", 0.5) == pytest.approx([0.5, 1.6 / 3])


def test_no_units_and_no_tokens() -> None:
    none = Judged(0.0, np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64))
    assert unit_scores(none, [], "mean", 0.5).tolist() == []
    assert unit_scores(none, [Unit(0, 3), Unit(4, 5)], "vote", 0.5).tolist() == [0.0, 0.0]
