"""Hard negatives: passages that a retriever takes for good answers to a question and that are none."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from ragkit.errors import InputError
from ragkit.retrievers.bm25 import BM25Retriever
from ragkit.training.examples import Example, Passage, same_text

_BATCH = 256
_PLACE = "place"


@dataclass
class _Question:
    """A question, and what no negative of it may be or hold; all text in the form of `same_text`."""

    group: str
    text: str
    passages: set[str] = field(default_factory=set)
    sentences: set[str] = field(default_factory=set)
    relevant: bool = False
    answer: re.Pattern[str] | None = None

    def admits(self, passage: Passage) -> bool:
        """Whether nothing tells that the passage answers the question, and the question does not have it already."""
        if same_text("".join(passage.sentences)) in self.passages:
            return False
        if not self.sentences.isdisjoint(map(same_text, passage.sentences)):
            return False
        return self.answer is None or not self.answer.search(same_text(" ".join([passage.title, *passage.sentences])))


def mine_negatives(
    examples: Iterable[Example],
    pool: Iterable[Passage] | None = None,
    *,
    n: int = 1,
    skip: int = 0,
    depth: int = 50,
    answers: Mapping[str, Sequence[str]] | None = None,
    retriever: Callable[[list[Document]], BaseRetriever] = BM25Retriever.from_documents,
    source: str = "mined",
) -> list[Example]:
    """For each question that has a relevant passage, `n` passages that rank high and do not answer it, with empty gold.

    They come from `pool` (default: the passages of the examples). Left out are passages that the question has already, equal
    texts, those that share a sentence with its gold, and those that hold one of its `answers` (by group); of what remains, the
    first `skip` as well, since the very best may answer it unnoticed. `retriever` makes a retriever from documents; its first
    `depth` documents are looked at, so a question may get fewer than `n`. Raises `InputError` for numbers out of range.
    """
    if n < 1 or skip < 0 or depth < n + skip:
        raise InputError(f"n={n}, skip={skip}, depth={depth}: n must be positive, skip not negative, depth at least n + skip")
    examples = list(examples)
    passages = _distinct([Passage(one.title, one.sentences) for one in examples] if pool is None else pool)
    questions = _questions(examples, answers or {})
    if not passages or not questions:
        return []
    ranker = retriever([_document(place, passage) for place, passage in enumerate(passages)])
    mined: list[Example] = []
    for start in range(0, len(questions), _BATCH):
        asked = questions[start : start + _BATCH]
        for question, ranking in zip(asked, ranker.batch([one.text for one in asked], k=depth), strict=True):
            ranked = (passages[document.metadata[_PLACE]] for document in ranking[:depth])
            admitted = (passage for passage in ranked if question.admits(passage))
            mined += [_negative(question, passage, source) for passage in islice(admitted, skip, skip + n)]
    return mined


def _distinct(passages: Iterable[Passage]) -> list[Passage]:
    first: dict[str, Passage] = {}
    for passage in passages:
        first.setdefault(same_text("".join(passage.sentences)), passage)
    return list(first.values())


def _questions(examples: Sequence[Example], answers: Mapping[str, Sequence[str]]) -> list[_Question]:
    questions: dict[str, _Question] = {}
    for example in examples:
        question = questions.setdefault(example.group, _Question(example.group, example.question))
        question.passages.add(same_text(example.passage))
        question.sentences.update(same_text(example.sentences[at]) for at in example.gold or ())
        question.relevant |= example.relevant
    for group, question in questions.items():
        question.answer = _any_of(answers.get(group, ()))
    return [question for question in questions.values() if question.relevant]


def _any_of(answers: Iterable[str]) -> re.Pattern[str] | None:
    """Finds any of the answers: "no" not in "know", but an answer in a script without spaces also amid other words."""
    wanted = "|".join(re.escape(same_text(answer)) for answer in answers if answer.strip())
    return re.compile(rf"(?<![a-z0-9])(?:{wanted})(?![a-z0-9])") if wanted else None


def _document(place: int, passage: Passage) -> Document:
    text = f"{passage.title} {''.join(passage.sentences)}".strip()
    return Document(id=str(place), page_content=text, metadata={_PLACE: place})


def _negative(question: _Question, passage: Passage, source: str) -> Example:
    digest = hashlib.sha256("".join(passage.sentences).encode()).hexdigest()[:12]
    return Example(
        id=f"{question.group}/{digest}",
        group=question.group,
        question=question.text,
        title=passage.title,
        sentences=passage.sentences,
        gold=(),
        relevant=False,
        source=source,
    )
