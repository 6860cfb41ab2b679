"""From passages that a first search has found to others that they lead to: rankings as pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ragkit.indexes.base import Positions, Ranking, top_k
from ragkit.retrievers.fusion import normalise


class Bridge(NamedTuple):
    """A passage of the first search, and what it leads to."""

    position: int
    weight: float
    """What following it is worth, from 0 to 1."""
    found: Ranking
    """By its rare words."""
    named: Mapping[int, float]
    """Passages that it names, each with the rarity of their names, from 0 to 1."""


def follow(first: Ranking, bridges: Sequence[Bridge], words: float, names: float) -> Ranking:
    """What the bridges lead to, with a score from 0 to `words + names` for each passage, best first.

    A bridge counts as much as its weight and its score in the first search say, this brought to a scale from 0 to 1 over all
    that was found. Through it, a passage has `words` times its score by the bridge's words, relative to the best, plus `names`
    times the rarity of its name; its best bridge counts, and none leads to itself.
    """
    strengths = dict(zip(first.positions.tolist(), normalise(first.scores, "min-max").tolist(), strict=True))
    gains: dict[int, float] = {}
    for bridge in bridges:
        led: dict[int, float] = {}
        strength = bridge.weight * strengths[bridge.position]
        others = bridge.found.positions != bridge.position
        positions, scores = bridge.found.positions[others], bridge.found.scores[others]
        for position, score in zip(positions.tolist(), scores.tolist(), strict=True):
            led[position] = words * score / float(scores[0]) if scores[0] > 0 else 0.0
        for position, rarity in bridge.named.items():
            if position != bridge.position:
                led[position] = led.get(position, 0.0) + names * rarity
        for position, value in led.items():
            gains[position] = max(gains.get(position, 0.0), strength * value)
    gains = {position: gain for position, gain in gains.items() if gain > 0}
    return _ranking(gains, len(gains))


def merge(first: Ranking, led: Ranking, k: int) -> Ranking:
    """The first search, brought to a scale from 0 to 1, plus what `follow` says; what one of them lacks has 0 there; top `k`."""
    sums = dict(zip(first.positions.tolist(), normalise(first.scores, "min-max").tolist(), strict=True))
    for position, score in zip(led.positions.tolist(), led.scores.tolist(), strict=True):
        sums[position] = sums.get(position, 0.0) + score
    return _ranking(sums, k)


def _ranking(scores: Mapping[int, float], k: int) -> Ranking:
    positions: Positions = np.fromiter(sorted(scores), np.int64, len(scores))
    return top_k(positions, np.array([scores[int(position)] for position in positions], np.float64), k)
