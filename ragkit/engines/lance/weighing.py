"""Scores of passages from the terms that they share with a question, as pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragkit.indexes.base import Ranking, empty_ranking, top_k

Wanted = tuple[NDArray[np.int64], NDArray[np.float64]]
"""A question: its terms [t], ascending, each once, and what the worth of each in a passage is multiplied with [t]."""


class Passages(NamedTuple):
    """Passage i is at `positions[i]` and has `terms[starts[i]:starts[i + 1]]`, each of which is worth `worths` there."""

    positions: NDArray[np.int64]
    starts: NDArray[np.int64]
    terms: NDArray[np.int64]
    worths: NDArray[np.float64]


def best(passages: Passages, questions: Sequence[Wanted], k: int) -> list[Ranking]:
    """For each question the `k` passages with the highest sum of products over shared terms, of those that share one."""
    count = len(passages.positions)
    known = np.unique(np.concatenate([np.empty(0, np.int64), *(terms for terms, _ in questions)]))
    if not len(known) or not count:
        return [empty_ranking() for _ in questions]
    place = np.minimum(np.searchsorted(known, passages.terms), len(known) - 1)
    shared = np.flatnonzero(known[place] == passages.terms)
    place, worths = place[shared], passages.worths[shared]
    owners = np.searchsorted(passages.starts, shared, side="right") - 1
    rankings = []
    for terms, weights in questions:
        own = np.zeros(len(known), np.bool_)
        factor = np.zeros(len(known))
        at = np.searchsorted(known, terms)
        own[at], factor[at] = True, weights
        mine = own[place]
        scores = np.bincount(owners[mine], factor[place[mine]] * worths[mine], count).astype(np.float64)
        hits = np.flatnonzero(np.bincount(owners[mine], minlength=count))
        rankings.append(top_k(passages.positions[hits], scores[hits], k))
    return rankings


def merge(first: Ranking, second: Ranking, k: int) -> Ranking:
    """The best `k` of two rankings of different passages."""
    return top_k(np.append(first.positions, second.positions), np.append(first.scores, second.scores), k)
