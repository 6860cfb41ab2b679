"""Joins strategies and a judge: asks the rounds, checks and counts the answers, and stops where a budget ends."""

from __future__ import annotations

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from ragkit.errors import RagkitError
from ragkit.llms.base import Cost, DeadlineError
from ragkit.llms.budget import Budget, Spending
from ragkit.rerankers.strategies.base import Answer, Choose, Compare, Grade, Order, Question, Ranked, Round, Strategy

T = TypeVar("T")

OnFailure = Literal["keep", "raise"]
"""A question that failed: go on without its answer, or fail the user question with its error. A deadline is such a failure."""
Stop = Literal["calls", "tokens", "deadline"]
_SPENT = "ragkit_spent"


class Job(NamedTuple, Generic[T]):
    """One user question: what the judge needs to know of it, and a strategy that was not begun."""

    task: T
    strategy: Strategy


class Asked(NamedTuple, Generic[T]):
    """What a judge is asked: a strategy's question, and the task of the user question that it is about."""

    task: T
    question: Question


class Verdict(NamedTuple):
    """What a judge says."""

    answer: Answer
    """None if it failed."""
    cost: Cost = Cost()
    error: Exception | None = None
    """Why it failed."""
    note: str | None = None
    """For the trace: a chain of reasoning, or an answer that could not be read."""


class Judge(ABC, Generic[T]):
    """Answers questions, one round of many user questions at once.

    A failure belongs to one question and is a verdict. What a judge raises is a defect, and fails all user questions concerned.
    """

    @abstractmethod
    def judge(self, asked: Sequence[Asked[T]], until: float | None = None) -> Sequence[Verdict]:
        """One verdict per question, in order.

        At `until`, a time of `time.monotonic`, it returns with the verdicts that are there; of the others the error is a
        `DeadlineError`, and nothing more is sent.
        """

    @abstractmethod
    async def ajudge(self, asked: Sequence[Asked[T]], until: float | None = None) -> Sequence[Verdict]:
        """Async form of `judge`; cancelling it cancels the pending requests."""

    def plan(self, asked: Sequence[Asked[T]]) -> Cost:
        """What these questions will cost: the most calls, and the tokens as far as they can be told before."""
        return Cost(len(asked))


class Note(NamedTuple):
    """What a judge said about a question besides its answer, or why there is none."""

    question: Question
    text: str
    failed: bool


class Driven(NamedTuple):
    """What became of one user question."""

    ranked: Ranked
    stopped: Stop | None
    """What ended it early; the ranking is then the best one so far."""
    learnt: bool
    """Whether any answer could be used."""
    usage: dict[str, Any]
    """calls (cached answers apart), rounds, prompt_tokens, completion_tokens, uncounted (answered calls whose tokens are not
    known), cached, failures, seconds, and stopped if it was. JSON-serialisable."""
    notes: list[Note]


def spent_before(error: Exception) -> dict[str, Any]:
    """The usage of a user question up to the error that it failed with; empty for errors that did not come from here."""
    return getattr(error, _SPENT, {})


def drive(
    jobs: Sequence[Job[T]], judge: Judge[T], budget: Budget | None = None, on_failure: OnFailure = "keep"
) -> list[Driven | Exception]:
    """Run the strategies of many user questions; an exception in place of a result fails that one alone.

    The current rounds of all strategies still running are put to the judge at once. Each user question has the whole `budget`.
    A round is asked if all of it fits, as the judge plans it; half a round would rank those that happened to be asked over the
    others. At the deadline the answers that are there count, and the rest have failed.
    """
    budget = budget or Budget()
    until = budget.deadline()
    runs = [_Run(job, judge, budget, until, on_failure) for job in jobs]
    try:
        while asking := [run for run in runs if run.asks()]:
            _ask(asking, judge, until)
    finally:
        for run in runs:
            run.close()
    return [run.result for run in runs]


async def adrive(
    jobs: Sequence[Job[T]], judge: Judge[T], budget: Budget | None = None, on_failure: OnFailure = "keep"
) -> list[Driven | Exception]:
    """Async form of `drive`: no user question waits for another. Cancelling it cancels what the judge is at."""
    budget = budget or Budget()
    until = budget.deadline()
    runs = [_Run(job, judge, budget, until, on_failure) for job in jobs]
    try:
        async with asyncio.TaskGroup() as group:
            for run in runs:
                group.create_task(_follow(run, judge, until))
    finally:
        for run in runs:
            run.close()
    return [run.result for run in runs]


