"""Sources to passages: as much as fits, never across sections, never through a sentence, table or list that fits whole."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, NamedTuple, Self

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray

from ragkit.documents.lines import line_starts, trim
from ragkit.documents.model import Block, Mark, Source, Unit
from ragkit.documents.provenance import Provenance, content_id, with_provenance
from ragkit.documents.sentences import units
from ragkit.documents.tokens import Tokenizer
from ragkit.errors import InputError

_BATCH = 4096
_MIN_SIZE = 8


@dataclass(frozen=True)
class SplitSettings:
    """How files become passages. `size` and `overlap` count tokens, `language` is an ISO 639-1 code for sentence boundaries, and
    `text_field` the field of a JSON record that holds its text. Raises `InputError` for sizes that do not go together.
    """

    size: int = 200
    overlap: int = 0
    language: str = "en"
    text_field: str = "text"

    def __post_init__(self) -> None:
        check_sizes(self.size, self.overlap)

    @classmethod
    def of(cls, *layers: Mapping[str, Any]) -> Self:
        """Settings from mappings, later ones first; None leaves a setting to the others."""
        return cls(**{name: value for layer in layers for name, value in layer.items() if value is not None})


class _Section(NamedTuple):
    path: tuple[str, ...]
    level: int
    headings: list[Block]
    body: list[Block]


@dataclass
class _Passage:
    start: int
    end: int
    section: _Section
    path: tuple[str, ...]
    """The headings above all of it."""
    whole: bool = False
    """Whether it holds its section from the first to the last character."""


def split(source: Source, tokenizer: Tokenizer, *, size: int = 200, overlap: int = 0, language: str = "en") -> list[Document]:
    """Passages of at most `size` tokens whose text is an exact slice of the source; see `Provenance` for what they carry.

    A heading stays with what follows it. Tables and lists stay whole if they fit, else they are cut between rows or items,
    then between sentences or code lines, then at white space, at last between tokens. Up to `overlap` tokens of whole units
    are repeated from the passage before in the same section. Tokens are counted block by block; where a tokenizer counts a
    whole text differently from its parts, or a word is cut, a passage may be a few tokens over.

    Raises `InputError` if `size` is below 8 or `overlap` is negative or not below half of `size`.
    """
    check_sizes(size, overlap)
    splitter = _Splitter(source, tokenizer, size, overlap, units(source.text, source.blocks, language))
    return list(_documents(source, splitter.passages(), splitter.units))


def check_sizes(size: int, overlap: int) -> None:
    """Raise `InputError` unless passages of `size` tokens with `overlap` can be made."""
    for field, value in (("size", size), ("overlap", overlap)):
        if not isinstance(value, int):
            raise InputError(f"{field} must be a whole number of tokens, not {value!r}")
    if size < _MIN_SIZE:
        raise InputError(f"size must be at least {_MIN_SIZE} tokens, not {size}")
    if not 0 <= overlap < size // 2:
        raise InputError(f"overlap must be from 0 to below half of size ({size // 2} tokens), not {overlap}")


class _Splitter:
    def __init__(self, source: Source, tokenizer: Tokenizer, size: int, overlap: int, all_units: tuple[Unit, ...]) -> None:
        self.text = source.text
        self.blocks = source.blocks
        self.size = size
        self.overlap = overlap
        self.units = all_units
        self._starts = _token_starts(source, tokenizer)

    def passages(self) -> list[_Passage]:
        done: list[_Passage] = []
        for section in _sections(self.blocks):
            packed = self._pack(section)
            packed[0].whole = len(packed) == 1
            if done and self._joins(done[-1], packed[0]):
                short = done.pop()
                packed[0].start, packed[0].path = short.start, short.path
            done.extend(packed)
        return done

    def _joins(self, short: _Passage, following: _Passage) -> bool:
        """Whether a short section goes into the first passage of the subsection below it."""
        return (
            short.whole
            and following.section.level > short.section.level
            and self._count(short.start, short.end) < self.size / 4
            and self._count(short.start, following.end) <= self.size
        )

    def _pack(self, section: _Section) -> list[_Passage]:
        passages: list[_Passage] = []
        for start, end in self._pieces(section):
            if passages and self._count(passages[-1].start, end) <= self.size:
                passages[-1].end = end
            else:
                begin = self._overlap_start(passages[-1], start, end) if passages and self.overlap else start
                passages.append(_Passage(begin, end, section, section.path))
        return passages

    def _overlap_start(self, before: _Passage, start: int, end: int) -> int:
        """Where the passage that holds `start` to `end` begins once it repeats the last units of the one before."""
        begin = start
        at = bisect_left(self.units, start, key=lambda unit: unit.start) - 1
        while at >= 0 and before.start < self.units[at].start and self.units[at].end <= before.end:
            candidate = self.units[at].start
            if self._count(candidate, start) > self.overlap or self._count(candidate, end) > self.size:
                break
            begin = candidate
            at -= 1
        return begin

    def _pieces(self, section: _Section) -> Iterator[tuple[int, int]]:
        """Spans that are not cut any further: headings, then what fits of groups, blocks, units, lines, words."""
        room = self.size
        if section.headings:
            head = (section.headings[0].start, section.headings[-1].end)
            yield from self._fitting([head], 1, self.size)
            # what follows a heading is made to fit beside it
            room = max(self.size - self._count(*head), self.size // 2)
        groups = [list(blocks) for _, blocks in groupby(section.body, key=lambda block: block.group)]
        for blocks in groups:
            span = (blocks[0].start, blocks[-1].end)
            if self._count(*span) <= room:
                yield span
            else:
                for block in blocks:
                    yield from self._fitting([block[:2]], 0 if block.kind == "text" else 1, room)
                    room = self.size
            room = self.size

    def _fitting(self, spans: Iterable[tuple[int, int]], depth: int, room: int) -> Iterator[tuple[int, int]]:
        """The spans, cut finer and finer until the first has at most `room` tokens and the others at most `size`."""
        cutters = (self._sentences, self._lines, self._words)
        for start, end in spans:
            if self._count(start, end) <= room:
                yield start, end
            elif cutters[depth] == self._words:
                yield from self._words(start, end, room)
            else:
                yield from self._fitting(cutters[depth](start, end, room), depth + 1, room)
            room = self.size

    def _sentences(self, start: int, end: int, room: int) -> Iterator[tuple[int, int]]:
        first = bisect_left(self.units, start, key=lambda unit: unit.start)
        last = bisect_left(self.units, end, key=lambda unit: unit.start)
        return ((unit.start, unit.end) for unit in self.units[first:last])

    def _lines(self, start: int, end: int, room: int) -> Iterator[tuple[int, int]]:
        starts = line_starts(self.text[start:end])
        for a, b in pairwise(starts):
            trimmed, stop = trim(self.text, start + a, start + b)
            if trimmed < stop:
                # the indentation of code belongs to it
                yield start + a, stop

    def _words(self, start: int, end: int, room: int) -> Iterator[tuple[int, int]]:
        while self._count(start, end) > room:
            cut = self._cut(start, end, room)
            a, b = trim(self.text, start, cut)
            if a < b:
                yield a, b
            start, room = cut, self.size
        a, b = trim(self.text, start, end)
        if a < b:
            yield a, b

    def _cut(self, start: int, end: int, room: int) -> int:
        """Offset behind `start` with at most `room` tokens before it: after white space, else where a token starts."""
        first, behind = np.searchsorted(self._starts, start), np.searchsorted(self._starts, start, side="right")
        # a tokenizer may start more than `room` tokens at one character
        after = max(int(first) + room, int(behind))
        at = min(int(self._starts[after]), end) if after < len(self._starts) else end
        window = self.text[start:at]
        word = 0 if window[-1].isspace() else len(window.rsplit(None, 1)[-1])
        return at - word if word < len(window.lstrip()) else at

    def _count(self, start: int, end: int) -> int:
        first, last = np.searchsorted(self._starts, (start, end))
        return int(last - first)


def _token_starts(source: Source, tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Where each token of the source starts, block by block."""
    found = [np.empty(0, np.int64)]
    for at in range(0, len(source.blocks), _BATCH):
        batch = source.blocks[at : at + _BATCH]
        starts = tokenizer.starts([source.text[block.start : block.end] for block in batch])
        found.extend(block.start + offsets for block, offsets in zip(batch, starts, strict=True))
    return np.concatenate(found)


