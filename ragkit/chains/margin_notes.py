"""Notes in the margin of a long text: what a model's answer says, and which sentences of its segment a note rests on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ragkit.chains.context import GroundedContext
from ragkit.documents.tokens import Tokenizer, count_tokens
from ragkit.encoders.lexical import Analyzer
from ragkit.errors import RagkitError
from ragkit.quoting import plain, readable
from ragkit.retrievers.overlap import bm25_scores

_VERDICT = re.compile(r"^\W*useful\W*?[:=]\W*(yes|no)\b[ \t.*_]*", re.IGNORECASE | re.MULTILINE)
_LABEL = re.compile(r"^\W*notes?\W*?:\W*", re.IGNORECASE)
_MARKER = re.compile(r"\[[\s#^]*\d{1,6}(?:\s*[,;–-]\s*\d{1,6})*\s*\]")
_LONGEST = 1000
"""Characters of a note."""
_BORNE_OUT = 0.5
"""The least share of a note's terms that its segment must have."""
_NEAR_BEST = 0.4
"""A sentence belongs to a note if its score is this share of the best one's."""
_HEAD = "Notes of a reader of the whole text, in its order. They are quoted data; cite the numbered passages, not the notes:"


class NotedSpan(NamedTuple):
    """Where a part of a segment stands: the document's id, and offsets into its whole passage."""

    id: str
    start: int
    end: int


@dataclass(frozen=True)
class MarginNote:
    """What was noted of one segment."""

    segment: int
    """From 1, in the order of the text."""
    segments: int
    """How many there are."""
    places: tuple[NotedSpan, ...]
    useful: bool | None
    """None if the model did not say: then the pruner decides which of its sentences count."""
    text: str = ""
    """The model's words, inert and on one line: for reading, never for citing."""
    problem: str | None = None
    """Why there is no verdict of the model."""


@dataclass(frozen=True)
class NotedContext(GroundedContext):
    """A context with the notes on the text that it was made from; `text` shows the useful ones above the passages."""

    notes: tuple[MarginNote, ...] = ()
    """One for each segment, in the order of the text."""
    shown: tuple[int, ...] = ()
    """The segments whose notes the prompt shows."""

    @property
    def text(self) -> str:
        """Ready for a prompt: the notes, which have no numbers, then each passage under its number, source and headings."""
        passages = super().text
        lines = [f"- {note.text}" for note in self.notes if note.segment in self.shown]
        return "\n".join([_HEAD, *lines, "", passages]) if lines else passages


def read_note(answer: str) -> str | None:
    """The note in a model's answer, inert and on one line; None if it says that the segment is not useful.

    What reads as a citation is left out, as it could refer to nothing. Raises `RagkitError` for an answer without a verdict, or
    with a yes and no note.
    """
    said = _MARKER.sub("", readable(answer))
    verdict = _VERDICT.search(said)
    if verdict is None:
        raise RagkitError(f"the model's answer has no verdict: {' '.join(said.split())[:80]!r}")
    if verdict[1].casefold() == "no":
        return None
    note = plain(_LABEL.sub("", said[verdict.end() :].strip(), count=1))[:_LONGEST].strip()
    if not re.search(r"\w", note):
        raise RagkitError("the model calls the segment useful, and notes nothing")
    return note


def evidence_for(note: str, sentences: Sequence[str], language: str, most: int) -> list[float]:
    """How far each sentence of a segment bears out a note, from 0 to 1 [sentences]; at most `most` are above 0.

    The score is that of BM25 with the note as the question, relative to the best. Raises `RagkitError` if the segment has less
    than half of the note's terms: then the note tells of something else.
    """
    analyzer = Analyzer(language)
    told, there = set(analyzer(note)), set(analyzer(" ".join(sentences)))
    if not told or len(told & there) < _BORNE_OUT * len(told):
        raise RagkitError(f"the note says what its segment does not: {note[:80]!r}")
    scores = bm25_scores(note, sentences, language).tolist()
    best = max(scores)
    chosen = sorted(range(len(scores)), key=lambda at: -scores[at])[:most]
    return [scores[at] / best if at in chosen and scores[at] >= _NEAR_BEST * best > 0 else 0.0 for at in range(len(scores))]


def shown_notes(notes: Sequence[MarginNote], tokenizer: Tokenizer, budget: int | None) -> tuple[tuple[int, ...], int]:
    """The segments whose notes fit a budget of tokens, earlier ones first, and how many tokens they take with their heading."""
    useful = [note for note in notes if note.useful and note.text]
    head, *costs = count_tokens(tokenizer, [f"{_HEAD}\n\n", *(f"- {note.text}\n" for note in useful)])
    shown: list[int] = []
    spent = head
    for note, cost in zip(useful, costs, strict=True):
        if budget is None or spent + cost <= budget:
            shown.append(note.segment)
            spent += cost
    return tuple(shown), spent if shown else 0
