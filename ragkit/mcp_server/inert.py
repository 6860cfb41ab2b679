"""Text of documents on its way into an agent's context: it is quoted there, so it is made to read as nothing but a quotation."""

from __future__ import annotations

import re

from ragkit.quoting import quoted

# control characters, overrides of the direction of writing, and tag characters, which people do not see and models read
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_LONGEST_LABEL = 500


def inert(text: str) -> str:
    """The text without what reads as a citation or a chat template's token (`quoted`), and without characters nobody sees."""
    return quoted(_SURROGATES.sub("\ufffd", _UNSEEN.sub("", text)))


def inert_label(text: str) -> str:
    """A name, a path or a heading in the same way, on one line of at most 500 characters."""
    return inert(" ".join(text.split()))[:_LONGEST_LABEL]


class Allowance:
    """How many characters of documents a reply may still have."""

    def __init__(self, characters: int) -> None:
        self.left = characters

    def take(self, text: str) -> tuple[str, bool]:
        """As much of the text, made inert, as there is room for, and whether that is not all of it."""
        whole = inert(text)
        taken = whole[: self.left]
        self.left -= len(taken)
        return taken, len(taken) < len(whole)
