"""Passages in an order whose every beginning is spread over the sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from operator import itemgetter
from random import Random


def spread(groups: Sequence[Hashable], seed: int = 0) -> list[int]:
    """The places of all items, given the group of each, so that any first n are spread over the groups as evenly as can be.

    Which item of a group comes first, and which group, is random and follows from `seed`.
    """
    order = list(range(len(groups)))
    Random(seed).shuffle(order)
    taken: Counter[Hashable] = Counter()
    rounds = []
    for at in order:
        rounds.append((taken[groups[at]], at))
        taken[groups[at]] += 1
    return [at for _, at in sorted(rounds, key=itemgetter(0))]
