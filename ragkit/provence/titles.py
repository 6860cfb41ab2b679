"""Titles: the one that a model reads before a passage, and the units of a passage that are no more than titles."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray

from ragkit.documents.model import Unit
from ragkit.documents.provenance import passage_text, provenance

_MARKUP = re.compile(r"[\W_]*")
_WORD = re.compile(r"\w")


def title_of(document: Document, units: Sequence[Unit]) -> str:
    """What goes before the passage: `metadata["title"]`, else its headings as a path, without what the passage itself shows.

    A passage shows a title by beginning with it, or in a heading, whatever its markup.
    """
    text = passage_text(document)
    shown = [text, *(text[unit.start : unit.end] for unit in units if unit.kind == "heading")]
    return " > ".join(name for name in _names(document) if not any(_after(place, name) is not None for place in shown))


def name_of(document: Document) -> str:
    """What other texts may call the document: its title, or its innermost heading."""
    return next(reversed(_names(document)), "")


def title_units(document: Document, units: Sequence[Unit]) -> NDArray[np.bool_]:
    """Which units only name what follows: headings, and a first unit that is the title."""
    titles = np.array([unit.kind == "heading" for unit in units], bool)
    if units:
        first = passage_text(document)[units[0].start : units[0].end]
        titles[0] |= any((rest := _after(first, name)) is not None and not _WORD.search(rest) for name in _names(document))
    return titles


def above_kept(titles: NDArray[np.bool_], keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The titles below which something else is kept: up to the next title, or anywhere for those that open the passage."""
    if not titles.any():
        return titles
    # titles that follow each other directly head the same units
    sections = np.cumsum(titles & ~np.append(False, titles[:-1]))
    content = keep & ~titles
    filled = np.bincount(sections, content) > 0
    if titles[0]:
        filled[sections[0]] = content.any()
    heads: NDArray[np.bool_] = titles & filled[sections]
    return heads


def _names(document: Document) -> tuple[str, ...]:
    title = document.metadata.get("title")
    return (title,) if isinstance(title, str) and title.strip() else provenance(document).headings


def _after(text: str, name: str) -> str | None:
    """What follows `name` in a text that begins with it, whatever its markup and letter case; None if it does not."""
    text, name = _MARKUP.sub("", text, count=1), _MARKUP.sub("", name, count=1)
    rest = text[len(name) :]
    return None if text[: len(name)].casefold() != name.casefold() or _WORD.match(rest) else rest
