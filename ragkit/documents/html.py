"""HTML to text: the words of a page with their block structure, leading back to the lines of the file."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import accumulate
from typing import NamedTuple

from ragkit.documents.lines import BOM
from ragkit.documents.model import Block, Kind, Mark

_VOID = re.compile("area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr")
_SKIPPED = re.compile("script|style|noscript|template|svg|iframe|nav|footer")
_BLOCKS = re.compile(
    "address|article|aside|blockquote|body|caption|center|d[dlt]|details|dialog|div|fieldset|figcaption|figure|form|h[1-6]|"
    "header|hr|html|legend|li|main|ol|p|pre|section|summary|table|tbody|td|tfoot|th|thead|tr|ul"
)
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_GROUPS = ("table", "ul", "ol", "dl")
_WHITE = re.compile(r"\s+")
_SOLID = re.compile(rf"[^\s{BOM}]+")
_BREAK = re.compile(r" *\n *")


class Page(NamedTuple):
    """The text of an HTML page; offsets in `blocks` and `lines` count characters of `text`, lines are those of the file."""

    text: str
    blocks: tuple[Block, ...]
    lines: tuple[Mark, ...]
    title: str


def read_html(markup: str) -> Page:
    """Text of a page without scripts, styles, navigation and footers. Blocks are set apart by a blank line, rows by a newline.

    White space is collapsed outside of `pre`. Broken markup is read as far as it makes sense; nothing raises.
    """
    reader = _Reader()
    reader.feed(_closed(markup))
    reader.close()
    reader.flush()
    title = _WHITE.sub(" ", "".join(reader.title)).strip()
    return Page("".join(reader.parts), tuple(reader.blocks), tuple(reader.lines), title)


def _closed(markup: str) -> str:
    """The markup with comments and tags that never end made plain text; the parser would take quadratic time on them."""
    head, end, tail = markup.rpartition("-->")
    markup = head + end + tail.replace("<!--", "&lt;!--")
    head, end, tail = markup.rpartition(">")
    return head + end + tail.replace("<", "&lt;")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.blocks: list[Block] = []
        self.lines: list[Mark] = []
        self.title: list[str] = []
        self._length = 0
        self._open: list[tuple[str, bool]] = []
        """Open elements, each with whether it hides its content."""
        self._count: Counter[str] = Counter()
        self._hidden = 0
        self._group = -1
        self._buffer: list[str] = []
        self._cells: list[str] | None = None
        self._lines: list[tuple[int, int]] = []
        """How many characters of the block, white space aside, come before a line of the file that has some, and its number."""
        self._solid = 0

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """Read `<![...` as browsers do; the inherited method raises on unknown sections."""
        return int(self.parse_bogus_comment(i, report))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("td", "th") and self._count["tr"]:
            self._end_cell()
        else:
            self._boundary(tag)
        if tag == "br":
            self._buffer.append(" " if self._count["tr"] else "\n")
        if _VOID.fullmatch(tag):
            return
        hides = bool(_SKIPPED.fullmatch(tag)) or ("role", "navigation") in attrs
        if tag in _GROUPS and not self._grouped():
            self._group += 1
        self._open.append((tag, hides))
        self._count[tag] += 1
        self._hidden += hides

    def handle_endtag(self, tag: str) -> None:
        self._boundary(tag)
        if not self._count[tag]:
            return
        closed = ""
        # unclosed elements inside end with the one that holds them
        while closed != tag:
            closed, hides = self._open.pop()
            self._count[closed] -= 1
            self._hidden -= hides

    def handle_data(self, data: str) -> None:
        if self._count["title"] and not self._count["svg"]:
            self.title.append(data)
            return
        if self._hidden:
            return
        for line, words in enumerate(data.split("\n"), self.getpos()[0]):
            if size := len("".join(words.replace(BOM, " ").split())):
                self._lines.append((self._solid, line))
                self._solid += size
        self._buffer.append(data if self._verbatim() else _WHITE.sub(" ", data))

    def flush(self) -> None:
        """End the block that is being read, if it has any words."""
        if self._lines:
            self._emit(self._block_text())
        self._buffer, self._cells, self._lines, self._solid = [], None, [], 0

    def _boundary(self, tag: str) -> None:
        if tag in ("tr", "table") or (_BLOCKS.fullmatch(tag) and not self._count["tr"]):
            self.flush()
        elif _BLOCKS.fullmatch(tag):
            self._buffer.append(" ")

    def _end_cell(self) -> None:
        text = _squeeze("".join(self._buffer))
        if self._cells is None:
            # most often nothing comes before the first cell of a row
            self._cells = [text] if text else []
        else:
            self._cells.append(text)
        self._buffer = []

    def _block_text(self) -> str:
        text = "".join(self._buffer)
        if self._verbatim():
            lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip()
            return lines.strip("\n" + BOM) if lines.strip() else ""
        if self._cells is None:
            return _squeeze(text)
        cells = [*self._cells, _squeeze(text)]
        return " | ".join(cells).strip() if any(cells) else ""

    def _emit(self, text: str) -> None:
        kind, level = self._kind()
        if not self._grouped():
            self._group += 1
        if self.blocks:
            last = self.blocks[-1]
            gap = "\n" if kind == last.kind == "row" and last.group == self._group else "\n\n"
            self.parts.append(gap)
            self._length += len(gap)
        start, self._length = self._length, self._length + len(text)
        self.parts.append(text)
        title = text.rstrip("¶# ").replace("\n", " ") if kind == "heading" else ""
        self.blocks.append(Block(start, self._length, kind, level, self._group, title))
        self.lines.append(Mark(start, self._lines[0][1]))
        if kind != "row":  # which has bars between its cells, and no line breaks
            self.lines += [Mark(start + offset, line) for offset, line in self._jumps(text)]

    def _jumps(self, text: str) -> Iterator[tuple[int, int]]:
        """Where in the block's text another line of the file begins than its line breaks tell, and which."""
        runs = [run.span() for run in _SOLID.finditer(text)]
        before = list(accumulate((end - start for start, end in runs), initial=0))
        at, told = 0, self._lines[0][1]
        for count, line in self._lines:
            run = bisect_right(before, count) - 1
            offset = runs[run][0] + count - before[run]
            told += text.count("\n", at, offset)
            if line != told:
                yield offset, line
            at, told = offset, line

    def _kind(self) -> tuple[Kind, int]:
        if self._count["tr"]:
            return "row", 0
        if self._verbatim():
            return "code", 0
        level = next((level for level, tag in enumerate(_HEADINGS, 1) if self._count[tag]), 0)
        return ("heading", level) if level else ("text", 0)

    def _grouped(self) -> bool:
        return any(self._count[tag] for tag in _GROUPS)

    def _verbatim(self) -> bool:
        return self._count["pre"] > 0 and not self._count["tr"]


def _squeeze(text: str) -> str:
    return _BREAK.sub("\n", re.sub(" +", " ", text)).strip().strip(BOM).strip()
