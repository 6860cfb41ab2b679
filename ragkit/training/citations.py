"""Numbered sentences for a language model to cite, and what its answer cites."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ragkit.quoting import plain, readable

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


class Cited(NamedTuple):
    """The sentences that an answer cites, counted from 0: none if it says "No answer", None if it cannot be told."""

    gold: tuple[int, ...] | None
    problem: str = ""
    """Why it cannot be told."""


def numbered(title: str, sentences: Sequence[str]) -> str:
    """A passage as a prompt shows it: its title if it has one, and each sentence on a line of its own, from [1] on."""
    lines = [f"[{number}] {plain(sentence)}" for number, sentence in enumerate(sentences, 1)]
    return "\n".join([f"Title: {plain(title)}", *lines] if title.strip() else lines)


def parse_citations(answer: str, count: int) -> Cited:
    """The sentences, of `count`, that an answer cites as [2], [1, 3], [1]-[3], 【2】 or ②; what it thinks before does not count.

    Numbers that no sentence has are left out if others remain. Not labelled, with the reason, is an answer that cites nothing
    and does not say "No answer", says it and cites nevertheless (either may be meant), or counts from [0] (all its numbers
    may be off by one).
    """
    text = readable(answer)
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
