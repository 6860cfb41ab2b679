"""A judge without a model: it knows the relevance of every candidate, errs as language models do, and counts what it costs."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragkit.llms.base import Cost
from ragkit.rerankers.driver import Asked, Job, Judge, Verdict, drive
from ragkit.rerankers.strategies.base import Answer, Choose, Compare, Grade, Order, Question, Strategy

_Floats = NDArray[np.float64]
_Bits = NDArray[np.uint64]


@dataclass(frozen=True)
class Errors:
    """How a judge errs. It sees a passage as `relevance + error`, and answers what that says; all errors are normal, as in
    Thurstone 1927, so that the smaller the gap between two relevances, the more often their order is mistaken.
    """

    opinion: float = 0.0
    """Standard deviation of the error that a judge makes about a passage whenever it sees it: asking again does not help. So
    much for a passage of no relevance."""
    doubt: float = 0.0
    """How much `opinion` grows with each unit of relevance, as in Weber's law: what is off the subject is seldom mistaken for an
    answer, while how good an answer is can be argued. So one relevant passage among a hundred others can be found."""
    unanchored: float = 0.0
    """Standard deviation of a further such error where a passage is graded alone, with nothing to compare it to."""
    slip: float = 0.0
    """Standard deviation of the error made anew for each passage of each question, of two passages; grows with `crowd`."""
    crowd: float = 0.0
    """How much `slip` grows each time the number of passages shown doubles."""
    early: float = 0.0
    """By how much the first of two seems better, and the second worse, than they are. Of m passages it is `early` * log2(m)
    for the first, and as much less than nothing for the last, linearly in between."""
    middle: float = 0.0
    """The share of its relevance that a passage in the middle of a long list loses (Liu et al. 2023): all of `middle` in the
    middle of an endless list, half of it in the middle of 20."""
    failures: float = 0.0
    """The share of questions without a usable answer."""


HIGHEST = 3.0
"""The relevance of the highest grade, for which the judges below are set; see `relevances`."""
PERFECT = Errors()
STRONG = Errors(opinion=0.6, doubt=0.4, unanchored=0.4, slip=0.3, crowd=0.25, early=0.05, middle=0.3, failures=0.01)
"""A model that was made for reranking: it hardly minds in which order passages are shown."""
WEAK = Errors(opinion=0.9, doubt=0.5, unanchored=0.8, slip=0.7, crowd=0.25, early=1.0, middle=0.5, failures=0.02)
"""A model that leans so much on the order shown that from a random one a sliding window gets nowhere, as Sun et al. 2023 found
for gpt-3.5-turbo."""


def relevances(gains: Sequence[float], highest: float) -> list[float]:
    """The gains of a dataset whose highest grade is `highest`, from 0 to `HIGHEST`: the 1 of a yes or no is a whole answer."""
    return [HIGHEST * gain / highest for gain in gains]


@dataclass(frozen=True)
class Prices:
    """What a request costs: tokens, and seconds."""

    passage: int = 150
    """Prompt tokens per passage shown."""
    overhead: int = 150
    """Prompt tokens for the instructions and the question."""
    identifier: int = 4
    """Completion tokens per passage in an ordering: a bracketed number and a separator."""
    label: int = 1
    """Completion tokens of a grade, a comparison or a choice."""
    seconds: float = 1.0
    """Seconds that a request takes apart from writing."""
    seconds_per_token: float = 0.01
    """Seconds per completion token."""


class Spent(NamedTuple):
    """What a simulated run cost."""

    calls: int = 0
    rounds: int = 0
    passages: int = 0
    """Passages shown, each as often as it was."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failures: int = 0
    seconds: float = 0.0
    """Wall-clock with all questions of a round asked at once."""
    limited_seconds: float = 0.0
    """Wall-clock with so many at a time as the judge's `concurrency` says."""

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens."""
        return self.prompt_tokens + self.completion_tokens


class Simulation(NamedTuple):
    """The result of `simulate`."""

    order: tuple[int, ...]
    spent: Spent


class SimulatedJudge(Judge[None]):
    """Answers questions about the candidates of one query from their relevance and `errors`; a `Judge` for the driver.

    An answer depends on `seed` and on the question alone, not on what was asked before; the same question, shown in the same
    order, has the same answer. Without errors, candidates of equal relevance are a tie in a comparison, and in an ordering they
    stand by number. An ordering is written out whole, even if only its best `top` matter, as ragkit's prompt demands. `spent`
    adds up the costs; every call of `answer` is a round.
    """

    def __init__(
        self,
        relevance: Sequence[float],
        errors: Errors = PERFECT,
        *,
        seed: int = 0,
        prices: Prices = Prices(),
        concurrency: int = 8,
    ) -> None:
        self._errors = errors
        self._prices = prices
        self._concurrency = concurrency
        self._seed = _mix(np.array([seed], dtype=np.uint64))
        candidates = np.arange(len(relevance), dtype=np.uint64)[:, None]
        relevant = np.asarray(relevance, dtype=np.float64)
        self._seen = relevant + (errors.opinion + errors.doubt * relevant) * _normal(self._key(1, candidates))
        self._alone = self._seen + errors.unanchored * _normal(self._key(2, candidates))
        self.spent = Spent()

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question of a round, in their order."""
        answers: list[Answer] = [None] * len(questions)
        alike: dict[tuple[type[Question], int], list[int]] = {}
        for number, question in enumerate(questions):
            alike.setdefault((type(question), len(_shown(question))), []).append(number)
        for (kind, size), numbers in alike.items():
            candidates = np.array([_shown(questions[number]) for number in numbers], dtype=np.intp).reshape(-1, size)
            key = self._key(3 + _KINDS.index(kind), candidates)
            answered = _uniform(_mix(key)) >= self._errors.failures
            values = self._perceive(kind, candidates, key)
            for number, its_values, is_answered in zip(numbers, values, answered, strict=True):
                if is_answered:
                    answers[number] = _answer(questions[number], its_values)
        self._charge(questions, answers)
        return answers

    def judge(self, asked: Sequence[Asked[None]], until: float | None = None) -> list[Verdict]:
        """See `Judge`."""
        answers = self.answer([one.question for one in asked])
        return [Verdict(answer, Cost(1, *self._tokens(one.question))) for one, answer in zip(asked, answers, strict=True)]

    async def ajudge(self, asked: Sequence[Asked[None]], until: float | None = None) -> list[Verdict]:
        """See `Judge`."""
        return self.judge(asked)

    def _perceive(self, kind: type[Question], candidates: NDArray[np.intp], key: _Bits) -> _Floats:
        """How relevant each candidate of each question seems, [questions, candidates]."""
        errors, size = self._errors, candidates.shape[1]
        place = np.linspace(0, 1, size)
        doublings = np.log2(max(size, 1))
        values = self._alone if kind is Grade else self._seen
        attention = 1 - errors.middle * size / (size + 20) * 4 * place * (1 - place)
        slip = errors.slip * (1 + errors.crowd * max(doublings - 1, 0))
        draws = _mix(key[:, None] + np.arange(1, size + 1, dtype=np.uint64))
        seen: _Floats = values[candidates] * attention + errors.early * doublings * (1 - 2 * place) + slip * _normal(draws)
        return seen

    def _key(self, salt: int, rows: NDArray[Any]) -> _Bits:
        """A hash of each row, [rows]."""
        key = np.full(len(rows), self._seed[0] ^ np.uint64(salt), dtype=np.uint64)
        for column in rows.T:
            key = _mix(key * np.uint64(31) + column.astype(np.uint64) + np.uint64(1))
        return key

    def _tokens(self, question: Question) -> tuple[int, int]:
        """Those of the prompt, and those of the completion."""
        prices, shown = self._prices, len(_shown(question))
        written = prices.identifier * shown if isinstance(question, Order) else prices.label
        return prices.overhead + prices.passage * shown, written

    def _charge(self, questions: Sequence[Question], answers: Sequence[Answer]) -> None:
        tokens = [self._tokens(question) for question in questions]
        seconds = [self._prices.seconds + self._prices.seconds_per_token * written for _, written in tokens]
        cost = Spent(
            calls=len(questions),
            rounds=1,
            passages=sum(len(_shown(question)) for question in questions),
            prompt_tokens=sum(prompt for prompt, _ in tokens),
            completion_tokens=sum(written for _, written in tokens),
            failures=sum(answer is None for answer in answers),
            seconds=max(seconds, default=0.0),
            limited_seconds=_makespan(seconds, self._concurrency),
        )
        self.spent = Spent._make(before + more for before, more in zip(self.spent, cost, strict=True))


