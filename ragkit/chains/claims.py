"""The statements of an answer, what each of them cites, and how far the cited sentences bear it out."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ragkit.chains.context import Citation, GroundedContext, GroundedPassage
from ragkit.chains.markers import Marker
from ragkit.documents.blocks import markdown_blocks
from ragkit.documents.sentences import units
from ragkit.encoders.languages import iso_code
from ragkit.encoders.lexical import Analyzer

_EVIDENCE = 3
"""The most sentences that one statement may lean on."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_GROUP = re.compile(r"(?<=\d)[.,](?=(?:\d{3}[.,])*\d{3}(?!\d))")
_SPACED = re.compile(r"\s+([.,;:!?)])")
_QUOTED = re.compile(r"“([^“”]+)”|„([^„“”]+)[“”]|«([^«»]+)»|「([^「」]+)」|『([^『』]+)』|(?<!\w)\"([^\"\n]+)\"(?!\w)")
_SHORTEST_QUOTE = 12
"""Characters; less in quotation marks is a name or a word, not a quotation."""
_LEFT_OUT = re.compile(r"\s*(?:\(?\[?(?:\.\.\.|…)\]?\)?)\s*")
_BULLET = re.compile(r"^[\s>]*(?:[-*+•]|\(?\d{1,3}[.)])?\s+")
_MARKS = str.maketrans("‘’‚‛“”„‟«»", '\'\'\'\'""""""')


@dataclass(frozen=True)
class Claim:
    """One statement: `answer[start:end]` is its sentence, `text` the same without markers."""

    text: str
    start: int
    end: int
    cited: tuple[int, ...]
    """Numbers of passages, in order."""
    evidence: tuple[Citation, ...]
    """The sentences of these passages (of any, if none is cited) that bear it out, at most three, in the context's order."""
    support: float
    """The share, from 0 to 1, of what the statement adds to the question that the evidence has; 0 if a number is missing."""
    probability: float | None = None
    """What a model gives the evidence, from 0 to 1; None if none was asked. See `ragkit.chains.support`."""


def claims_of(answer: str, markers: Sequence[Marker], context: GroundedContext, analyzer: Analyzer) -> list[Claim]:
    """The statements of an answer with its markers, each matched with the kept sentences of what it cites.

    A marker belongs to the sentence that it stands in or behind; at the beginning of a line, to the one that follows. Questions,
    headings, code, lead-ins that end in a colon, and sentences without any term of their own state nothing.
    """
    text = _filled(answer, markers, " ")
    # spaces at the beginning of a line would make it code
    blocks = markdown_blocks(_filled(answer, markers, "x"))
    sentences = [unit for unit in units(text, blocks, iso_code(analyzer.language)) if unit.kind in ("text", "row")]
    cited: list[list[Marker]] = [[] for _ in sentences]
    for marker in markers:
        at = _owner(text, marker, [(unit.start, unit.end) for unit in sentences])
        if at is not None:
            cited[at].append(marker)
    given = _terms(context.question, analyzer)
    found = []
    for unit, its in zip(sentences, cited, strict=True):
        bare_sentence = _BULLET.sub("", text[unit.start : unit.end], count=1)
        said = _SPACED.sub(r"\1", " ".join(bare_sentence.split()))
        terms = _terms(said, analyzer)
        if not terms or said.endswith((":", "：", "?", "？")):
            continue
        numbers = tuple(dict.fromkeys(marker.n for marker in its))
        passages = [passage for passage in context.best_first if not numbers or passage.n in numbers]
        evidence, support = _supported(terms - given or terms, _numerals(said) - _numerals(context.question), passages, analyzer)
        end = max([unit.end, *(marker.end for marker in its)])
        start = min([unit.start, *(marker.start for marker in its)])
        found.append(Claim(said, start, end, numbers, evidence, support))
    return found


def false_quotes(answer: str, passages: Iterable[GroundedPassage]) -> list[str]:
    """What stands in quotation marks in the answer, and in none of the passages.

    White space, kinds of quotation marks and of brackets, and case are no difference; what is left out of a quotation (...)
    may be anything, and so may the full stop at its end. Less than 12 characters are no quotation.
    """
    known = [_plain(passage.text) for passage in passages]
    quotes = (next(part for part in match if part) for match in _QUOTED.findall(answer))
    return [quote for quote in quotes if len(quote) >= _SHORTEST_QUOTE and not any(_said(quote, text) for text in known)]


def _said(quote: str, text: str) -> bool:
    at = 0
    for part in _LEFT_OUT.split(_plain(quote)):
        part = part.strip(" .,;")
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_MARKS).translate(str.maketrans("[]{}", "()()"))
    return " ".join(folded.split())


def _owner(text: str, marker: Marker, sentences: Sequence[tuple[int, int]]) -> int | None:
    """The place of the sentence that a marker belongs to."""
    around = [at for at, (start, end) in enumerate(sentences) if start <= marker.start < end]
    behind = [at for at, (_, end) in enumerate(sentences) if end <= marker.start]
    ahead = [at for at, (start, _) in enumerate(sentences) if start > marker.start]
    line = text.rfind("\n", 0, marker.start) + 1
    opens = not text[line : marker.start].strip()
    order = [around, ahead, behind[::-1]] if opens else [around, behind[::-1], ahead]
    return next((places[0] for places in order if places), None)


def _supported(
    terms: set[str], numerals: set[str], passages: Sequence[GroundedPassage], analyzer: Analyzer
) -> tuple[tuple[Citation, ...], float]:
    """Greedy: the sentence that has most of what is still missing; headings of a passage count for all its sentences."""
    candidates = [
        (sentence.citation, _terms(f"{passage.label} {sentence.citation.text}", analyzer), _numerals(sentence.citation.text))
        for passage in passages
        for sentence in passage.sentences
    ]
    missing, lacking, chosen = set(terms), set(numerals), list[int]()
    while (missing or lacking) and len(chosen) < _EVIDENCE:
        gains = [len(missing & has) + len(lacking & says) for _, has, says in candidates]
        best = max(range(len(gains)), key=gains.__getitem__, default=0)
        if not gains or not gains[best]:
            break
        chosen.append(best)
        missing -= candidates[best][1]
        lacking -= candidates[best][2]
    evidence = tuple(sorted((candidates[at][0] for at in chosen), key=lambda citation: (citation.n, citation.start)))
    return evidence, 0.0 if lacking else 1 - len(missing) / len(terms)


def _terms(text: str, analyzer: Analyzer) -> set[str]:
    return set(analyzer(_ungrouped(text)))


def _numerals(text: str) -> set[str]:
    return set(_NUMBER.findall(_ungrouped(text)))


def _ungrouped(text: str) -> str:
    """The text in NFKC, with numbers written without what groups their thousands: 1,250 is 1250."""
    return _NUMBER.sub(lambda number: _GROUP.sub("", number[0]), unicodedata.normalize("NFKC", text))


def _filled(answer: str, markers: Sequence[Marker], filler: str) -> str:
    """The answer with something else in the place of each marker, character by character."""
    characters = list(answer)
    for marker in markers:
        characters[marker.start : marker.end] = filler * (marker.end - marker.start)
    return "".join(characters)