class _Run(Generic[T]):
    """One strategy under way."""

    def __init__(self, job: Job[T], judge: Judge[T], budget: Budget, until: float | None, on_failure: OnFailure) -> None:
        self._task, self._strategy = job
        self._judge, self._until, self._on_failure = judge, until, on_failure
        self._spending = Spending(budget)
        self._began = time.monotonic()
        self._rounds = self._failures = 0
        self._notes: list[Note] = []
        self._learnt = self._late = False
        self._round = Round((), ())
        self._result: Driven | Exception | None = None
        self._advance(None)

    @property
    def result(self) -> Driven | Exception:
        assert self._result is not None
        return self._result

    def asks(self) -> bool:
        """Whether there is a round to be asked that the budget allows; if it does not, this is the end."""
        if self._result is None:
            try:
                reason = self._refusal()
            except Exception as error:
                self.fail(error)
            else:
                if reason:
                    self._stop(reason)
        return self._result is None

    def asked(self) -> list[Asked[T]]:
        return [Asked(self._task, question) for question in self._round.questions]

    def take(self, verdicts: Sequence[Verdict]) -> None:
        """Count the verdicts on the current round, and go on to the next one."""
        self._rounds += 1
        answers: list[Answer] = []
        errors: list[Exception] = []
        for question, verdict in zip(self._round.questions, verdicts, strict=True):
            answer = None if verdict.error else _checked(question, verdict.answer)
            self._spending.spend(verdict.cost, answered=verdict.error is None)
            if verdict.note:
                self._notes.append(Note(question, verdict.note, failed=answer is None))
            self._late |= isinstance(verdict.error, DeadlineError)
            self._learnt |= answer is not None
            if answer is None:
                self._failures += 1
                error = verdict.error or RagkitError(f"the judge gave no usable answer to {question}: {verdict.answer!r:.200}")
                self._notes.append(Note(question, f"{type(error).__name__}: {error}", failed=True))
                errors.append(error)
            answers.append(answer)
        if errors and self._on_failure == "raise":
            self.fail(errors[0])
        else:
            self._advance(answers)

    def fail(self, error: Exception) -> None:
        setattr(error, _SPENT, self._usage())
        self._result = error

    def close(self) -> None:
        self._strategy.close()

    def _advance(self, answers: Sequence[Answer] | None) -> None:
        try:
            self._round = next(self._strategy) if answers is None else self._strategy.send(answers)
            while not self._round.questions:
                self._round = self._strategy.send(())
        except StopIteration as end:
            self._finish(end.value, "deadline" if self._late else None)
        except Exception as error:
            self.fail(error)

    def _stop(self, reason: Stop) -> None:
        if reason == "deadline" and self._on_failure == "raise":
            self.fail(DeadlineError())
        else:
            self._finish(Ranked(self._round.ranking), reason)

    def _finish(self, ranked: Ranked, stopped: Stop | None) -> None:
        usage = self._usage()
        if stopped:
            usage["stopped"] = stopped
        self._result = Driven(ranked, stopped, self._learnt, usage, self._notes)

    def _usage(self) -> dict[str, Any]:
        seconds = time.monotonic() - self._began
        return {**self._spending.usage, "rounds": self._rounds, "failures": self._failures, "seconds": seconds}

    def _refusal(self) -> Stop | None:
        """Why the current round cannot be asked."""
        if self._late or (self._until is not None and time.monotonic() >= self._until):
            return "deadline"
        budget = self._spending.budget
        if budget.max_calls is None and budget.max_tokens is None:
            return None  # to plan is to write out all prompts
        return self._spending.lacks(self._judge.plan(self.asked()))


def _ask(runs: Sequence[_Run[T]], judge: Judge[T], until: float | None) -> None:
    """Ask the current rounds of all these runs at once."""
    asked = [run.asked() for run in runs]
    everything = [question for questions in asked for question in questions]
    try:
        verdicts = judge.judge(everything, until)
        _check_count(judge, verdicts, everything)
    except Exception as error:
        for run in runs:
            run.fail(error)
        return
    left = iter(verdicts)
    for run, questions in zip(runs, asked, strict=True):
        run.take([next(left) for _ in questions])


async def _follow(run: _Run[T], judge: Judge[T], until: float | None) -> None:
    """Run one strategy to its end."""
    while run.asks():
        asked = run.asked()
        try:
            verdicts = await judge.ajudge(asked, until)
            _check_count(judge, verdicts, asked)
        except Exception as error:
            run.fail(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            run.fail(RuntimeError(f"{type(judge).__name__} was cancelled by itself"))
        else:
            run.take(verdicts)


def _check_count(judge: Judge[T], verdicts: Sequence[Verdict], asked: Sequence[Asked[T]]) -> None:
    if len(verdicts) != len(asked):
        raise RuntimeError(f"{type(judge).__name__} gave {len(verdicts)} verdicts on {len(asked)} questions")


def _checked(question: Question, answer: Any) -> Answer:
    """The answer as strategies expect it; None if it has not the shape that the question asks for."""
    match question:
        case Grade():
            return float(answer) if _finite(answer) else None
        case Compare():
            return float(answer) if _finite(answer) and 0 <= answer <= 1 else None
        case Choose(candidates):
            fits = isinstance(answer, tuple | list) and len(answer) == len(candidates) and all(map(_finite, answer))
            return tuple(map(float, answer)) if fits else None
        case Order(candidates):
            fits = isinstance(answer, tuple | list) and all(isinstance(one, Integral) for one in answer)
            return tuple(map(int, answer)) if fits and sorted(answer) == sorted(candidates) else None


def _finite(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)
