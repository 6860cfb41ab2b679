"""The plain data that the documents room produces: sources, blocks and units, all as character offsets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Kind = Literal["text", "heading", "code", "row"]


class Unit(NamedTuple):
    """The smallest piece that is kept or dropped as a whole: a sentence, a heading, a code block, a table row.

    `start` and `end` are character offsets into the text the unit belongs to, trimmed of white space at both ends.
    """

    start: int
    end: int
    kind: Kind = "text"


class Block(NamedTuple):
    """A run of lines of one structural kind: paragraph or list item ("text"), heading, code block, table row.

    `start` and `end` are character offsets into the source text. `level` is the depth of a heading (1 is the top), else 0.
    Blocks with the same `group` belong to one table, one list or one paragraph and are kept together where size allows.
    """

    start: int
    end: int
    kind: Kind = "text"
    level: int = 0
    group: int = 0
    title: str = ""
    """The heading's plain text, without markup; empty for other kinds."""


class Mark(NamedTuple):
    """From character `offset` on, the text comes from this 1-based line or page of the original file."""

    offset: int
    number: int


@dataclass(frozen=True)
class Source:
    """One decoded text, to which every offset of its passages refers.

    For txt, md and rst `text` is the decoded file, byte for byte (no newline translation). For html, pdf and JSON records it
    is the extracted text; `lines` or `pages` then lead back to the place in the file.
    """

    name: str
    """What citations show: the absolute path of the file, with `#record` appended for a JSON record."""
    file: str
    """The absolute path of the file the text came from."""
    text: str
    blocks: tuple[Block, ...]
    title: str = ""
    lines: tuple[Mark, ...] = (Mark(0, 1),)
    """Where lines of the original file begin; between two marks each newline counts one line. Empty if there are none (PDF)."""
    pages: tuple[Mark, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Skipped:
    """A file that could not be read, and why."""

    path: str
    reason: str
