"""Choosing a configuration: against brute force, a planted gain, flukes, goals that allow little or nothing."""

from collections.abc import Callable
from math import inf, sqrt
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit import InputError
from ragkit.evaluation.tuning import (
    Choice,
    Goal,
    Marked,
    Option,
    allowed,
    choose,
    choose_threshold,
    climb,
    evidence_kept,
    pareto,
)


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


def parts(options: dict[tuple[int, int], Option]) -> list[Callable[[tuple[int, int]], list[tuple[int, int]]]]:
    """Settings are pairs; each part changes one number of them, also to what is no option."""
    return [lambda s: [(n, s[1]) for n in range(9)], lambda s: [(s[0], n) for n in range(9)]]


def test_each_part_is_changed_in_turn_as_brute_force_has_it() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        table = rng.normal(0, 0.2, (3, 4, 1)) + rng.normal(0, 0.5, (3, 4, 20))
        options = {(a, b): fixed(f"{a}{b}", table[a, b]) for a in range(3) for b in range(4) if (a, b) != (2, 3)}
        some = rng.permutation(20)[:15]

        def bound(one: tuple[int, int], other: tuple[int, int], table=table, some=some) -> float:
            gains = [float(table[one][i] - table[other][i]) for i in some]
            mean = sum(gains) / 15
            return mean - sqrt(sum((gain - mean) ** 2 for gain in gains) / 14 / 15)

        at = (0, 0)
        for row in ([(a, 0) for a in range(3)], None):
            rivals = row if row is not None else [(at[0], b) for b in range(4) if (at[0], b) in options]
            best = max(rivals, key=lambda one: bound(one, at))
            at = best if bound(best, at) > 0 else at
        assert climb(options, (0, 0), parts(options), some) == at


def test_a_gain_that_is_everywhere_is_taken_within_the_goal() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(40) / 2
    options = {(0, 0): fixed("start", base, 5), (0, 1): fixed("better", base + 0.1, 5), (1, 0): fixed("best", base + 0.3, 50, 2)}
    options |= {(1, 1): fixed("both", base + 0.35, 50, 2)}

    def chosen(goal: Goal) -> Choice[tuple[int, int]]:
        within = allowed(options, goal)
        return choose(within, (0, 0), parts(within), 40)

    assert chosen(Goal()).setting == (1, 1)
    assert chosen(Goal(ms=5)).setting == (0, 1)
    assert chosen(Goal(calls=1)).setting == (0, 1)
    assert chosen(Goal(ms=5)).start == (0, 0)
    assert chosen(Goal(ms=5)).gain == pytest.approx(0.1)
    assert chosen(Goal(ms=5)).error == pytest.approx(0)
    assert list(allowed(options, Goal(ms=5))) == [(0, 0), (0, 1)]


def test_flukes_are_seldom_taken_and_cost_little() -> None:
    """Options that are noise: what is chosen gains nothing on other questions, nor does it lose much."""
    rng = np.random.default_rng(1)
    taken = []
    for _ in range(60):
        options = {(0, n): fixed(str(n), rng.random(30)) for n in range(4)}
        choice = choose(options, (0, 0), parts(options), 30)
        looks = max(option.values(np.arange(0)).mean() for option in options.values())
        assert choice.gain <= looks - options[0, 0].values(np.arange(0)).mean() + 1e-9
        taken.append(choice.setting != (0, 0))
    assert np.mean(taken) < 0.3


def test_what_is_fitted_is_fitted_without_the_questions_it_is_judged_by() -> None:
    asked = []

    def values(train: np.ndarray) -> np.ndarray:
        asked.append(frozenset(train.tolist()))
        return np.where(np.isin(np.arange(10), train), 1.0, 0.0)  # right only where it has seen the answer

    options = {(0, 0): fixed("start", np.full(10, 0.5)), (0, 1): Option("learned by heart", values, 1.0)}
    choice = choose(options, (0, 0), parts(options), 10, folds=5)
    assert choice.setting == (0, 0)
    assert choice.gain == pytest.approx(-0.5)
    assert set(asked) == {frozenset(i for i in range(10) if i % 5 != f) for f in range(5)}


def test_what_changes_nothing_is_taken_where_it_costs_less() -> None:
    values = [0.1, 0.2, 0.3, 0.4]
    options = {(0, 0): fixed("start", values, 9), (0, 1): fixed("dear", values, 10), (0, 2): fixed("cheap", values, 4)}
    assert climb(options, (0, 0), parts(options), np.arange(4)) == (0, 2)
    assert climb(options, (0, 2), parts(options), np.arange(4)) == (0, 2)


def test_goals_that_everything_breaks_and_too_few_questions() -> None:
    options = {"default": fixed("default", [0.9] * 6, 50), "cheap": fixed("cheap", [0.2, 0.3] * 3, 2)}
    with pytest.raises(
        InputError, match=r"^goal: nothing costs at most 1 ms and inf calls; allow more: the cheapest, cheap, costs 2\.0 ms"
    ):
        allowed(options, Goal(ms=1))
    with pytest.raises(InputError, match="at least two, not 1"):
        choose(options, "cheap", [], 1)
    assert list(allowed(options, Goal(inf, 0))) == ["cheap", "default"]


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
