"""Windows to what ragkit's own network reads: token ids, marks, owners and lexical evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragkit.provence.matching import PASSAGE_FEATURES, UNIT_FEATURES, Match, Words, match
from ragkit.provence.pair import PASSAGE, QUESTION, SPECIAL, TITLE, Pair, Window

_GRADES = np.array([0.35, 0.55, 0.75], np.float32)
MARKS = 2 * 2 * (len(_GRADES) + 1) + 1
"""Marks of a token: its side, whether the other side has its word, how rare that is; one more for special tokens."""
_OTHER = MARKS - 1


class Row(NamedTuple):
    """One window as arrays, [tokens] but for the last two."""

    ids: NDArray[np.int64]
    marks: NDArray[np.int64]
    owners: NDArray[np.int64]
    """The unit in which a token lies; -1 for all but the passage's tokens, and for those between units."""
    units: NDArray[np.float32]
    """[units of the whole passage, UNIT_FEATURES]"""
    whole: NDArray[np.float32]
    """[PASSAGE_FEATURES]"""


def rows(windows: Sequence[Window], rarity: NDArray[np.float32] | None) -> list[Row]:
    """`rarity` is a table by bucket (`matching.rarity_of`); without one the network gets no lexical evidence."""
    matches: dict[Pair, Match] = {}
    found = []
    for window in windows:
        pair = window.pair
        if rarity is not None and pair not in matches:
            matches[pair] = match(pair.question, pair.title, pair.passage, pair.units, rarity)
        found.append(_row(window, matches.get(pair), rarity))
    return found


def _row(window: Window, matched: Match | None, rarity: NDArray[np.float32] | None) -> Row:
    units = np.array([(unit.start, unit.end) for unit in window.pair.units], np.int64).reshape(-1, 2)
    lies, at = _among(window.starts, units[:, 0], units[:, 1])
    owners = np.where((window.segments == PASSAGE) & lies, at, -1)
    if matched is None or rarity is None:
        marks = np.select([window.segments == SPECIAL, window.segments == QUESTION], [_OTHER, 0], _OTHER // 2)
        evidence, whole = np.zeros((len(units), UNIT_FEATURES), np.float32), np.zeros(PASSAGE_FEATURES, np.float32)
    else:
        marks = marks_of(window, matched, rarity)
        evidence, whole = matched.units, matched.whole
    return Row(window.ids, marks.astype(np.int64), owners, evidence, whole)


def marks_of(window: Window, matched: Match, rarity: NDArray[np.float32]) -> NDArray[np.int64]:
    """The mark of each token, [tokens]: 8 * side + 4 * shared + grade of rarity; a token in no word is of grade 0, not shared."""
    marks = np.full(len(window.ids), _OTHER, np.int64)
    texts: tuple[tuple[int, Words], ...] = ((QUESTION, matched.question), (TITLE, matched.title), (PASSAGE, matched.passage))
    for (segment, words), shared in zip(texts, matched.shared, strict=True):
        tokens = np.flatnonzero(window.segments == segment)
        side = 0 if segment == QUESTION else _OTHER // 2
        lies, at = _among(window.starts[tokens], words.starts, words.ends)
        grades = np.zeros(len(tokens), np.int64)
        if len(words.starts):
            rare = np.searchsorted(_GRADES, rarity[words.buckets])
            grades = np.where(lies, (len(_GRADES) + 1) * shared[at] + rare[at], 0)
        marks[tokens] = side + grades
    return marks


def _among(
    places: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """For each place whether it lies in one of the sorted spans, and in which."""
    if not len(starts):
        return np.zeros(len(places), bool), np.zeros(len(places), np.int64)
    at = np.searchsorted(starts, places, side="right") - 1
    lies = (at >= 0) & (places < ends[np.maximum(at, 0)])
    return lies, np.maximum(at, 0)
