"""Lines and white space of a text, and how runs of lines become blocks."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from ragkit.documents.model import Block, Kind

BOM = "\ufeff"
_NEWLINE = re.compile(r"\r\n?|\n")


class Run(NamedTuple):
    """Lines `first` up to but not including `last` that make one block. Neighbours with equal `group` belong together."""

    first: int
    last: int
    kind: Kind = "text"
    level: int = 0
    title: str = ""
    group: int | None = None


def is_white(char: str) -> bool:
    """Whether a character may be left out at the ends of a block: white space or a byte order mark."""
    return char.isspace() or char == BOM


def trim(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without white space at its ends; an empty span where there is nothing else."""
    while start < end and is_white(text[end - 1]):
        end -= 1
    while start < end and is_white(text[start]):
        start += 1
    return start, end


def line_starts(text: str) -> list[int]:
    """Character offset of each line, and the text's length as the last entry. CR LF, lone CR and LF end a line."""
    starts = [0, *(match.end() for match in _NEWLINE.finditer(text))]
    return starts if starts[-1] == len(text) else [*starts, len(text)]


def stripped_lines(text: str, starts: list[int]) -> list[str]:
    """The lines that begin at `starts`, without white space at their ends and without byte order marks."""
    return [text[start:end].strip(BOM).rstrip() for start, end in pairwise(starts)]


def assemble(text: str, starts: list[int], runs: Iterable[Run]) -> tuple[Block, ...]:
    """Blocks for sorted runs that do not overlap; lines that no run claims become "text" blocks."""
    blocks: list[Block] = []
    group = 0
    previous: Run | None = None
    for run in _without_gaps(runs, len(starts) - 1):
        start, end = trim(text, starts[run.first], starts[run.last])
        if start == end:
            continue
        if run.kind == "code":
            start = _with_indent(text, starts, start)
        if previous is not None and (run.group is None or run.group != previous.group):
            group += 1
        blocks.append(Block(start, end, run.kind, run.level, group, run.title))
        previous = run
    return tuple(blocks)


def _without_gaps(runs: Iterable[Run], lines: int) -> Iterable[Run]:
    at, group = 0, None
    for run in runs:
        if run.first > at:
            yield Run(at, run.first, group=group if group == run.group else None)
        yield run
        at, group = run.last, run.group
    if at < lines:
        yield Run(at, lines)


def _with_indent(text: str, starts: list[int], start: int) -> int:
    line = starts[bisect_right(starts, start) - 1]
    return start if text[line:start].strip(" \t") else line
