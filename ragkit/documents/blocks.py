"""The block structure of texts: Markdown, reStructuredText and plain text.

Every parser returns blocks that are sorted, do not overlap and together hold every character that is not white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ragkit.documents.lines import Run, assemble, line_starts, stripped_lines
from ragkit.documents.markdown import markdown_blocks
from ragkit.documents.model import Block
from ragkit.documents.rst import rst_blocks

__all__ = ["markdown_blocks", "rst_blocks", "text_blocks"]

_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})([^`]*)$")
_DELIMITER_CELL = re.compile(r":?-+:?")


def text_blocks(text: str) -> tuple[Block, ...]:
    """Blocks of plain text: paragraphs between blank lines, fenced code, and pipe tables that have a delimiter row."""
    starts = line_starts(text)
    return assemble(text, starts, _runs(stripped_lines(text, starts)))


def _runs(lines: list[str]) -> Iterator[Run]:
    fences = _fences(lines)
    at = 0
    while at < len(lines):
        first, at = at, at + 1
        if not lines[first]:
            continue
        if first in fences:
            at = fences[first]
            yield Run(first, at, "code")
        elif _opens_table(lines, first):
            at = first + 2
            while at < len(lines) and "|" in lines[at] and at not in fences:
                at += 1
            # the delimiter row belongs to the header row
            yield Run(first, first + 2, "row", group=first)
            yield from (Run(row, row + 1, "row", group=first) for row in range(first + 2, at))
        else:
            while at < len(lines) and lines[at] and at not in fences and not _opens_table(lines, at):
                at += 1
            yield Run(first, at)


def _fences(lines: list[str]) -> dict[int, int]:
    """First line to end of each fenced block. A fence that is never closed is none: in plain text it is decoration."""
    marks = [(at, match[1], match[2]) for at, line in enumerate(lines) if (match := _FENCE.match(line))]
    unclosed: dict[str, int] = {}
    found: dict[int, int] = {}
    at = 0
    while at < len(marks):
        line, fence, _ = marks[at]
        at += 1
        if len(fence) >= unclosed.get(fence[0], len(fence) + 1):
            continue
        close = next((i for i in range(at, len(marks)) if _closes(fence, marks[i][1], marks[i][2])), None)
        if close is None:
            unclosed[fence[0]] = len(fence)
        else:
            found[line] = marks[close][0] + 1
            at = close + 1
    return found


def _closes(opening: str, fence: str, rest: str) -> bool:
    return fence.startswith(opening) and not rest


def _opens_table(lines: list[str], at: int) -> bool:
    return "|" in lines[at] and at + 1 < len(lines) and _is_delimiter(lines[at + 1])


def _is_delimiter(line: str) -> bool:
    if "|" not in line or "-" not in line:
        return False
    cells = line.strip().removeprefix("|").removesuffix("|").split("|")
    return all(_DELIMITER_CELL.fullmatch(cell.strip()) for cell in cells)
