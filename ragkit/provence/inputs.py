"""Windows to what ragkit's own network reads: token ids, marks, owners and lexical evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragkit.provence.company import PASSAGE_LINKS, UNIT_LINKS, Company, Links
from ragkit.provence.matching import PASSAGE_FEATURES, UNIT_FEATURES, Match, Words, edges_of, match, spans_at
from ragkit.provence.pair import PASSAGE, QUESTION, SPECIAL, TITLE, Pair, Window

_GRADES = np.array([0.35, 0.55, 0.75], np.float32)
_SIDE = 2 * (len(_GRADES) + 1)
_RARE = len(_GRADES) - 1  # the least grade of words that can link passages
_STRENGTHS = np.array([0.3, 0.6], np.float32)
_LEVELS = len(_STRENGTHS)
MARKS = 2 * _SIDE + 2 * _LEVELS + 1
"""Marks of a token: its side, whether the other side has its word, and how rare that is; for rare words of the passage that the
question does not have, how strongly they link it to another passage; one more for special tokens."""
_OTHER = MARKS - 1
UNIT_INPUTS, PASSAGE_INPUTS = UNIT_FEATURES + UNIT_LINKS, PASSAGE_FEATURES + PASSAGE_LINKS


class Row(NamedTuple):
    """One window as arrays, [tokens] but for the last two."""

    ids: NDArray[np.int64]
    marks: NDArray[np.int64]
    owners: NDArray[np.int64]
    """The unit in which a token lies; -1 for all but the passage's tokens, and for those between units."""
    units: NDArray[np.float32]
    """[units of the whole passage, UNIT_INPUTS]: see `matching.unit_evidence` and `company.Links`"""
    whole: NDArray[np.float32]
    """[PASSAGE_INPUTS]: see `matching.Match` and `company.Links`"""


def rows(windows: Sequence[Window], rarity: NDArray[np.float32] | None) -> list[Row]:
    """`rarity` is a table by bucket (`matching.rarity_of`); without one the network gets no lexical evidence."""
    known: dict[Pair, tuple[Match, Links]] = {}
    found = []
    for window in windows:
        pair = window.pair
        if rarity is not None and pair not in known:
            matched = match(pair.question, pair.title, pair.passage, pair.units, rarity)
            company = pair.company or Company([pair], rarity)
            known[pair] = matched, company.links(pair, matched.title, matched.passage)
        found.append(_row(window, known.get(pair), rarity))
    return found


def _row(window: Window, known: tuple[Match, Links] | None, rarity: NDArray[np.float32] | None) -> Row:
    units = window.pair.units
    owners = np.where(window.segments == PASSAGE, spans_at(window.starts, *edges_of(units)), -1)
    if known is None or rarity is None:
        marks = np.select([window.segments == SPECIAL, window.segments == QUESTION], [_OTHER, 0], _SIDE)
        evidence, whole = np.zeros((len(units), UNIT_INPUTS), np.float32), np.zeros(PASSAGE_INPUTS, np.float32)
    else:
        matched, links = known
        marks = marks_of(window, matched, links, rarity)
        evidence = np.concatenate([matched.units, links.units], 1)
        whole = np.concatenate([matched.whole, links.whole])
    return Row(window.ids, marks.astype(np.int64), owners, evidence, whole)


def marks_of(window: Window, matched: Match, links: Links, rarity: NDArray[np.float32]) -> NDArray[np.int64]:
    """The mark of each token, [tokens]: 8 * side + 4 * shared + grade of rarity; a token in no word is of grade 0, not shared.

    Tokens of words that link the passage to another have 16 + 2 * (grade - 2) + strength instead.
    """
    marks = np.full(len(window.ids), _OTHER, np.int64)
    none = np.zeros(len(matched.question.starts), np.float32)
    texts: tuple[tuple[int, Words, NDArray[np.float32]], ...] = (
        (QUESTION, matched.question, none),
        (TITLE, matched.title, links.title),
        (PASSAGE, matched.passage, links.passage),
    )
    for (segment, words, strengths), shared in zip(texts, matched.shared, strict=True):
        tokens = np.flatnonzero(window.segments == segment)
        side = 0 if segment == QUESTION else _SIDE
        at = spans_at(window.starts[tokens], words.starts, words.ends)
        its_marks = np.full(len(tokens), side, np.int64)
        if len(words.starts):
            rare = np.searchsorted(_GRADES, rarity[words.buckets])
            level = np.searchsorted(_STRENGTHS, strengths, side="right")
            plain = side + (len(_GRADES) + 1) * shared + rare
            linked = (level > 0) & (rare >= _RARE) & ~shared
            by_word = np.where(linked, 2 * _SIDE + _LEVELS * (rare - _RARE) + level - 1, plain)
            its_marks = np.where(at >= 0, by_word[at], side)
        marks[tokens] = its_marks
    return marks
