"""What a better passage says already need not be said again: near-duplicates stand behind all other passages."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

from langchain_core.documents import Document
from pydantic import Field

from ragkit.documents.provenance import passage_text
from ragkit.encoders.lexical import words
from ragkit.rerankers.behind import BehindReranker

_SHINGLE = 4
"""Words."""
# soft hyphens, joiners and other characters without a shape, which would tear words apart
_SHAPELESS = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e007f]"
)


class DuplicateReranker(BehindReranker):
    """Moves passages that add hardly anything to a better one behind the others: `retriever >> DuplicateReranker()`.

    A passage is a duplicate if one better-ranked passage that stays has at least `threshold` of its shingles, its runs of four
    words (the containment of Broder, "On the resemblance and containment of documents", 1997). A longer passage that repeats a
    shorter, better one and goes on is none. Case, punctuation and characters without a shape do not count; of scripts without
    spaces, characters are words. Time grows with the text given, and with the number of passages that share a shingle.
    """

    threshold: float = Field(default=0.8, gt=0, le=1)
    """The share of a passage's shingles from which it counts as said."""

    @property
    def stage(self) -> str:
        """See `Reranker.stage`."""
        return "duplicates"

    def to_move(self, documents: Sequence[Document]) -> Mapping[int, str]:
        """See `BehindReranker.to_move`."""
        found = repeats([passage_text(document) for document in documents], self.threshold)
        return {at: f"{said.share:.0%} of it is in {documents[said.by].id}" for at, said in found.items()}


class Said(NamedTuple):
    """Where a text has been said before."""

    by: int
    """The place of the earlier text that has most of it."""
    share: float
    """How much of it, from 0 to 1."""


def repeats(texts: Sequence[str], threshold: float) -> dict[int, Said]:
    """The places of texts of which an earlier one that is no repeat itself has at least `threshold`, and which one that is.

    An earlier text that is equal has all of it, also where there are no words.
    """
    having: defaultdict[Hashable, list[int]] = defaultdict(list)
    found = {}
    for at, text in enumerate(texts):
        its = _shingles(text)
        shared = Counter(by for shingle in its for by in having[shingle])
        by, most = min(shared.items(), key=lambda item: (-item[1], item[0]), default=(-1, 0))
        if most >= threshold * len(its):
            found[at] = Said(by, most / len(its))
        else:
            for shingle in its:
                having[shingle].append(at)
    return found


def _shingles(text: str) -> set[Hashable]:
    said = words(_SHAPELESS.sub("", text), "english")
    if not said:
        return {text}
    size = min(_SHINGLE, len(said))
    return {tuple(said[at : at + size]) for at in range(len(said) - size + 1)}
