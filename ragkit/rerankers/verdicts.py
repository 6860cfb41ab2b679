"""The label or the grade that a language model's answer gives."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
    "non-relevant",
    "not relevant",
    "isn't relevant",
    "isn’t relevant",
    "nicht relevant",
    "niet relevant",
    "inte relevant",
    "ikke relevant",
    "no es relevante",
    "não é relevante",
    "non è rilevante",
    "pas pertinent",
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
_MARKS = "*_#>\"'`“”‘’)}\\]"
# what may follow a label that is meant as the answer; in other places it may only be talked about
_GIVEN = re.compile(
    rf"[{_MARKS}]*(?:[.,:;!\n。、，！]|\s*[–—]|\s+-+\s|\s*>|\s*$|\s+(?:wins|because|since|as|for|to)\b"
    r"|\s+is\s+(?:(?:clearly|much|far|slightly|also|the|a|an)\s+)*(?:better|best|right|correct|(?:more|most)\s+(?:relevant|helpful|useful)))",
    re.IGNORECASE,
)
# what before a label, in its sentence, denies it, doubts it, or compares with it
_DENIED = re.compile(
    r"n['’]t\b|\b(?:not|cannot|never|neither|nor|nothing|hardly|barely|scarcely|without|unable|far|less|least|little|few|worse|worst|wrong"
    r"|than|instead|unlike|except|if|whether|maybe|perhaps|possibly|unsure|doubt\w*|fail\w*|lack\w*|either|both"
    r"|nicht|kein\w*|nie|niemals|pas|ne|jamais|aucun\w*|nunca|tampoco|mai|niet|geen|inte|ikke|ej|не|нет|değil|δεν|μη|ليس|غير)\b|[不没沒非無无未]|않|아니",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.!?\n。！？]")
_GRADE = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?![\w%]|\.\d)")
_RANGE = re.compile(r"\d+(?:\.\d+)?(?:\s*[-–]\s*\d+(?:\.\d+)?)+")


def parse_label(text: str, labels: Sequence[Sequence[str]]) -> int | None:
    """Which of some labels an answer gives, as an index; each label has one or more spellings. None if none can be told safely.

    What counts is what follows "Answer:", or else how the answer begins and its last line, unless these contradict each other, or
    the only label it gives at all. A label is given where it ends a clause, or is said to be the better one. One that is denied,
    doubted or compared with ("not yes", "worse than A") gives nothing, nor does one that is only talked about. Thoughts, markup
    and, but for single letters, case do not count; an "A" before another word is an article and no label.
    """
    pattern, places = _spellings(tuple(map(tuple, labels)))
    said = readable(text)
    marked, first, last = _parts(said)
    read = [_label(part, pattern, places) for part in (marked, first, last, said.strip(_MARKUP))]
    if read[0] is not None:
        return read[0]
    if None not in read[1:3] and read[1] != read[2]:
        return None
    return next((label for label in read[1:] if label is not None), None)


def _label(part: str, pattern: re.Pattern[str], places: dict[str, int]) -> int | None:
    """The label that a part of an answer gives."""
    found = list(pattern.finditer(part))
    if not found:
        return None
    named = {places[_folded(mention[0])] for mention in found}
    given = [mention for mention in found if _GIVEN.match(part, mention.end())]
    if len(named) == 1:
        denied = any(_DENIED.search(_before(part, mention)) for mention in found)
        return None if denied or not given else named.pop()
    # "Yes. No other passage ...", "A is better than B", but not "A, B"
    opening = found[0]
    if opening.start() != _LEAD.match(part).end() or opening not in given:  # type: ignore[union-attr]
        return None
    between = part[opening.end() : found[1].start()]
    return None if re.fullmatch(r"[\s,;:/&]*", between) else places[_folded(opening[0])]


def _folded(spelling: str) -> str:
    """Equal for spellings that a pattern without case takes for equal, as it does the Turkish i with and without a dot."""
    return spelling.replace("İ", "i").replace("ı", "i").casefold()


def _before(part: str, mention: re.Match[str]) -> str:
    """What the sentence of a mention says before it."""
    return _SENTENCE.split(part[: mention.start()])[-1]


def parse_score(text: str, lowest: int = 0, highest: int = 4) -> float | None:
    """The grade from `lowest` to `highest` that an answer gives: `3`, `3/4`, `Score: 3`, `{"score": 3}`; None if none, or two."""
    said = _RANGE.sub(" ", re.sub(rf"(?<=\d)\s*(?:/|out of)\s*{highest}\b", " ", readable(text)))
    for part in (*_parts(said), said):
        grades = {float(found[0]) for found in _GRADE.finditer(part)}
        if len(grades) == 1:
            grade = grades.pop()
            return grade if lowest <= grade <= highest else None
    return None


def _parts(said: str) -> tuple[str, str, str]:
    """What an answer says where it says so, its first line, and its last."""
    marked = [found[1] for found in _MARKED.finditer(said)]
    lines = said.strip(_MARKUP).splitlines() or [""]
    marks, first, last = (part.strip(_MARKUP) for part in ((marked or [""])[-1], lines[0], lines[-1]))
    return marks, first, last


@cache
def _spellings(labels: tuple[tuple[str, ...], ...]) -> tuple[re.Pattern[str], dict[str, int]]:
    places = {_folded(spelling): at for at, spellings in enumerate(labels) for spelling in spellings}
    either = "|".join(re.escape(spelling) for spelling in sorted(sum(labels, ()), key=len, reverse=True))
    if all(len(spelling) == 1 for spelling in places):
        article = r"(?!\s+(?!(?:is|are|wins|because|since|and|or|than)\b)[a-z])"
        return re.compile(rf"(?<![\w'’])(?:{either})(?![\w'’]){article}"), places
    return re.compile(rf"(?<![^\W\d_])(?:{either})(?![^\W\d_])", re.IGNORECASE), places
