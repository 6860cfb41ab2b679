"""Strategies inside strategies: one step of an inner one, and other numbers for its candidates."""

from __future__ import annotations

from collections.abc import Sequence

from ragkit.rerankers.strategies.base import Answer, Choose, Compare, Grade, Order, Question, Ranked, Round, Strategy
from ragkit.rerankers.strategies.orders import permuted


def advance(strategy: Strategy, answers: Sequence[Answer] | None = None) -> Round | Ranked:
    """The next round of a strategy, or its result; the first call sends no answers."""
    try:
        return next(strategy) if answers is None else strategy.send(answers)
    except StopIteration as stop:
        result: Ranked = stop.value
        return result


def renumbered(strategy: Strategy, candidates: Sequence[int]) -> Strategy:
    """The same strategy about other candidates: its candidate i is `candidates[i]`. Its result has no scores, and only these."""
    number = {candidate: at for at, candidate in enumerate(candidates)}
    step = advance(strategy)
    while isinstance(step, Round):
        questions = [_outside(question, candidates) for question in step.questions]
        answers = yield Round(questions, [candidates[at] for at in step.ranking])
        step = advance(strategy, [_inside(*talk, number) for talk in zip(questions, answers, strict=True)])
    return Ranked([candidates[at] for at in step.order])


def _outside(question: Question, candidates: Sequence[int]) -> Question:
    match question:
        case Grade(at):
            return Grade(candidates[at])
        case Compare(first, second):
            return Compare(candidates[first], candidates[second])
        case Choose(shown):
            return Choose(tuple(candidates[at] for at in shown))
        case Order(shown, top):
            return Order(tuple(candidates[at] for at in shown), top)


def _inside(question: Question, answer: Answer, number: dict[int, int]) -> Answer:
    """The answer in the strategy's own numbers; only orders name candidates, the others answer by place."""
    if not isinstance(question, Order):
        return answer
    order = permuted(question, answer)
    return None if order is None else tuple(number[candidate] for candidate in order)
