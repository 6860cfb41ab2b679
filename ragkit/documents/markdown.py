"""The block structure of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from ragkit.documents.lines import BOM, Run, assemble, line_starts
from ragkit.documents.model import Block, Kind

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_ATTRIBUTES = re.compile(r"\s*\{\s*[#.:][^{}]*\}$")
_MARKUP = re.compile(r"[`*_\\<&!\[]")
_FRONT_MATTER_TITLE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_LISTS = ("bullet_list", "ordered_list")
_LEAVES: dict[str, Kind] = {
    "heading_open": "text",
    "paragraph_open": "text",
    "html_block": "text",
    "fence": "code",
    "code_block": "code",
    "tr_open": "row",
}
TITLE_LIMIT = 300
"""Longest title in characters: it is repeated in the metadata of every passage below it."""


def markdown_blocks(text: str) -> tuple[Block, ...]:
    """Blocks of CommonMark with tables. Front matter is code; only headings outside of lists and quotes open sections."""
    starts = line_starts(text)
    front = _front_matter(text, starts)
    runs = [Run(0, front, "code")] if front else []
    body = text[starts[front] :] if front else text.removeprefix(BOM)
    runs.extend(_runs(_parser().parse(body), front))
    return assemble(text, starts, runs)


def front_matter_title(text: str) -> str:
    """The `title:` of YAML front matter at the top of a Markdown text, or an empty string."""
    starts = line_starts(text)
    match = _FRONT_MATTER_TITLE.search(text[: starts[_front_matter(text, starts)]].replace("\r", "\n"))
    return match[1].strip("\"'")[:TITLE_LIMIT] if match else ""


def _front_matter(text: str, starts: list[int]) -> int:
    """Number of lines of the front matter, 0 if there is none."""
    lines = (text[a:b].removeprefix(BOM).rstrip() for a, b in pairwise(starts))
    if next(lines, "") != "---":
        return 0
    return next((at for at, line in enumerate(lines, 2) if line in ("---", "...")), 0)


@cache
def _parser() -> MarkdownIt:
    """Block structure only. Reference definitions stay paragraphs, so that no line is swallowed."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table").disable(["inline", "text_join", "reference"])


@cache
def _inline_parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark")


def _runs(tokens: Sequence[Token], shift: int) -> Iterator[Run]:
    lists = 0
    group: int | None = None
    marker: int | None = None
    header = False
    at = 0
    for index, token in enumerate(tokens):
        name, _, side = token.type.rpartition("_")
        if name in _LISTS:
            lists += 1 if side == "open" else -1
            if lists == 0:
                group = None
            elif lists == 1 and side == "open":
                group = index
        elif name == "table" and not lists:
            group = index if side == "open" else None
        elif name == "thead":
            header = side == "open"
        elif token.type == "list_item_open" and token.map and marker is None:
            marker = token.map[0]
        elif token.type in _LEAVES and token.map:
            first, last = token.map
            # an item's marker may stand alone on the line before its text
            first = max(at, first if marker is None else min(first, marker))
            marker = None
            if token.type == "heading_open" and token.level == 0:
                yield Run(first + shift, last + shift, "heading", int(token.tag[1]), _title(tokens[index + 1].content))
            else:
                # the delimiter line below a table's header has no token
                last += header
                yield Run(first + shift, last + shift, _LEAVES[token.type], group=group)
            at = last


def _title(markup: str) -> str:
    markup = _ATTRIBUTES.sub("", markup[:TITLE_LIMIT].strip())
    if not _MARKUP.search(markup):
        return " ".join(markup.split())
    children = _inline_parser().parseInline(markup)[0].children or []
    plain = "".join(" " if "break" in child.type else child.content for child in children if child.type != "html_inline")
    return " ".join(plain.split())
