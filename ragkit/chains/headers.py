"""What stands above a passage in a prompt: where it is from, each heading once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_MARKUP = re.compile(r"^[\W_]+|[\W_]+$")
_WORD = re.compile(r"\s*\w")


class Place(NamedTuple):
    """Where a passage is from: its source, how that is shown, and the headings (or the title) above the passage."""

    source: str
    shown: str
    headings: tuple[str, ...]

    @property
    def label(self) -> str:
        """Source and headings, on one line."""
        return _label(self.shown, self.headings)


def headers(places: Sequence[Place], kept: Sequence[Sequence[str]]) -> list[str]:
    """The line above each passage, in the order in which they are shown.

    A passage of the same section as the one before has an empty one. `kept` has the texts of each passage's first unit and of its
    headings, as far as they are shown: a heading that one of them begins with is not given again.
    """
    lines = []
    before: tuple[str, tuple[str, ...]] | None = None
    for place, texts in zip(places, kept, strict=True):
        section = (place.source, place.headings)
        missing = [heading for heading in place.headings if not any(_is_title(text, heading) for text in texts)]
        lines.append("" if section == before else _label(place.shown, missing))
        before = section
    return lines


def _label(source: str, headings: Iterable[str]) -> str:
    """Without line breaks and control characters, so that no name can pass for the beginning of another passage."""
    text = " > ".join((source, *headings))
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _is_title(text: str, heading: str) -> bool:
    """Whether the text is the heading, whatever its case and the markup around it."""
    said, named = _bare(text), _bare(heading)
    return bool(named) and said.startswith(named) and not _WORD.match(said, len(named))


def _bare(text: str) -> str:
    return " ".join(_MARKUP.sub("", text).casefold().split())
