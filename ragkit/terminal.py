"""Text of others on a terminal: where it comes from, and without what could rewrite the screen."""

from __future__ import annotations

import os
import unicodedata

_KEPT = "\n\t\u200c\u200d"


def place(source: str, line: int | None, page: int | None) -> str:
    """How a citation is shown: the source, relative to the working directory if it lies below it, with its page or line."""
    shown = printable(short(source)).replace("\n", " ")
    if page is not None:
        return f"{shown}, page {page}"
    return shown if line is None else f"{shown}:{line}"


def short(path: str) -> str:
    """The path relative to the working directory if it lies below it."""
    if not os.path.isabs(path):
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def printable(text: str) -> str:
    """Without control characters, which could rewrite the terminal; spaces of every width and joiners of letters stay."""
    return "".join(char for char in text if char in _KEPT or char.isprintable() or unicodedata.category(char) == "Zs")
