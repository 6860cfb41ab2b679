"""The driver: what it asks, what it counts, where it stops, and whom a failure concerns."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit.errors import RagkitError
from ragkit.llms.base import Cost, DeadlineError
from ragkit.llms.budget import Budget
from ragkit.rerankers.driver import Asked, Driven, Job, Note, Verdict, adrive, drive
from ragkit.rerankers.driver import Judge as AnyJudge
from ragkit.rerankers.strategies.base import Choose, Compare, Grade, Order, Question, Ranked, Round, Strategy
from ragkit.rerankers.strategies.pairwise import sliding
from ragkit.rerankers.strategies.pointwise import pointwise
from ragkit.rerankers.strategies.setwise import heapsort

COST = Cost(1, 10, 2)
BEST = Choose((0, 1))


class Judge(AnyJudge[Any]):
    """Says what `say` does about a task and a question; remembers how much it was asked at a time."""

    def __init__(self, say: Callable[[Any, Any], Verdict], delay: float = 0.0) -> None:
        self.say = say
        self.delay = delay
        self.batches: list[int] = []
        self.begun = 0
        self.cancelled = 0

    def judge(self, asked: Sequence[Asked[Any]], until: float | None = None) -> list[Verdict]:
        self.batches.append(len(asked))
        return [self.say(task, question) for task, question in asked]

    async def ajudge(self, asked: Sequence[Asked[Any]], until: float | None = None) -> list[Verdict]:
        self.begun += 1
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.judge(asked)


def by_number(task: Any, question: Any) -> Verdict:
    """The last candidate is the best."""
    match question:
        case Grade(candidate):
            return Verdict(float(candidate), COST)
        case Compare(first, second):
            return Verdict(float(first > second), COST)
        case Choose(candidates):
            return Verdict(tuple(map(float, candidates)), COST)
    raise AssertionError(question)


def both(jobs: Callable[[], list[Job[Any]]], say: Callable[[Any, Any], Verdict], **settings: Any) -> list[Any]:
    """The results of the sync form, which the async form gives as well."""
    results = drive(jobs(), Judge(say), **settings)
    others = asyncio.run(adrive(jobs(), Judge(say), **settings))
    for result, other in zip(results, others, strict=True):
        if isinstance(result, Driven):
            assert isinstance(other, Driven)
            assert result._replace(usage={}) == other._replace(usage={})
            assert {**result.usage, "seconds": 0} == {**other.usage, "seconds": 0}
            json.dumps(result.usage)
        else:
            assert repr(result) == repr(other)
    return results


def one(strategy: Callable[[], Strategy], say: Callable[[Any, Any], Verdict] = by_number, **settings: Any) -> Any:
    return both(lambda: [Job("task", strategy())], say, **settings)[0]


def ask(*questions: Any) -> Strategy:
    """One round, and the answers as scores."""
    answers = yield Round(questions, [1, 0])
    return Ranked([0, 1], answers)  # type: ignore[arg-type]


def test_calls_rounds_and_tokens_are_exact() -> None:
    result = one(lambda: heapsort(100, 10))
    assert result.ranked.order[:10] == list(range(99, 89, -1))
    assert result.stopped is None
    seconds = result.usage.pop("seconds")
    assert 0 <= seconds < 60
    assert result.usage == {
        "calls": 65,
        "rounds": 36,
        "prompt_tokens": 650,
        "completion_tokens": 130,
        "uncounted": 0,
        "cached": 0,
        "failures": 0,
    }


def test_cached_answers_repeated_calls_and_unknown_tokens_are_told_apart() -> None:
    costs = [Cost(1, 10, 2, cached=True), Cost(3, 30, 6), Cost(), Cost(0)]
    result = one(lambda: pointwise(4, 4), lambda task, question: Verdict(1.0, costs[question.candidate]))
    counted = {name: result.usage[name] for name in ("calls", "cached", "uncounted", "prompt_tokens", "completion_tokens")}
    assert counted == {"calls": 4, "cached": 1, "uncounted": 1, "prompt_tokens": 30, "completion_tokens": 6}


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_is_asked_about_fewer_than_two(n: int) -> None:
    result = one(lambda: heapsort(n, 10), budget=Budget(max_calls=0))
    assert (list(result.ranked.order), result.stopped, result.usage["rounds"]) == (list(range(n)), None, 0)


def test_a_round_without_questions_is_not_asked() -> None:
    def strategy() -> Strategy:
        assert list((yield Round([], [0, 1]))) == []
        yield Round([Compare(0, 1)], [0, 1])
        yield Round([], [0, 1])
        return Ranked([1, 0])

    result = one(strategy)
    assert (result.ranked.order, result.usage["calls"], result.usage["rounds"]) == ([1, 0], 1, 1)


def test_the_rounds_of_all_user_questions_are_asked_at_once() -> None:
    judge = Judge(lambda task, question: by_number(task, question))
    results = drive([Job("a", pointwise(5, 5)), Job("b", heapsort(9, 1, 3)), Job("c", pointwise(0, 5))], judge)
    assert judge.batches == [5 + 2, 1]
    assert [result.usage["calls"] for result in results if isinstance(result, Driven)] == [5, 3, 0]


async def test_no_user_question_waits_for_another_in_the_async_form() -> None:
    class Uneven(Judge):
        async def ajudge(self, asked: Sequence[Asked[Any]], until: float | None = None) -> list[Verdict]:
            done.append(asked[0].task)
            if done.count("fast") == 4:
                finished.set()
            if asked[0].task == "slow":
                await asyncio.wait_for(finished.wait(), 20)
            return self.judge(asked)

    done: list[str] = []
    finished = asyncio.Event()
    await adrive([Job("slow", sliding(5, 1)), Job("fast", sliding(5, 1))], Uneven(by_number))
    assert done == ["slow", "fast", "fast", "fast", "fast", "slow", "slow", "slow"]


@pytest.mark.parametrize(
    ("budget", "reason"),
    [(Budget(max_calls=0), "calls"), (Budget(max_tokens=0), "tokens"), (Budget(seconds=0), "deadline")],
)
@pytest.mark.parametrize("strategy", [pointwise, sliding, heapsort])
def test_a_budget_of_0_gives_the_input_order_and_says_so(budget: Budget, reason: str, strategy: Any) -> None:
    result = one(lambda: strategy(20, 5), budget=budget)
    assert list(result.ranked.order) == list(range(20))
    assert result.stopped == result.usage["stopped"] == reason
    assert (result.usage["calls"], result.usage["rounds"]) == (0, 0)


def test_a_budget_that_ends_midway_gives_the_best_so_far() -> None:
    # 19 pairs of 2 calls bring the last one to the front
    result = one(lambda: sliding(20, 1), budget=Budget(max_calls=21))
    assert result.stopped == "calls"
    assert result.ranked.order == [*range(9), 19, *range(9, 19)]
    assert result.usage["calls"] == 20


def test_a_round_that_fits_only_partly_is_not_asked() -> None:
    result = one(lambda: pointwise(20, 5), budget=Budget(max_calls=19))
    assert (result.stopped, result.usage["calls"], list(result.ranked.order)) == ("calls", 0, list(range(20)))
    assert one(lambda: pointwise(20, 5), budget=Budget(max_calls=20)).stopped is None


def test_tokens_are_expected_to_be_spent_as_before() -> None:
    # rounds of 24 tokens: a fifth would go beyond
    result = one(lambda: sliding(20, 1), budget=Budget(max_tokens=100))
    assert (result.stopped, result.usage["rounds"]) == ("tokens", 4)
    assert result.usage["prompt_tokens"] + result.usage["completion_tokens"] == 96


def test_every_user_question_has_the_whole_budget() -> None:
    results = both(lambda: [Job(n, pointwise(n, 5)) for n in (4, 5, 6)], by_number, budget=Budget(max_calls=5))
    assert [(result.stopped, result.usage["calls"]) for result in results] == [(None, 4), (None, 5), ("calls", 0)]


class Punctual(Judge):
    """Needs `seconds(question)` for each question, all at once, and returns with what it has at the deadline."""

    def __init__(self, seconds: Callable[[Any, Any], float], sent: int = 10**6) -> None:
        super().__init__(by_number)
        self.seconds, self.sent = seconds, sent

    def judge(self, asked: Sequence[Asked[Any]], until: float | None = None) -> list[Verdict]:
        assert until is not None
        self.batches.append(len(asked))
        needed = [self.seconds(*one) for one in asked]
        left = until - time.monotonic()
        time.sleep(max(0.0, min([left, max(needed)])))
        costs = [Cost(int(at < self.sent)) for at in range(len(asked))]
        return [
            self.say(*one) if seconds <= left else Verdict(None, cost, DeadlineError(cost))
            for one, seconds, cost in zip(asked, needed, costs, strict=True)
        ]

    async def ajudge(self, asked: Sequence[Asked[Any]], until: float | None = None) -> list[Verdict]:
        return await asyncio.to_thread(self.judge, asked, until)


def at_the_deadline(jobs: Callable[[], list[Job[Any]]], judge: Callable[[], Judge], **settings: Any) -> list[Any]:
    """The results of the sync form, which the async form gives as well."""
    budget = Budget(seconds=0.5)
    results = drive(jobs(), judge(), budget, **settings)
    others = asyncio.run(adrive(jobs(), judge(), budget, **settings))
    assert [repr(one._replace(usage={}) if isinstance(one, Driven) else one) for one in results] == [
        repr(one._replace(usage={}) if isinstance(one, Driven) else one) for one in others
    ]
    return results


def test_answers_that_came_before_the_deadline_count() -> None:
    hangs = lambda task, question: 60.0 if task == "hangs" and question in (Grade(1), Grade(4)) else 0.0  # noqa: E731
    jobs = lambda: [Job("hangs", pointwise(6, 6)), Job("well", pointwise(6, 6))]  # noqa: E731
    hung, well = at_the_deadline(jobs, lambda: Punctual(hangs))
    assert (hung.stopped, hung.usage["stopped"], hung.learnt) == ("deadline", "deadline", True)
    assert hung.ranked.order.index(5) < hung.ranked.order.index(3) < hung.ranked.order.index(0)
    assert (hung.usage["rounds"], hung.usage["calls"], hung.usage["failures"]) == (1, 6, 2)
    assert [note.question for note in hung.notes] == [Grade(1), Grade(4)]
    assert (well.stopped, well.ranked.order, well.usage["failures"]) == (None, [5, 4, 3, 2, 1, 0], 0)


def test_a_strategy_that_would_go_on_ends_at_the_deadline() -> None:
    hangs = lambda task, question: 60.0 if question == Compare(6, 8) else 0.0  # noqa: E731
    [result] = at_the_deadline(lambda: [Job("task", sliding(9, 2))], lambda: Punctual(hangs))
    assert (result.stopped, list(result.ranked.order)) == ("deadline", [0, 1, 2, 3, 4, 5, 6, 8, 7])
    assert (result.usage["rounds"], result.usage["calls"], result.usage["failures"]) == (2, 4, 1)


def test_of_requests_that_were_never_sent_no_call_is_counted() -> None:
    [result] = at_the_deadline(lambda: [Job("task", pointwise(8, 8))], lambda: Punctual(lambda task, question: 60.0, sent=3))
    assert (result.usage["calls"], result.usage["failures"], result.learnt) == (3, 8, False)


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_deadline_is_a_failure_if_failures_are_to_be_raised(seconds: float) -> None:
    """Whether it comes while a round is under way, or between two."""
    judge = lambda: Punctual(lambda task, question: seconds)  # noqa: E731
    for budget in (Budget(seconds=0), Budget(seconds=0.2)):
        if seconds or budget.seconds == 0:
            (result,) = drive([Job("task", sliding(9, 2))], judge(), budget, "raise")
            (other,) = asyncio.run(adrive([Job("task", sliding(9, 2))], judge(), budget, "raise"))
            assert isinstance(result, DeadlineError)
            assert isinstance(other, DeadlineError)


class Planned(Judge):
    """Says what it will take."""

    def __init__(self, plan: Callable[[int], Cost]) -> None:
        super().__init__(by_number)
        self.cost = plan

    def plan(self, asked: Sequence[Asked[Any]]) -> Cost:
        return self.cost(len(asked))


def test_the_calls_that_a_judge_may_need_are_reserved() -> None:
    twice = lambda: Planned(lambda n: Cost(2 * n))  # noqa: E731
    for most, asked in ((10, True), (9, False)):
        [result] = drive([Job("task", pointwise(5, 5))], twice(), Budget(max_calls=most))
        assert isinstance(result, Driven)
        assert (result.stopped, result.usage["rounds"]) == ((None, 1) if asked else ("calls", 0))


def test_the_first_round_too_must_fit_into_the_tokens_that_are_left() -> None:
    for most, asked in ((500, True), (499, False)):
        judge = Planned(lambda n: Cost(n, 100 * n))
        [result] = drive([Job("task", pointwise(5, 5))], judge, Budget(max_tokens=most))
        assert isinstance(result, Driven)
        assert (result.stopped, judge.batches) == ((None, [5]) if asked else ("tokens", []))


def test_a_judge_that_cannot_plan_fails_the_user_question() -> None:
    [result] = drive([Job("task", pointwise(5, 5))], Planned(lambda n: Cost(n // 0)), Budget(max_calls=5))
    assert isinstance(result, ZeroDivisionError)


def test_a_timeout_of_the_judges_own_is_no_deadline() -> None:
    def say(task: Any, question: Any) -> Verdict:
        raise TimeoutError("of its own")

    result = one(lambda: pointwise(3, 3), say, budget=Budget(seconds=60))
    assert isinstance(result, TimeoutError)


async def test_cancelling_cancels_what_is_pending() -> None:
    judge, closed = Judge(by_number, delay=60), []

    def strategy() -> Strategy:
        try:
            yield Round([Compare(0, 1)], [0, 1])
        finally:
            closed.append(1)
        return Ranked([0, 1])

    running = asyncio.create_task(adrive([Job(n, strategy()) for n in range(3)], judge))
    while judge.begun < 3:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert judge.cancelled == len(closed) == 3


async def test_a_judge_that_cancels_itself_fails_its_user_question_only() -> None:
    class Cancels(Judge):
        async def ajudge(self, asked: Sequence[Asked[Any]], until: float | None = None) -> list[Verdict]:
            if asked[0].task == "bad":
                raise asyncio.CancelledError
            return self.judge(asked)

    bad, good = await adrive([Job("bad", pointwise(3, 3)), Job("good", pointwise(3, 3))], Cancels(by_number))
    assert isinstance(bad, RuntimeError)
    assert isinstance(good, Driven)


FAILED = ConnectionError("refused")


def failing(task: Any, question: Any) -> Verdict:
    return Verdict(None, Cost(), FAILED) if task == "bad" and question == Grade(2) else by_number(task, question)


def test_a_failed_answer_is_counted_and_noted_and_costs_only_its_own_place() -> None:
    bad, good = both(lambda: [Job("bad", pointwise(4, 4)), Job("good", pointwise(4, 4))], failing)
    assert bad.ranked.order == [3, 1, 2, 0]
    assert (bad.usage["failures"], bad.usage["calls"], bad.usage["uncounted"]) == (1, 4, 0)
    assert bad.notes == [Note(Grade(2), "ConnectionError: refused", failed=True)]
    assert (good.ranked.order, good.usage["failures"], good.notes) == ([3, 2, 1, 0], 0, [])


def test_a_failed_answer_fails_its_user_question_if_that_is_wanted() -> None:
    bad, good = both(lambda: [Job("bad", pointwise(4, 4)), Job("good", pointwise(4, 4))], failing, on_failure="raise")
    assert bad is FAILED
    assert good.ranked.order == [3, 2, 1, 0]
    refused = one(lambda: pointwise(2, 2), lambda task, question: Verdict(None, COST), on_failure="raise")
    assert isinstance(refused, RagkitError)
    assert str(refused) == "the judge gave no usable answer to Grade(candidate=0): None"


def test_a_strategy_that_breaks_fails_its_user_question_only() -> None:
    def breaks(rounds: int) -> Strategy:
        for _ in range(rounds):
            yield Round([Compare(0, 1)], [0, 1])
        raise ZeroDivisionError

    results = both(lambda: [Job(0, breaks(0)), Job(1, breaks(1)), Job(2, pointwise(3, 3))], by_number)
    assert [type(result) for result in results] == [ZeroDivisionError, ZeroDivisionError, Driven]


async def test_what_a_judge_raises_fails_those_it_was_asked_about() -> None:
    def say(task: Any, question: Any) -> Verdict:
        return by_number(task, question) if task == "good" else by_number(task, None)

    def jobs() -> list[Job[str]]:
        return [Job("bad", pointwise(3, 3)), Job("good", pointwise(3, 3)), Job("none", pointwise(1, 1))]

    assert [type(result) for result in drive(jobs(), Judge(say))] == [AssertionError, AssertionError, Driven]
    assert [type(result) for result in await adrive(jobs(), Judge(say))] == [AssertionError, Driven, Driven]


def test_too_few_verdicts_are_a_defect_of_the_judge() -> None:
    class Short(Judge):
        def judge(self, asked: Sequence[Asked[Any]], until: float | None = None) -> list[Verdict]:
            return super().judge(asked)[1:]

    (result,) = drive([Job("task", pointwise(3, 3))], Short(by_number))
    assert isinstance(result, RuntimeError)
    assert str(result) == "Short gave 2 verdicts on 3 questions"


def test_notes_come_with_their_questions() -> None:
    result = one(lambda: pointwise(2, 2), lambda task, question: Verdict(1.0, COST, note=f"thought of {question.candidate}"))
    assert result.notes == [Note(Grade(0), "thought of 0", failed=False), Note(Grade(1), "thought of 1", failed=False)]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (Grade(0), -3.5),
        (Compare(0, 1), 1),
        (Compare(0, 1), 0.25),
        (BEST, (-1e9, 2.0)),
        (BEST, [1, 0]),
        (Order((4, 2, 7)), (7, 4, 2)),
        (Order((4, 2, 7), 1), [2, 7, 4]),
    ],
)
def test_answers_of_the_right_shape_reach_the_strategy(question: Any, answer: Any) -> None:
    result = one(lambda: ask(question), lambda task, asked: Verdict(answer, COST))
    (got,) = result.ranked.scores
    assert got == (tuple(answer) if isinstance(answer, list) else answer)
    assert result.usage["failures"] == 0


def test_numbers_of_numpy_arrive_as_plain_ones() -> None:
    answers = {Grade(0): np.float32(0.5), BEST: (np.float32(1), np.float64(2)), Order((0, 1)): (np.int64(1), np.int32(0))}
    result = one(lambda: ask(*answers), lambda task, question: Verdict(answers[question], COST))
    assert repr(result.ranked.scores) == "[0.5, (1.0, 2.0), (1, 0)]"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        *[(Grade(0), answer) for answer in (None, "3", math.nan, math.inf, (1.0,), 1j)],
        *[(Compare(0, 1), answer) for answer in (None, "A", -0.1, 1.1, math.nan, (1.0, 0.0))],
        *[(BEST, answer) for answer in (None, 1.0, (1.0,), (1.0, 2.0, 3.0), (1.0, math.nan), (1.0, -math.inf), "AB", ("A", "B"))],
        *[(Order((4, 2, 7)), answer) for answer in (None, (4, 2), (4, 2, 2), (4, 2, 7, 7), (0, 1, 2), ("4", "2", "7"), 4.0)],
    ],
)
def test_answers_of_another_shape_are_failures(question: Any, answer: Any) -> None:
    result = one(lambda: ask(question), lambda task, asked: Verdict(answer, COST))
    assert result.ranked.scores == [None]
    assert result.usage["failures"] == 1
    assert result.notes[0].failed
    assert "no usable answer" in result.notes[0].text


def test_an_answer_beside_an_error_does_not_count() -> None:
    result = one(lambda: ask(Grade(0)), lambda task, question: Verdict(1.0, COST, FAILED, "half a thought"))
    assert (result.ranked.scores, result.usage["failures"]) == ([None], 1)
    assert [note.text for note in result.notes] == ["half a thought", "ConnectionError: refused"]


@given(
    n=st.integers(0, 30),
    max_calls=st.integers(0, 80),
    strategy=st.sampled_from([pointwise, sliding, heapsort]),
    failures=st.sets(st.integers(0, 29)),
)
def test_whatever_the_budget_and_the_failures_the_result_is_a_permutation(
    n: int, max_calls: int, strategy: Any, failures: set[int]
) -> None:
    def say(task: Any, question: Question) -> Verdict:
        shown = set(question.candidates) if isinstance(question, Choose) else set(question)
        return Verdict(None, Cost(), FAILED) if shown & failures else by_number(task, question)

    (result,) = drive([Job("task", strategy(n, 5))], Judge(say), Budget(max_calls=max_calls))
    assert isinstance(result, Driven)
    assert sorted(result.ranked.order) == list(range(n))
    assert result.usage["calls"] <= max_calls
