"""From keep probabilities of tokens to scores of units, and from scores to a decision, in the three ways in use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ragkit.documents.model import Unit
from ragkit.indexes.base import Scores
from ragkit.provence.family import Rounding
from ragkit.provence.pair import Judged


def unit_scores(judged: Judged, units: Sequence[Unit], rounding: Rounding, threshold: float) -> Scores:
    """A score between 0 and 1 for each unit, [units]; `units` are sorted and do not overlap.

    "mean" is the mean keep probability of the unit's tokens, "vote" and "released" the share of them above `threshold`. A token
    belongs to the first unit that it shares a character with. A unit without tokens, made of characters that the tokenizer
    drops, scores as the lower one of its nearest neighbours that have some: it stays where the text around it stays; without
    neighbours it scores 0. A unit with a probability that is not a number has a score that is not one.
    """
    if not units:
        return np.empty(0)
    keep = judged.keep.astype(np.float64)
    values = keep if rounding == "mean" else np.where(np.isnan(keep), np.nan, keep > threshold)
    owners = _owners(judged, units)
    owned = owners >= 0
    counts = np.bincount(owners[owned], minlength=len(units))
    sums = np.bincount(owners[owned], values[owned], minlength=len(units))
    return _from_neighbours(sums / np.maximum(counts, 1), counts > 0)


def above(scores: Scores, rounding: Rounding, threshold: float) -> NDArray[np.bool_]:
    """Which units to keep: for "mean" (OpenProvence) those whose mean is above the threshold, for "vote" (the paper) those with
    more than half of their tokens above it, for "released" (Naver's code) those whose share of such tokens is above it, too.
    """
    return scores > (0.5 if rounding == "vote" else threshold)


def _owners(judged: Judged, units: Sequence[Unit]) -> NDArray[np.int64]:
    """The unit of each token, -1 for none."""
    starts, ends = np.array([unit[:2] for unit in units], np.int64).T
    candidates = np.searchsorted(ends, judged.starts, side="right")
    # an empty token stands for the character that it starts at
    reach = np.maximum(judged.ends, judged.starts + 1)
    return np.where(np.append(starts, np.iinfo(np.int64).max)[candidates] < reach, candidates, -1)


def _from_neighbours(scores: Scores, known: NDArray[np.bool_]) -> Scores:
    """`scores` [n] with the lower one of the nearest known scores on both sides where a score is not `known`."""
    places = np.arange(len(scores))
    before = np.maximum.accumulate(np.where(known, places, -1))
    after = np.minimum.accumulate(np.where(known, places, len(scores))[::-1])[::-1]
    # a missing neighbour is no reason against
    padded = np.concatenate([scores, [np.inf, np.inf]])
    filled: Scores = np.minimum(padded[after], padded[before])
    return np.where(np.isinf(filled), 0.0, filled)
