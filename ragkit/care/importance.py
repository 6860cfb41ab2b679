"""What passages are worth, told from what people said of the answers that used them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import fsum
from typing import NamedTuple

from ragkit.errors import InputError


class Vote(NamedTuple):
    """What somebody said of a passage as part of an answer: 1 if it helped, -1 if not."""

    question: str
    passage: str
    value: int


class Importance(NamedTuple):
    """What a passage is worth, from -1 to 1."""

    score: float
    """After shrinkage."""
    mean: float
    """What its questions say."""
    questions: int
    """How many different ones it was judged for."""


def importance(votes: Iterable[Vote], strength: float = 5.0) -> dict[str, Importance]:
    """The worth of each passage that was voted on, the best first.

    The votes of one question on a passage count as one, their mean, so that nobody decides by repeating. The mean over its
    questions is then drawn towards that of all passages, as if that had been said `strength` times more:
    (sum + strength * overall) / (questions + strength), the posterior mean under a normal prior (Efron and Morris, "Data analysis
    using Stein's estimator and its generalizations", JASA 1975). So one bad vote does not make a bad passage. That sources differ
    in what they are worth to an answer, and that it can be learnt: Lyu et al., "Improving retrieval-augmented large language
    models via data importance learning" (2023). Raises `InputError` for a vote that is not 1 or -1, or a strength below 0.
    """
    if not 0 <= strength < float("inf"):
        raise InputError(f"strength: must be a number not below 0, not {strength!r}")
    by_question: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for vote in votes:
        if vote.value not in (1, -1):
            raise InputError(f"value: a vote is 1 or -1, not {vote.value!r} (passage {vote.passage!r})")
        by_question[vote.passage][vote.question].append(vote.value)
    said = {passage: [fsum(values) / len(values) for values in questions.values()] for passage, questions in by_question.items()}
    everything = [value for values in said.values() for value in values]
    overall = fsum(everything) / len(everything) if everything else 0.0
    scores = {
        passage: Importance(
            (fsum(values) + strength * overall) / (len(values) + strength), fsum(values) / len(values), len(values)
        )
        for passage, values in said.items()
    }
    return dict(sorted(scores.items(), key=lambda item: (-item[1].score, item[0])))
