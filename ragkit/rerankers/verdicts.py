"""The label or the grade that a language model's answer gives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

from ragkit.quoting import readable

YES = (
    "yes",
    "true",
    "relevant",
    "ja",
    "oui",
    "sí",
    "si",
    "sim",
    "да",
    "так",
    "evet",
    "tak",
    "ναι",
    "はい",
    "是",
    "是的",
    "예",
    "네",
    "نعم",
    "हाँ",
)
NO: tuple[str, ...] = (
    "no",
    "false",
    "irrelevant",
    "not relevant",
    "nein",
    "non",
    "não",
    "nee",
    "nej",
    "нет",
    "ні",
    "hayır",
    "nie",
    "όχι",
)
NO += ("いいえ", "否", "不是", "不", "아니요", "아니오", "لا", "नहीं")
"""What models say for yes and no, also those that answer in the language of the question."""

_MARKUP = " \t\r\n*_#>\"'`“”‘’()[]{}.,:;!。、！"
_MARKED = re.compile(r"(?:answer|judge?ment|verdict|score|grade|rating)[\"'*_\s]*(?:is\b|[:=])([^\n]{1,40})", re.IGNORECASE)
_LEAD = re.compile(r"(?:(?:the\s+)?(?:passage|document|text|option|answer)\s+)?", re.IGNORECASE)
_CLOSED = re.compile(r"[^\w\s]*(?:[.,:;!\n。、>]|\s+(?:is|wins|because|since|>)|\s*$)")
_GRADE = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?![\w%]|\.\d)")


def parse_label(text: str, labels: Sequence[Sequence[str]]) -> int | None:
    """Which of some labels an answer gives, as an index; each label has one or more spellings. None if it gives none, or two.

    What counts is the whole answer, what follows "Answer:", how it begins, its last line, or the only label it names. Thoughts,
    markup and, but for single letters, case do not count; an "A" before another word is an article and no label.
    """
    pattern, places = _spellings(tuple(map(tuple, labels)))
    said = readable(text)
    for part in _parts(said):
        opening = pattern.match(part, _LEAD.match(part).end())  # type: ignore[union-attr]
        named = {places[found[0].casefold()] for found in pattern.finditer(part)}
        if len(named) == 1:
            return named.pop()
        # "Yes. No other passage ...", "A is better than B"
        if opening and _CLOSED.match(part, opening.end()):
            return places[opening[0].casefold()]
    return None


def parse_score(text: str, lowest: int = 0, highest: int = 4) -> float | None:
    """The grade from `lowest` to `highest` that an answer gives: `3`, `3/4`, `Score: 3`, `{"score": 3}`; None if none, or two."""
    said = re.sub(rf"(?<=\d)\s*(?:/|out of)\s*{highest}\b", " ", readable(text))
    for part in _parts(said):
        grades = {float(found[0]) for found in _GRADE.finditer(part)}
        if len(grades) == 1:
            grade = grades.pop()
            return grade if lowest <= grade <= highest else None
    return None


def _parts(said: str) -> Iterator[str]:
    """What an answer says, from where it says it most plainly."""
    marked = [found[1] for found in _MARKED.finditer(said)]
    lines = said.strip(_MARKUP).splitlines()
    return (part.strip(_MARKUP) for part in (*marked[-1:], *lines[:1], *lines[-1:], said))


@cache
def _spellings(labels: tuple[tuple[str, ...], ...]) -> tuple[re.Pattern[str], dict[str, int]]:
    places = {spelling.casefold(): at for at, spellings in enumerate(labels) for spelling in spellings}
    either = "|".join(re.escape(spelling) for spelling in sorted(sum(labels, ()), key=len, reverse=True))
    if all(len(spelling) == 1 for spelling in places):
        article = r"(?!\s+(?!(?:is|are|wins|because|since|and|or|than)\b)[a-z])"
        return re.compile(rf"(?<![\w'’])(?:{either})(?![\w'’]){article}"), places
    return re.compile(rf"(?<![^\W\d_])(?:{either})(?![^\W\d_])", re.IGNORECASE), places
