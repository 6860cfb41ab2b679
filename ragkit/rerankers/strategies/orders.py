"""Asking for orders: what listwise strategies share."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from ragkit.rerankers.strategies.base import Answer, Order, Round


def order_of(candidates: Sequence[int], top: int) -> Order:
    """The question for the order of `candidates`, of which the best `top` matter."""
    return Order(tuple(candidates), top if top < len(candidates) else None)


def permuted(question: Order, answer: Answer) -> tuple[int, ...] | None:
    """The answer as a permutation of what was asked for, whatever came back: what is missing follows as it was shown."""
    if not isinstance(answer, tuple):
        return None
    asked = set(question.candidates)
    return tuple(dict.fromkeys([*(int(given) for given in answer if given in asked), *question.candidates]))


def ask(
    questions: Sequence[Order], ranking: Sequence[int], known: dict[Order, tuple[int, ...] | None]
) -> Generator[Round, Sequence[Answer], list[tuple[int, ...] | None]]:
    """One answer per question: a permutation, or None where the judge failed. What is in `known` is not asked again."""
    new = [question for question in dict.fromkeys(questions) if question not in known]
    if new:
        answers = yield Round(new, ranking)
        known.update((question, permuted(question, answer)) for question, answer in zip(new, answers, strict=True))
    return [known[question] for question in questions]
