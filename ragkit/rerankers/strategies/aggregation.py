"""One ranking from several, by pure functions.

A ranking lists candidates of 0 to n - 1, best first; those that it does not list are tied behind. The result has all n. Ties go
to the smaller number, and without rankings nothing moves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

EXACT = 14
"""So many candidates that beat each other in circles are ordered exactly by `kemeny`."""


def borda(rankings: Sequence[Sequence[int]], n: int) -> list[int]:
    """By the sum of points, n - 1 for the first down to 0 (Borda 1781); the unlisted share equally what points are left."""
    points = [0] * n  # doubled, to remain whole
    for ranking in rankings:
        shared = n - 1 - len(ranking)
        place = {candidate: at for at, candidate in enumerate(ranking)}
        for candidate in range(n):
            points[candidate] += 2 * (n - 1 - place[candidate]) if candidate in place else shared
    return sorted(range(n), key=lambda candidate: -points[candidate])


def rrf(rankings: Sequence[Sequence[int]], n: int, constant: float = 60.0) -> list[int]:
    """By the sum of 1 / (constant + rank), ranks from 1 (Cormack et al. 2009); the unlisted get nothing."""
    terms: list[list[float]] = [[] for _ in range(n)]
    for ranking in rankings:
        for rank, candidate in enumerate(ranking, start=1):
            terms[candidate].append(1 / (constant + rank))
    scores = [math.fsum(sorted(term)) for term in terms]  # the same terms give the same sum, in whatever order
    return sorted(range(n), key=lambda candidate: -scores[candidate])


def kemeny(rankings: Sequence[Sequence[int]], n: int) -> list[int]:
    """The ranking with which the given ones disagree about the fewest pairs (Kemeny 1959).

    Candidates that beat each other in circles by majority form a block; the blocks are in the order of their majorities, which
    costs nothing (Truchon 1998). A block of up to `EXACT` is ordered exactly, by a program over its subsets. A larger one starts
    from Borda's order and moves single candidates as long as that removes a disagreement: the result is then an approximation
    that no move of one candidate improves. Candidates that no ranking lists stay behind in the order of their numbers.
    """
    listed = sorted({candidate for ranking in rankings for candidate in ranking})
    ahead = _ahead(rankings, listed)
    order: list[int] = []
    for block in _blocks(ahead > ahead.T):
        within = ahead[np.ix_(block, block)]
        best = _exact(within) if len(block) <= EXACT else _local(within)
        order += [listed[block[at]] for at in best]
    return order + sorted(set(range(n)).difference(listed))


def _ahead(rankings: Sequence[Sequence[int]], candidates: list[int]) -> Counts:
    """How many rankings have i ahead of j, [i, j]."""
    ahead = np.zeros((len(candidates), len(candidates)), dtype=np.int64)
    for ranking in rankings:
        place = {candidate: at for at, candidate in enumerate(ranking)}
        places = np.array([place.get(candidate, len(ranking)) for candidate in candidates])
        ahead += places[:, None] < places[None, :]
    return ahead


def _blocks(beats: NDArray[np.bool_]) -> list[list[int]]:
    """Strongly connected components: nobody in a later one beats anybody in an earlier; where free, smaller numbers first."""
    reach = beats.copy()
    for via in range(len(reach)):
        reach |= np.outer(reach[:, via], reach[via])
    same = (reach & reach.T) | np.eye(len(reach), dtype=bool)
    above = reach & ~same
    waiting = above.sum(axis=0)
    left = np.ones(len(reach), dtype=bool)
    blocks = []
    while left.any():
        block = np.flatnonzero(same[np.flatnonzero(left & (waiting == 0))[0]])
        left[block] = False
        waiting -= above[block].sum(axis=0)
        blocks.append(block.tolist())
    return blocks


def _exact(ahead: Counts) -> list[int]:
    """The best order, and of several the one that has the smaller numbers first.

    cost[S] is the least for the candidates in the bit set S alone: put j first, then the best order of the others.
    """
    size = len(ahead)
    sets = np.arange(1 << size)
    against = np.zeros((size, 1 << size), dtype=np.int64)  # how many disagree with j ahead of all of S
    for other in range(size):
        against[:, 1 << other : 2 << other] = against[:, : 1 << other] + ahead[other][:, None]
    count = sum((sets >> at) & 1 for at in range(size))
    cost = np.full(1 << size, np.iinfo(np.int64).max)
    cost[0] = 0
    for members in range(1, size + 1):
        layer = sets[count == members]
        for first in range(size):
            whole = layer[(layer >> first) & 1 == 1]
            rest = whole ^ (1 << first)
            cost[whole] = np.minimum(cost[whole], cost[rest] + against[first, rest])
    order: list[int] = []
    left = (1 << size) - 1
    while left:
        rests = {first: left ^ (1 << first) for first in range(size) if left >> first & 1}
        first = next(first for first, rest in rests.items() if cost[left] == cost[rest] + against[first, rest])
        order.append(first)
        left = rests[first]
    return order


def _local(ahead: Counts) -> list[int]:
    order = np.argsort((ahead.T - ahead).sum(axis=1), kind="stable")  # Borda's, by the pairs of the block alone
    moved = True
    while moved:
        moved = False
        for candidate in range(len(ahead)):
            at = int(np.flatnonzero(order == candidate)[0])
            others = np.delete(order, at)
            behind = np.concatenate([[0], np.cumsum(ahead[candidate, others])])
            before = np.concatenate([np.cumsum(ahead[others, candidate][::-1])[::-1], [0]])
            cost = behind + before
            to = int(cost.argmin())
            if cost[to] < cost[at]:
                order = np.insert(others, to, candidate)
                moved = True
    return [int(candidate) for candidate in order]
