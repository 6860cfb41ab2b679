"""Numbered sentences for a language model to cite, and what its answer cites."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_CIRCLED = {
    code: int(unicodedata.numeric(chr(code)))
    for first, last in ((0x2460, 0x24FF), (0x2776, 0x2793), (0x3251, 0x325F), (0x32B1, 0x32BF))
    for code in range(first, last + 1)
    if "CIRCLED" in unicodedata.name(chr(code)) and unicodedata.category(chr(code)) == "No"
}
_OPENING, _CLOSING = "[［﹇【〔", "]］﹈】〕"
_READ = {code: f"[{number}]" for code, number in _CIRCLED.items()}
_READ |= dict.fromkeys(map(ord, _OPENING), "[") | dict.fromkeys(map(ord, _CLOSING), "]")
_SHOW = {code: f"({number})" for code, number in _CIRCLED.items()}
_SHOW |= dict.fromkeys(map(ord, _OPENING), "(") | dict.fromkeys(map(ord, _CLOSING), ")")

_DASH = r"[-‐–−~〜]"
_ITEM = r"(?:(?:sentences?|sent\.?|citations?|s|no\.?|#|\^)\s*)?\d{1,6}"
_GROUP = rf"\\?\[\s*{_ITEM}(?:(?:\s*(?:[,;/&+、]|and|{_DASH})\s*|\s+){_ITEM})*\s*\\?\]"
# a dash that opens the next item of a list stands on a new line and makes no range
_CITATIONS = re.compile(rf"{_GROUP}(?: ?{_DASH} ?{_GROUP})*", re.IGNORECASE)
_TOKEN = re.compile(rf"(\d+)|{_DASH}")
_NO_ANSWER = re.compile(
    r"(?:there is )?no[\s_-]*answers?(?: (?:is |was |can be )?(?:found|available|provided|given|possible))?"
    r"(?: in the (?:given |provided )?(?:context|passage|text|sentences?|document))?"
)
_PHRASE_END = re.compile(r"[\n.!?:;,(。、]+|\s[-–—]\s")
_MARKUP = " \t\r*_#>\"'`“”‘’()[]{}"
_THOUGHT = re.compile(r"< ?(/?) ?think(?:ing)? ?>", re.IGNORECASE)
_TAG = re.compile(r"<(?= ?/? ?think)", re.IGNORECASE)


class Cited(NamedTuple):
    """The sentences that an answer cites, counted from 0: none if it says "No answer", None if it cannot be told."""

    gold: tuple[int, ...] | None
    problem: str = ""
    """Why it cannot be told."""


def numbered(title: str, sentences: Sequence[str]) -> str:
    """A passage as a prompt shows it: its title if it has one, and each sentence on a line of its own, from [1] on."""
    lines = [f"[{number}] {plain(sentence)}" for number, sentence in enumerate(sentences, 1)]
    return "\n".join([f"Title: {plain(title)}", *lines] if title.strip() else lines)


def plain(text: str) -> str:
    """The text on one line, without anything that reads as a citation or as the end of a model's thoughts.

    A model may quote it, and `[3]` in a passage would then cite sentence 3; so square brackets become round ones.
    """
    return _TAG.sub("(", " ".join(text.translate(_SHOW).split()))


def parse_citations(answer: str, count: int) -> Cited:
    """The sentences, of `count`, that an answer cites as [2], [1, 3], [1]-[3], 【2】 or ②; what it thinks before does not count.

    Numbers that no sentence has are left out if others remain. Not labelled, with the reason, is an answer that cites nothing
    and does not say "No answer", says it and cites nevertheless (either may be meant), or counts from [0] (all its numbers
    may be off by one).
    """
    text = unicodedata.normalize("NFKC", _spoken(answer).translate(_READ))
    if not text.strip():
        return Cited(None, "the answer stops within its thoughts" if answer.strip() else "the answer is empty")
    cited = {number for match in _CITATIONS.finditer(text) for number in _numbers(match[0], count)}
    if _declines(_CITATIONS.sub(" ", text)):
        return Cited(None, f'the answer says "No answer" and cites {sorted(cited)}') if cited else Cited(())
    if not cited:
        return Cited(None, 'the answer neither cites a sentence nor says "No answer"')
    if 0 in cited:
        return Cited(None, "the answer cites [0], but sentences are numbered from 1")
    inside = tuple(number - 1 for number in sorted(cited) if number <= count)
    return Cited(inside) if inside else Cited(None, f"the answer cites {sorted(cited)} of {count} sentences")


def _spoken(answer: str) -> str:
    """The answer without its thoughts, also where they were begun in the prompt or never end."""
    spoken: list[str] = []
    at, thinking = 0, False
    for tag in _THOUGHT.finditer(answer):
        if tag[1]:
            if not thinking:
                spoken.clear()
            at, thinking = tag.end(), False
        elif not thinking:
            spoken.append(answer[at : tag.start()])
            thinking = True
    return "".join(spoken if thinking else [*spoken, answer[at:]])


def _numbers(citations: str, count: int) -> Iterator[int]:
    last, ranged = 0, False
    for token in _TOKEN.finditer(citations):
        if token[1] is None:
            ranged = True
            continue
        number = int(token[1])
        if ranged:
            yield from range(last + 1, min(number, count + 1))
        yield number
        last, ranged = number, False


def _declines(text: str) -> bool:
    """Whether a whole phrase of the text is "No answer"; "There is no answer to the riddle" may be an answer."""
    return any(_NO_ANSWER.fullmatch(phrase.strip(_MARKUP).casefold()) for phrase in _PHRASE_END.split(text))
