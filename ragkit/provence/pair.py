"""What flows through a Provence model: pairs of question and passage, windows of tokens, and what the network says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ragkit.documents.model import Unit

if TYPE_CHECKING:
    from ragkit.provence.company import Company

SPECIAL, QUESTION, TITLE, PASSAGE = range(4)
"""What a token of a window belongs to."""


class Pair(NamedTuple):
    """A question and a passage; `units` are the passage's sentences as character offsets, `title` goes before the passage."""

    question: str
    passage: str
    units: tuple[Unit, ...]
    title: str = ""
    name: str = ""
    """What other passages may call this one: its title or innermost heading, also where the passage shows it."""
    company: Company | None = None
    """The passages that were found with it, for networks that look at them."""


class Window(NamedTuple):
    """A run of tokens that fits the model: the question, and all or part of the passage. Arrays are as long as the run."""

    pair: Pair
    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    """The tokenizer's segment ids."""
    segments: NDArray[np.int8]
    """SPECIAL, QUESTION, TITLE or PASSAGE."""
    starts: NDArray[np.int64]
    """Character offsets into the pair's question, title or passage, whichever the token belongs to; 0 for special tokens."""
    ends: NDArray[np.int64]


class Logits(NamedTuple):
    """What a network says of n windows."""

    rank: NDArray[np.float64]
    """Relevance of each window, [n], before any activation."""
    keep: list[NDArray[np.float32]]
    """For each window the probability that a token is worth keeping, [tokens]."""


class Network(Protocol):
    """A transformer with a ranking head and a pruning head."""

    def accompany(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Pairs of one question, found together, with what the network needs to know of their company; most need nothing."""
        ...

    def __call__(self, windows: Sequence[Window]) -> Logits:
        """One forward pass; windows of similar length waste the least."""
        ...


class Judged(NamedTuple):
    """A passage's score and the keep probability of each of its tokens, in order, each character in one token at most."""

    score: float
    keep: NDArray[np.float32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
