"""Forms of a question that is answered with one of a few labels: what is shown, which labels there are, what they mean."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import NamedTuple

from langchain_core.runnables import RunnableConfig

from ragkit.rerankers.driver import Asked
from ragkit.rerankers.strategies.base import Answer, Choose, Compare, Grade, Order
from ragkit.rerankers.verdicts import NO, YES, parse_label, parse_score

LETTERS = len(ascii_uppercase)
"""How many passages can be shown as [A], [B], ..."""


class Shown(NamedTuple):
    """A user's question as judges need it."""

    question: str
    passages: Sequence[str]
    """One line of inert text per candidate; see `shown_passages`."""
    config: RunnableConfig


class Form(ABC):
    """One way of asking. `scores` are log-probabilities, one per label, at least one of them finite."""

    prompt: str
    """The shipped prompt."""
    variables: frozenset[str] = frozenset({"passages", "question"})
    """What a prompt must have."""

    @abstractmethod
    def show(self, asked: Asked[Shown]) -> Mapping[str, str]:
        """Values of the variables."""

    @abstractmethod
    def labels(self, asked: Asked[Shown]) -> tuple[str, ...]:
        """What the model may answer with."""

    @abstractmethod
    def answer(self, asked: Asked[Shown], scores: Sequence[float]) -> Answer:
        """What the labels' scores say."""

    def read(self, asked: Asked[Shown], text: str) -> int | None:
        """Which label a written answer gives."""
        return parse_label(text, [(label,) for label in self.labels(asked)])


class YesNo(Form):
    """Grade: the probability of yes, against that of no."""

    prompt = "rerank_pointwise_yes_no"
    variables = frozenset({"passage", "question"})

    def show(self, asked: Asked[Shown]) -> Mapping[str, str]:
        """See `Form`."""
        return one_passage(asked)

    def labels(self, asked: Asked[Shown]) -> tuple[str, ...]:
        """See `Form`."""
        return ("yes", "no")

    def answer(self, asked: Asked[Shown], scores: Sequence[float]) -> Answer:
        """See `Form`."""
        return shares(scores)[0]

    def read(self, asked: Asked[Shown], text: str) -> int | None:
        """Also in the words of other languages."""
        return parse_label(text, (YES, NO))


class Graded(Form):
    """Grade: the expected value of a grade from 0 to 4, sum of i p(i) (InstUPR, Huang and Chen 2024)."""

    prompt = "rerank_pointwise_graded"
    variables = frozenset({"passage", "question"})

    def show(self, asked: Asked[Shown]) -> Mapping[str, str]:
        """See `Form`."""
        return one_passage(asked)

    def labels(self, asked: Asked[Shown]) -> tuple[str, ...]:
        """See `Form`."""
        return ("0", "1", "2", "3", "4")

    def answer(self, asked: Asked[Shown], scores: Sequence[float]) -> Answer:
        """See `Form`."""
        return sum(grade * share for grade, share in enumerate(shares(scores)))

    def read(self, asked: Asked[Shown], text: str) -> int | None:
        """The nearest whole grade."""
        grade = parse_score(text, 0, 4)
        return None if grade is None else math.floor(grade + 0.5)


class Pair(Form):
    """Compare: the probability of A, against that of B (PRP, Qin et al. 2023)."""

    prompt = "rerank_pairwise"

    def show(self, asked: Asked[Shown]) -> Mapping[str, str]:
        """See `Form`."""
        return lettered(asked, _compared(asked))

    def labels(self, asked: Asked[Shown]) -> tuple[str, ...]:
        """See `Form`."""
        return ("A", "B")

    def answer(self, asked: Asked[Shown], scores: Sequence[float]) -> Answer:
        """See `Form`."""
        return shares(scores)[0]


class Best(Form):
    """Choose: the probability of each letter (Setwise, Zhuang et al. 2024)."""

    prompt = "rerank_setwise"

    def show(self, asked: Asked[Shown]) -> Mapping[str, str]:
        """See `Form`."""
        return lettered(asked, _candidates(asked))

    def labels(self, asked: Asked[Shown]) -> tuple[str, ...]:
        """See `Form`."""
        return tuple(ascii_uppercase[: len(_candidates(asked))])

    def answer(self, asked: Asked[Shown], scores: Sequence[float]) -> Answer:
        """See `Form`."""
        return shares(scores)


class First(Best):
    """Order: by the scores that the letters have as the first token of an answer (FIRST, Reddy et al. 2024).

    Letters without a score are last, as they were shown.
    """

    def answer(self, asked: Asked[Shown], scores: Sequence[float]) -> Answer:
        """See `Form`."""
        shown = _candidates(asked)
        return tuple(shown[at] for at in sorted(range(len(shown)), key=lambda at: -scores[at]))


def one_passage(asked: Asked[Shown]) -> Mapping[str, str]:
    """The variables of a prompt about one passage."""
    assert isinstance(asked.question, Grade)
    return {"passage": asked.task.passages[asked.question.candidate], "question": asked.task.question}


def lettered(asked: Asked[Shown], candidates: Sequence[int]) -> Mapping[str, str]:
    """The variables of a prompt about passages that are shown as [A], [B], ..."""
    lines = [f"[{letter}] {asked.task.passages[at]}" for letter, at in zip(ascii_uppercase, candidates, strict=False)]
    return {"passages": "\n".join(lines), "question": asked.task.question}


def shares(scores: Sequence[float]) -> tuple[float, ...]:
    """The probability of each label among themselves."""
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    return tuple(weight / sum(weights) for weight in weights)


def _compared(asked: Asked[Shown]) -> tuple[int, int]:
    assert isinstance(asked.question, Compare)
    return (asked.question.first, asked.question.second)


def _candidates(asked: Asked[Shown]) -> tuple[int, ...]:
    assert isinstance(asked.question, Choose | Order)
    return asked.question.candidates