def simulate(strategy: Strategy, judge: SimulatedJudge) -> Simulation:
    """Run a strategy to its end; `judge` should be fresh, as what it has spent is the result's."""
    [driven] = drive([Job(None, strategy)], judge)
    if isinstance(driven, Exception):
        raise driven
    return Simulation(tuple(driven.ranked.order), judge.spent)


_KINDS: tuple[type[Question], ...] = (Grade, Compare, Choose, Order)


def _shown(question: Question) -> tuple[int, ...]:
    match question:
        case Grade(candidate):
            return (candidate,)
        case Compare(first, second):
            return (first, second)
        case _:
            return question.candidates


def _answer(question: Question, values: _Floats) -> Answer:
    """What a judge says to whom the candidates shown seem so relevant."""
    match question:
        case Grade():
            return float(values[0])
        case Compare():
            return float((np.sign(values[0] - values[1]) + 1) / 2)
        case Choose():
            return tuple(values.tolist())
        case Order(candidates):
            return tuple(candidates[place] for place in np.lexsort((np.array(candidates), -values)))


def _makespan(seconds: Sequence[float], workers: int) -> float:
    """When the last request ends, if each is taken up, in order, by the first of the workers that is free."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def _mix(values: _Bits) -> _Bits:
    """A hash of each number (SplitMix64, Steele et al. 2014): random numbers that need no state."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _uniform(bits: _Bits) -> _Floats:
    """Numbers above 0 and below 1."""
    uniform: _Floats = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return uniform


def _normal(bits: _Bits) -> _Floats:
    """Standard normal numbers (Box and Muller 1958)."""
    radius = np.sqrt(-2 * np.log(_uniform(bits)))
    normal: _Floats = radius * np.cos(2 * np.pi * _uniform(_mix(bits)))
    return normal
