"""Documents ranked by the scores of their passages, as pure functions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError
from ragkit.indexes.base import Ranking

Aggregation = Literal["max", "first", "sum", "mean"]
Place = tuple[int, int]
"""Where a passage is in its document: its start in the source, if it has one, and its position."""


class Group(NamedTuple):
    """What belongs together: its score, and which hits of the ranking [n] it has, best first."""

    score: float
    hits: NDArray[np.int64]


def aggregate(scores: NDArray[np.floating[Any]], places: Sequence[Place], how: Aggregation, best: int) -> float:
    """The score of a document by those of its passages [n], n > 0, best first; `places` [n] are where in the document they are.

    "max" is the best one, "first" that of the passage which stands first, "sum" the sum (Dai and Callan, "Deeper Text
    Understanding for IR with Contextual Neural Language Modeling", SIGIR 2019), "mean" the mean of the `best` ones, or of all if
    there are fewer. With inner products the mean of all is also the score of the mean of the passages' vectors, as in PARADE with
    average pooling (Li et al., 2020, arXiv:2008.09093). Raises `InputError` for another `how`.
    """
    if how == "max":
        return float(scores[0])
    if how == "first":
        return float(scores[places.index(min(places))])
    if how == "sum":
        return float(scores.sum())
    if how == "mean":
        return float(scores[:best].mean())
    raise InputError(f"aggregation: {how!r} is not one of {', '.join(get_args(Aggregation))}")


def grouped(ranking: Ranking, keys: Sequence[Hashable], places: Sequence[Place], how: Aggregation, best: int) -> list[Group]:
    """Hits with equal keys as one group, the best group first, by `aggregate`; of equal ones the one found first is first.

    `keys` and `places` have one entry for each hit.
    """
    rows: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    groups = [
        Group(aggregate(ranking.scores[hits], [places[row] for row in hits], how, best), np.array(hits, np.int64))
        for hits in rows.values()
    ]
    return sorted(groups, key=lambda group: -group.score)
