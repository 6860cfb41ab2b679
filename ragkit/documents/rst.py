"""The block structure of reStructuredText."""

from __future__ import annotations

import re
from collections.abc import Iterator
from string import punctuation
from typing import NamedTuple

from ragkit.documents.lines import Run, assemble, line_starts, stripped_lines
from ragkit.documents.markdown import TITLE_LIMIT
from ragkit.documents.model import Block

_CODE_DIRECTIVES = frozenset(
    {
        *("code", "code-block", "sourcecode", "literalinclude", "parsed-literal", "highlight", "prompt", "console", "ipython"),
        *("doctest", "testcode", "testoutput", "testsetup", "math", "raw", "graphviz", "productionlist"),
    }
)
_DIRECTIVE = re.compile(r"\s*\.\. ([\w:+.-]+)::")
_EXPLICIT = re.compile(r"\s*\.\.(\s|$)")
_BULLET = re.compile(r"\s*[-*+•](\s+|$)")
_ITEM = re.compile(r"\s*([-*+•]|\(?(\d+|#|[A-Za-z])[.)])(\s+|$)")
_GRID = re.compile(r"\+([-=]+\+)+")
_SIMPLE = re.compile(r"=+( +=+)+")
_LINKED = re.compile(r"(?::[\w:.+-]+:)?`+([^`]*?)(?:\s*<[^<>`]*>)?`+_{0,2}")
_EMPHASIS = re.compile(r"(\*{1,2})(\S(?:[^*]*\S)?)\1")


class _Heading(NamedTuple):
    lines: int
    title: str
    style: tuple[str, bool]


def rst_blocks(text: str) -> tuple[Block, ...]:
    """Blocks of reStructuredText. A heading's level is the order in which its adornment style first appears."""
    starts = line_starts(text)
    return assemble(text, starts, _runs(stripped_lines(text, starts)))


def _runs(lines: list[str]) -> Iterator[Run]:
    styles: list[tuple[str, bool]] = []
    list_indent, list_group = -1, None
    at = 0
    while at < len(lines):
        first, line = at, lines[at]
        if not line:
            at += 1
            continue
        if heading := _heading(lines, at):
            if heading.style not in styles:
                styles.append(heading.style)
            at += heading.lines
            yield Run(first, at, "heading", styles.index(heading.style) + 1, heading.title)
            list_group = None
            continue
        indent = _indent(line)
        if _ITEM.match(line):
            if list_group is None or indent < list_indent:
                list_indent, list_group = indent, first
        elif list_group is not None and indent <= list_indent:
            list_group = None
        if rows := _table(lines, at):
            group = first if list_group is None else list_group
            yield from (Run(a, b, "row", group=group) for a, b in rows)
            at = rows[-1][1]
        elif _is_code(line):
            at = _indented(lines, at + 1, indent)
            yield Run(first, at, "code", group=list_group)
        elif line.lstrip().startswith(">>> "):
            at = _paragraph(lines, at)
            yield Run(first, at, "code", group=list_group)
        else:
            at = _paragraph(lines, at)
            yield Run(first, at, group=list_group)
            if lines[at - 1].endswith("::") and not _EXPLICIT.match(lines[at - 1]):
                literal, at = at, _indented(lines, at, _text_indent(lines[at - 1]))
                if at > literal:
                    yield Run(literal, at, "code", group=list_group)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _text_indent(line: str) -> int:
    match = _ITEM.match(line)
    return match.end() if match else _indent(line)


def _is_code(line: str) -> bool:
    match = _DIRECTIVE.match(line)
    return match is not None and match[1] in _CODE_DIRECTIVES


def _indented(lines: list[str], at: int, indent: int) -> int:
    """End of the lines from `at` on that are blank or indented by more than `indent`."""
    while at < len(lines) and (not lines[at] or _indent(lines[at]) > indent):
        at += 1
    return at


def _paragraph(lines: list[str], first: int) -> int:
    """End of the paragraph, list item or explicit markup that starts on line `first`."""
    indent = _indent(lines[first])
    item, explicit = _ITEM.match(lines[first]), _EXPLICIT.match(lines[first])
    at = first + 1
    while at < len(lines) and lines[at]:
        here = _indent(lines[at])
        if (item and here <= indent and _ITEM.match(lines[at])) or (explicit and here <= indent):
            break
        if explicit and _is_code(lines[at]):
            break
        at += 1
    return at


def _heading(lines: list[str], at: int) -> _Heading | None:
    line = lines[at]
    if _adornment(line):
        if at + 2 < len(lines) and lines[at + 2] == line and len(line) >= min(4, len(lines[at + 1])):
            title = lines[at + 1]
            return _Heading(3, _plain(title), (line[0], True)) if title and not _adornment(title) else None
        return None
    if line[0].isspace() or _EXPLICIT.match(line) or _BULLET.match(line) or at + 1 == len(lines):
        return None
    under = lines[at + 1]
    if _adornment(under) and len(under) >= min(4, len(line)):
        return _Heading(2, _plain(line), (under[0], False))
    return None


def _adornment(line: str) -> bool:
    return line[:1] in punctuation and bool(line) and line == line[0] * len(line)


def _plain(title: str) -> str:
    title = _EMPHASIS.sub(r"\2", _LINKED.sub(r"\1", title[:TITLE_LIMIT]))
    return " ".join(title.replace("\\", "").split())


def _table(lines: list[str], first: int) -> list[tuple[int, int]]:
    """Line ranges of the rows of the table that starts here; borders belong to the row above, the top one to the first."""
    border = lines[first].lstrip()
    if _GRID.fullmatch(border):
        return _grid_rows(lines, first)
    return _simple_rows(lines, first) if _SIMPLE.fullmatch(border) else []


def _grid_rows(lines: list[str], first: int) -> list[tuple[int, int]]:
    ends = []
    at = first + 1
    while at < len(lines) and lines[at].lstrip().startswith(("+", "|")):
        at += 1
        if _GRID.fullmatch(lines[at - 1].lstrip()):
            ends.append(at)
    return list(zip([first, *ends[:-1]], ends, strict=False)) if ends else []


def _simple_rows(lines: list[str], first: int) -> list[tuple[int, int]]:
    indent = _indent(lines[first])
    begins = [first]
    borders = 0
    filled = False
    for at in range(first + 1, len(lines)):
        line = lines[at]
        if _SIMPLE.fullmatch(line.lstrip()):
            borders += 1
            if borders == 2 or at + 1 == len(lines) or not lines[at + 1]:
                return list(zip(begins, [*begins[1:], at + 1], strict=True))
        elif line and _indent(line) <= indent and set(line) - {"-", " "}:
            # an empty first column continues the row above
            if filled:
                begins.append(at)
            filled = True
    return []
