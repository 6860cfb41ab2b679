"""Citation markers in an answer as it streams in: known ones in one form, others taken out, wherever a chunk was cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_OPEN, _CLOSE = "[［【〔⟦", "]］】〕⟧"
_OPENS, _CLOSES = (f"[{re.escape(brackets)}]" for brackets in (_OPEN, _CLOSE))
_WORD = r"(?:passages?|sources?|documents?|docs?|refs?\.?|citations?|nos?\.?|#|\^)"
_JOIN = r"\s*(?:[,;、，；&]|\band\b)\s*"
_ONE = rf"{_WORD}?\s*\d{{1,6}}(?:\s*[-–—]\s*\d{{1,6}})?"
_MARKER = re.compile(rf"{_OPENS}\s*({_ONE}(?:{_JOIN}{_ONE})*)\s*{_CLOSES}", re.IGNORECASE)
_RANGE = re.compile(r"(\d+)\s*[-–—]\s*(\d+)|(\d+)")
_LONGEST = 80
"""Characters after an opening bracket within which a marker is closed, if it is one."""
_WIDEST = 20
"""Numbers that a range may stand for; a wider one ([1990-2020]) is no citation."""
_THINKS = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_TAGS = ("<think>", "</think>", "<thinking>", "</thinking>")
_CLOSING = ".,;:!?)]}。、，；：！？」』）"


class Marker(NamedTuple):
    """A citation in the clean text: `text[start:end]` is `[n]`."""

    start: int
    end: int
    n: int


class MarkerStream:
    """Text goes in by chunks of any size; clean text comes out as soon as it cannot change any more.

    `[2]`, `[1, 3]`, `[1-3]`, `【2】`, `[passage 2]` and `[^2]` become `[2]`, `[1][3]` and so on. Numbers that were not given out
    leave the text, with the space before them, and are kept in `unknown`; so do repetitions within a run of markers. Brackets
    around anything else stay, and so does all within backticks. What a model thinks between <think> and </think> is left out.
    """

    def __init__(self, passages: int) -> None:
        """`passages`: numbers from 1 to this were given out."""
        self._known = range(1, passages + 1)
        self.unknown: list[int] = []
        """Numbers that were taken out, in order, repeats included."""
        self.markers: list[Marker] = []
        """Those that stayed."""
        self._pending = ""
        self._length = 0
        self._space = self._before = ""
        self._removed = False
        self._run: set[int] = set()
        self._ticks = 0
        self._thinking = False

    def feed(self, chunk: str) -> str:
        """The clean text that is certain now; perhaps none."""
        self._pending += chunk
        return "".join(self._steps(final=False))

    def finish(self) -> str:
        """The rest. White space at the very end is left out."""
        return "".join(self._steps(final=True))

    def _steps(self, final: bool) -> Iterator[str]:
        while self._pending:
            took, text = self._step(self._pending, final)
            if not took:
                return
            self._pending = self._pending[took:]
            yield text

    def _step(self, pending: str, final: bool) -> tuple[int, str]:
        """How many characters are done with, and what they come to; none if what follows has to be known first."""
        if self._thinking:
            return self._thought(pending, final)
        first = pending[0]
        if first == "<" and not self._ticks:
            return self._tag(pending, final)
        if first == "`":
            ticks = len(pending) - len(pending.lstrip("`"))
            if ticks == len(pending) and not final:
                return 0, ""
            if not self._ticks:
                self._ticks = ticks
            elif self._ticks == ticks:
                self._ticks = 0
            return ticks, self._say(pending[:ticks])
        if first in _OPEN and not self._ticks:
            return self._bracket(pending, final)
        plain = re.match(r"[^<`\n]+" if self._ticks else rf"[^<`\n{re.escape(_OPEN)}]+", pending)
        if plain is None:
            if first == "\n" and self._ticks < 3:
                self._ticks = 0  # code within a line ends with it
            return 1, self._say(first)
        return plain.end(), self._say(plain[0])

    def _thought(self, pending: str, final: bool) -> tuple[int, str]:
        closed = next((tag for tag in _THINKS.finditer(pending) if tag[1]), None)
        if closed:
            self._thinking = False
            return closed.end(), ""
        # the end of what is there may be the beginning of the closing tag
        return (len(pending) if final else max(0, len(pending) - len("</thinking>") + 1)), ""

    def _tag(self, pending: str, final: bool) -> tuple[int, str]:
        tag = _THINKS.match(pending)
        if tag:
            self._thinking = not tag[1]
            return tag.end(), ""
        if not final and any(name.startswith(pending.lower()) for name in _TAGS):
            return 0, ""
        return 1, self._say("<")

    def _bracket(self, pending: str, final: bool) -> tuple[int, str]:
        marker = _MARKER.match(pending[: _LONGEST + 1])
        if marker is None:
            closed = any(char in pending[1 : _LONGEST + 1] for char in _OPEN + _CLOSE)
            undecided = not final and not closed and len(pending) <= _LONGEST
            return (0, "") if undecided else (1, self._say(pending[0]))
        numbers = _numbers(marker[1])
        if numbers is None:
            return 1, self._say(pending[0])
        return marker.end(), self._cite(numbers)

    def _cite(self, numbers: list[int]) -> str:
        self.unknown += [n for n in numbers if n not in self._known]
        fresh = [n for n in dict.fromkeys(numbers) if n in self._known and n not in self._run]
        if not fresh:
            self._before = self._before or self._space
            self._removed, self._space = True, ""
            return ""
        text = self._gap("[")
        for n in fresh:
            start = self._length
            self._length += len(f"[{n}]")
            self.markers.append(Marker(start, self._length, n))
            self._run.add(n)
            text += f"[{n}]"
        return text

    def _say(self, text: str) -> str:
        """The text. White space at its end is held back: it leaves if nothing but a marker that is taken out follows."""
        body = text.strip()
        self._space += text[: len(text) - len(text.lstrip())]
        if not body:
            return ""
        said = self._gap(body[0]) + body
        self._length += len(body)
        self._space = text[len(text.rstrip()) :]
        self._run.clear()
        return said

    def _gap(self, follows: str) -> str:
        """The white space that was held back, now that what comes next is known."""
        before, space = self._before, self._space
        if self._removed:
            # a marker that leaves, leaves no second space, and no space before a full stop
            closing = not space and follows in _CLOSING
            space = "" if closing else max(before, space, key=lambda gap: (gap.count("\n"), bool(gap)))
        if not self._length:
            space = ""
        self._before, self._space, self._removed = "", "", False
        self._length += len(space)
        return space


def _numbers(inside: str) -> list[int] | None:
    """The numbers a marker names, ranges written out; None for a range that is no citation."""
    numbers: list[int] = []
    for first, last, alone in _RANGE.findall(inside):
        if alone:
            numbers.append(int(alone))
        elif 0 <= int(last) - int(first) < _WIDEST:
            numbers.extend(range(int(first), int(last) + 1))
        else:
            return None
    return numbers
