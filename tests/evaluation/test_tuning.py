"""Choosing a configuration: against brute force, a planted gain, a fluke, goals that allow little or nothing."""

from math import inf
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit import InputError
from ragkit.evaluation.tuning import Goal, Marked, Option, choose, choose_threshold, errors_needed, evidence_kept, pareto


class Point(NamedTuple):
    value: float
    ms: float
    calls: float


def fixed(name: str, values: object, ms: float = 1.0, calls: float = 0.0) -> Option:
    return Option(name, lambda train: np.asarray(values, float), ms, calls)


@given(st.lists(st.builds(Point, *[st.integers(0, 4)] * 3), max_size=12))
def test_the_front_is_what_nothing_beats(points: list[Point]) -> None:
    front = pareto(points)
    for point in points:
        rivals = [
            other
            for other in points
            if other.value >= point.value and other.ms <= point.ms and other.calls <= point.calls and other != point
        ]
        assert (point in front) == (not rivals)
    assert front == sorted(front, key=lambda point: (point.calls, point.ms))


def test_a_gain_that_is_everywhere_is_taken_within_the_goal() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(40) / 2
    default, better, best = fixed("default", base, 5), fixed("better", base + 0.1, 5), fixed("best", base + 0.3, 50, 2)
    options = [default, better, best]
    assert choose(options, default, Goal()).option is best
    assert choose(options, default, Goal(ms=5)).option is better
    assert choose(options, default, Goal(calls=1)).option is better
    choice = choose(options, default, Goal(ms=5))
    assert choice.value == pytest.approx(base.mean() + 0.1)
    assert choice.gain == pytest.approx(0.1)
    assert choice.error == pytest.approx(0)


def test_a_fluke_is_not_taken() -> None:
    """Options that are noise: the best of them looks better on all questions, and is not on those that were held out."""
    rng = np.random.default_rng(1)
    taken = []
    for _ in range(40):
        default, *others = [fixed(str(n), rng.random(30)) for n in range(12)]
        looks = max(option.values(np.arange(0)).mean() for option in others) - default.values(np.arange(0)).mean()
        choice = choose([default, *others], default, Goal())
        taken.append(choice.option is not default)
        assert choice.gain < looks + 1e-9
    assert np.mean(taken) < 0.3


def test_what_is_fitted_is_fitted_without_the_questions_it_is_judged_by() -> None:
    asked = []

    def values(train: np.ndarray) -> np.ndarray:
        asked.append(frozenset(train.tolist()))
        return np.where(np.isin(np.arange(10), train), 1.0, 0.0)  # right only where it has seen the answer

    default = fixed("default", np.full(10, 0.5))
    choice = choose([default, Option("learned by heart", values, 1.0)], default, Goal(), folds=5)
    assert choice.option is default
    assert choice.gain == pytest.approx(-0.5)
    assert asked == [frozenset(i for i in range(10) if i % 5 != f) for f in range(5)] + [frozenset(range(10))]


def test_goals_that_the_default_or_everything_breaks() -> None:
    default, cheap = fixed("default", [0.9] * 6, 50), fixed("cheap", [0.2, 0.3] * 3, 2)
    assert choose([default, cheap], default, Goal(ms=10)).option is cheap
    with pytest.raises(
        InputError, match=r"^goal: nothing costs at most 1 ms and inf calls; allow more: the cheapest, cheap, costs 2\.0 ms"
    ):
        choose([default, cheap], default, Goal(ms=1))
    with pytest.raises(InputError, match="at least two, not 1"):
        choose([fixed("one", [1.0])], fixed("one", [1.0]), Goal())
    assert Goal(inf, 0).allows(cheap)


def test_of_equals_the_cheapest() -> None:
    default = fixed("default", [0.1, 0.2, 0.3, 0.4], 9)
    dear, cheap = fixed("dear", [0.6, 0.7, 0.8, 0.9], 5), fixed("cheap", [0.6, 0.7, 0.8, 0.9], 4)
    assert choose([default, dear, cheap], default, Goal()).option is cheap


def marked(draw: np.random.Generator) -> Marked:
    ends = np.cumsum(draw.integers(1, 9, 5))
    units = list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))
    start = int(draw.integers(0, ends[-1] - 1))
    return Marked([(start, int(draw.integers(start + 1, ends[-1] + 1)))], units, draw.random(5))


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_evidence_is_counted_character_by_character(seed: int, threshold: float) -> None:
    passages = [marked(np.random.default_rng(seed + n)) for n in range(3)]
    shares = []
    for passage in passages:
        kept = {c for (a, b), s in zip(passage.units, passage.scores, strict=True) if s > threshold for c in range(a, b)}
        shares += [len(kept & set(range(a, b))) / (b - a) for a, b in passage.gold]
    assert evidence_kept(passages, [threshold]) == pytest.approx([np.mean(shares)])


def test_the_threshold_keeps_what_was_asked_for_without_any_fold() -> None:
    def question(score: float) -> list[Marked]:
        return [Marked([(0, 4)], [(0, 4), (5, 9)], np.array([score, 0.9])), Marked([], [(0, 2)], np.array([0.1]))]

    questions = [question(score) for score in (0.8, 0.7, 0.6, 0.5, 0.15)]
    thresholds = [0.1, 0.4, 0.55, 0.65, 0.75]
    assert choose_threshold(questions, thresholds, 1.0) == 0.1
    assert choose_threshold(questions, thresholds, 0.75) == 0.4  # of any four, three are kept at least
    assert choose_threshold(questions, thresholds, 0.5) == 0.55
    assert choose_threshold(questions[-1:], [0.4], 0.5) is None
    assert choose_threshold([[Marked([], [(0, 1)], np.ones(1))]], thresholds, 0.5) is None
    assert np.isnan(evidence_kept([], [0.5])).all()


@pytest.mark.parametrize("questions", [15, 26, 50, 300])
def test_few_questions_need_more_standard_errors_as_student_has_it(questions: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="needs scipy")
    assert errors_needed(questions) == pytest.approx(stats.t.isf(stats.norm.sf(2), questions - 1), abs=0.02)
