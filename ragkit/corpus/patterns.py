"""What exact search looks for: a literal string or a regular expression, and which literals every match must contain.

A match is a span of at least one character; matches of one text do not overlap and are found from left to right. A literal is
compared character by character, without Unicode normalisation; with `ignore_case` two spans are equal if `str.casefold` makes
them equal, so "STRASSE" finds "Straße", but "s" does not find half of an "ß".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from ragkit.documents.spans import Span
from ragkit.errors import InputError

Alternatives = tuple[tuple[str, ...], ...]
"""A text that matches contains, but for case, every literal of at least one of these. An empty alternative promises nothing."""

_QUANTIFIER = re.compile(r"\*|\+|\?|\{\d*,?\d*\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_COMMENT = re.compile(r"\(\?#[^)]*\)")
# white space and comments mean nothing under this flag, wherever in the pattern it is set
_VERBOSE = re.compile(r"\(\?[a-zA-Z]*x")
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_NOT_LITERAL = frozenset("bBAZdDwWsS")


class _Finder(Protocol):
    def __call__(self, text: str, /) -> Iterator[Span]: ...


@dataclass(frozen=True)
class Pattern:
    """A literal string or, with `regex`, a regular expression of Python's `re` in which ^ and $ match at every line.

    Raises `InputError` if it is empty or no valid regular expression.
    """

    text: str
    ignore_case: bool = False
    regex: bool = False
    needs: Alternatives = field(init=False, compare=False)
    """What a text must contain to match; see `Alternatives`."""
    _find: _Finder = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.text:
            raise InputError("pattern: is empty; give the text to look for")
        if self.regex:
            find, needs = partial(_regex, _compiled(self.text, self.ignore_case)), required_literals(self.text)
        else:
            find, needs = partial(_folded if self.ignore_case else _literal, self.text), ((self.text,),)
        object.__setattr__(self, "_find", find)
        object.__setattr__(self, "needs", needs)

    def spans(self, text: str) -> list[Span]:
        """Start and end of every match in `text`, in characters."""
        return list(self._find(text))


def required_literals(regex: str) -> Alternatives:
    """Literals that every match of a valid regular expression contains, per alternative at its top level.

    Only what is certain is taken: characters outside groups and classes that no quantifier makes optional. Where the pattern
    says something that this does not read, the answer is one empty alternative.
    """
    unknown: Alternatives = ((),)
    if _VERBOSE.search(regex):
        return unknown
    alternatives: list[tuple[str, ...]] = []
    literals: list[str] = []
    run, at = "", 0
    while at < len(regex):
        if comment := _COMMENT.match(regex, at):
            at = comment.end()  # a quantifier behind it counts for what stands before it
            continue
        char, step, literal = regex[at], 1, ""
        if char == "\\":
            step, escaped = 2, regex[at + 1]
            literal = _CONTROL.get(escaped, "" if escaped in _NOT_LITERAL else escaped)
            if literal.isascii() and literal.isalnum():
                return unknown  # a back reference, or a character by its number or name
        elif char == "[":
            step = _class_length(regex, at)
        elif char == "(":
            step = _group_length(regex, at)
        elif quantifier := _QUANTIFIER.match(regex, at):
            step = len(quantifier[0])
            run = run if char == "+" else run[:-1]
        elif char not in ".^$|":
            literal = char
        run += literal
        if not literal:
            literals.append(run)
            run = ""
        if char == "|":
            alternatives.append(tuple(filter(None, literals)))
            literals = []
        at += step
    return (*alternatives, tuple(filter(None, [*literals, run])))


def _group_length(regex: str, start: int) -> int:
    depth, at = 0, start
    while True:
        char, step = regex[at], 1
        if char == "\\":
            step = 2
        elif char == "[":
            step = _class_length(regex, at)
        elif comment := _COMMENT.match(regex, at):
            step = len(comment[0])
        elif char in "()":
            depth += 1 if char == "(" else -1
        at += step
        if depth == 0:
            return at - start


def _class_length(regex: str, start: int) -> int:
    found = _CLASS.match(regex, start)
    assert found is not None, "the expression has been compiled"
    return len(found[0])


def _compiled(regex: str, ignore_case: bool) -> re.Pattern[str]:
    try:
        return re.compile(regex, re.MULTILINE | (re.IGNORECASE if ignore_case else re.NOFLAG))
    except re.error as error:
        where = "" if error.pos is None else f" at position {error.pos}"
        raise InputError(f"pattern: no valid regular expression: {error.msg}{where}; mend it, or search literally") from None
    except (OverflowError, RecursionError) as error:
        raise InputError(f"pattern: too large for a regular expression ({error}); make it smaller") from None


def _regex(pattern: re.Pattern[str], text: str) -> Iterator[Span]:
    for match in pattern.finditer(text):
        if match.end() > match.start():
            yield match.span()


def _literal(needle: str, text: str) -> Iterator[Span]:
    at = text.find(needle)
    while at >= 0:
        yield at, at + len(needle)
        at = text.find(needle, at + len(needle))


def _folded(needle: str, text: str) -> Iterator[Span]:
    folded, needle = text.casefold(), needle.casefold()
    if len(folded) == len(text):  # no character folds to nothing, so each has folded to one
        yield from _literal(needle, folded)
        return
    at = folded.find(needle)
    if at < 0:
        return
    # where in the folded text each character begins, and the last one ends
    begins = np.zeros(len(text) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, map(str.casefold, text)), np.int64, len(text)), out=begins[1:])
    while at >= 0:
        start, end = np.searchsorted(begins, (at, at + len(needle))).tolist()
        whole = begins[start] == at and begins[end] == at + len(needle)
        if whole:
            yield start, end
        at = folded.find(needle, at + (len(needle) if whole else 1))
