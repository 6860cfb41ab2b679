"""From passages to questions that are worth asking: one per passage, kept only if a search finds the passage again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from ragkit.errors import InputError, RagkitError
from ragkit.evaluation.synthetic.asking import Asker, Target
from ragkit.evaluation.synthetic.salience import salience
from ragkit.evaluation.synthetic.sampling import spread
from ragkit.store.passages import Passage
from ragkit.store.rarity import Rarity

Find = Callable[[Sequence[str]], Sequence[Sequence[str]]]
"""The ids of the passages that a search finds, best first, for each question."""

_TRIES = 3
"""Passages that are tried for each question wanted."""
_BATCH = 64
_SENTENCE = 5
"""A sentence with fewer distinct terms is about too little to be asked for."""


@dataclass(frozen=True)
class Question:
    """A question with the passage it was made from, the place of the sentence in that, and all passages with the same text."""

    text: str
    passage: Passage
    gold: int
    relevant: tuple[str, ...]


@dataclass
class Report:
    """What became of the passages that were tried: `tried` is the sum of all the other counts."""

    tried: int = 0
    no_sentence: int = 0
    """Passages without a sentence that could be asked about."""
    no_question: int = 0
    """Passages of which no question could be made."""
    failed: int = 0
    """Passages whose call of the language model failed."""
    repeated: int = 0
    """Questions that there were already."""
    not_found: int = 0
    """Questions that did not find their passage."""
    kept: int = 0
    problems: list[str] = field(default_factory=list)
    """Some of the reasons for no question and for failed calls."""


def make_questions(
    passages: Sequence[Passage],
    rarity: Rarity,
    ask: Asker,
    find: Find,
    n: int,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Question], Report]:
    """At most `n` questions, each about the most salient sentence of another passage.

    Passages are taken in the order of `spread`, until there are enough questions or 3 `n` have been tried. A question stays if
    `find` returns its passage, or one with the same text: round-trip filtering, as in Promptagator (Dai et al., ICLR 2023).
    `progress` is told how many of how many there are. Raises `InputError` for an `n` below 1, and `RagkitError` if each call of a
    first batch failed.
    """
    if n < 1:
        raise InputError(f"n: must be a positive number of questions, not {n}")
    twins = defaultdict(list)
    for passage in passages:
        twins[passage.text].append(passage.id)
    report, kept = Report(), dict[str, Question]()
    order = iter(spread([passage.source for passage in passages], seed)[: _TRIES * n])
    while batch := [passages[at] for at in islice(order, min(_BATCH, n - len(kept)))]:
        for question in _round_trip(_questions(batch, twins, rarity, ask, report), find, report):
            if question.text.casefold() in kept:
                report.repeated += 1
            else:
                kept[question.text.casefold()] = question
                report.kept += 1
        if report.failed and report.failed + report.no_sentence == report.tried:
            raise RagkitError(f"the language model failed at all of the first {report.failed}: {report.problems[0]}")
        if progress is not None:
            progress(len(kept), n)
    return list(kept.values()), report


def salient_sentence(passage: Passage, rarity: Rarity) -> int | None:
    """The place of the most salient unit among the sentences that have enough terms; the first of equals, None if none has."""
    places = passage.prose
    terms = [rarity.analyzer(passage.unit(at)) for at in places]
    scores = salience(terms, rarity.of_terms(term for its_terms in terms for term in its_terms))
    usable = [n for n, its_terms in enumerate(terms) if len(set(its_terms)) >= _SENTENCE]
    return places[max(usable, key=lambda n: scores[n])] if usable else None


def _questions(
    batch: Sequence[Passage], twins: dict[str, list[str]], rarity: Rarity, ask: Asker, report: Report
) -> list[Question]:
    report.tried += len(batch)
    pairs = [(passage, at) for passage in batch if (at := salient_sentence(passage, rarity)) is not None]
    report.no_sentence += len(batch) - len(pairs)
    asked = ask([Target(passage.text, passage.headings, passage.unit(at)) for passage, at in pairs])
    questions = []
    for (passage, at), answer in zip(pairs, asked, strict=True):
        if answer.question is None:
            report.failed += answer.failed
            report.no_question += not answer.failed
            report.problems = [*report.problems, answer.problem][:5]
        else:
            questions.append(Question(answer.question, passage, at, tuple(twins[passage.text])))
    return questions


def _round_trip(questions: Sequence[Question], find: Find, report: Report) -> Iterator[Question]:
    found = find([question.text for question in questions]) if questions else []
    for question, ids in zip(questions, found, strict=True):
        if set(ids).isdisjoint(question.relevant):
            report.not_found += 1
        else:
            yield question