def _sections(blocks: Sequence[Block]) -> Iterator[_Section]:
    """Sections in order; headings that follow each other directly open one section."""
    stack: list[Block] = []
    section = _Section((), 0, [], [])
    for block in blocks:
        if block.kind != "heading":
            section.body.append(block)
            continue
        while stack and stack[-1].level >= block.level:
            stack.pop()
        stack.append(block)
        if section.body:
            yield section
            section = _Section((), 0, [], [])
        section.headings.append(block)
        path = tuple(heading.title for heading in stack if heading.title)
        section = section._replace(path=path, level=block.level)
    if section.headings or section.body:
        yield section


def _documents(source: Source, passages: Sequence[_Passage], all_units: tuple[Unit, ...]) -> Iterator[Document]:
    newlines = [match.start() for match in re.finditer("\n", source.text)]
    seen: Counter[str] = Counter()
    for start, end, path in ((passage.start, passage.end, passage.path) for passage in passages):
        text = source.text[start:end]
        extra = {"title": source.title} if source.title else {}
        headings = {"headings": list(path)} if path else {}
        document = Document(
            id=content_id(source.name, text, seen[text]),
            page_content=text,
            metadata={"source": source.name, **extra, **headings, **source.metadata},
        )
        seen[text] += 1
        record = Provenance(
            source=source.name,
            start=start,
            end=end,
            headings=path,
            lines=_marks(source.lines, start, end, newlines),
            pages=_marks(source.pages, start, end, []),
            units=_clipped(source.text, all_units, start, end),
        )
        yield with_provenance(document, record)


def _marks(marks: tuple[Mark, ...], start: int, end: int, newlines: list[int]) -> tuple[Mark, ...]:
    """The marks of a passage, counted from its start; the first says where the passage itself begins."""
    first = bisect_right(marks, start, key=lambda mark: mark.offset)
    last = bisect_left(marks, end, key=lambda mark: mark.offset)
    inside = tuple(Mark(mark.offset - start, mark.number) for mark in marks[first:last])
    if not first:
        return inside
    passed = bisect_left(newlines, start) - bisect_left(newlines, marks[first - 1].offset)
    return (Mark(0, marks[first - 1].number + passed), *inside)


def _clipped(text: str, all_units: tuple[Unit, ...], start: int, end: int) -> tuple[Unit, ...]:
    first = bisect_right(all_units, start, key=lambda unit: unit.end)
    last = bisect_left(all_units, end, key=lambda unit: unit.start)
    spans = ((trim(text, max(unit.start, start), min(unit.end, end)), unit.kind) for unit in all_units[first:last])
    return tuple(Unit(a - start, b - start, kind) for (a, b), kind in spans if a < b)
