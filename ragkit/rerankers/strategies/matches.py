"""Finding the best k of n by matches: who is the best of these few? What the pairwise and the setwise strategies share."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import NamedTuple

from ragkit.rerankers.strategies.base import Answer, Question, Ranked, Round, Strategy

Group = tuple[int, ...]
"""Candidates that play against each other, in the order in which they are shown."""


class Match(NamedTuple):
    """How to ask which of a few candidates is the best."""

    ask: Callable[[Group], list[Question]]
    winner: Callable[[Group, Sequence[Answer]], int]
    """Who the answers say it is; the smaller number where they leave it open."""


def heap_of_matches(n: int, k: int, size: int, match: Match) -> Strategy:
    """The best k by a heap in which each node plays its children, at most `size`, and holds the winner.

    Heapsort as published moves the last item to the top and sifts it down past children that it loses to anyhow. Here, only the
    matches that a candidate has won are played again without it once it is taken. The first takes ceil((n - 1) / (size - 1))
    matches, the fewest there can be, in as many rounds as the heap is high, at most ceil(log_size n); each further one takes at
    most one match per level, one after the other. No two candidates meet twice: there is nothing to remember.
    """
    if n < 2 or k < 1:
        return Ranked(range(n))
    tree = _Tree(n, size)
    yield from _play(tree, match, range(tree.leaf))
    for _ in range(min(k, n) - 1):
        yield from _play(tree, match, tree.take())
    tree.take()
    return Ranked(tree.ranking())


def bubbles_of_matches(n: int, k: int, size: int, match: Match) -> Strategy:
    """The best k by passes of a window of `size` from back to front: its winner moves to its front, and is in the next window.

    Pass i takes ceil((n - 1 - i) / (size - 1)) matches, i = 0 to k - 1. It follows the pass before it at a distance of two
    windows, so that all take about ceil((n - 1) / (size - 1)) + 2 (k - 1) rounds. A candidate that is known to lose against
    another of its window is not shown again, and a window of which only one is left is not played: that ends a pass where the
    ones before it have changed nothing.
    """
    order = list(range(n))
    beaten: set[tuple[int, int]] = set()
    # a pass has done all windows behind `ends[i]`; nothing is left of it at i
    ends = [n - 1] * max(min(k, n - 1), 0)
    while True:
        pending: list[tuple[int, int, Group]] = []
        for turn in range(len(ends)):
            while ends[turn] > turn:
                start = max(ends[turn] - size + 1, turn)
                if turn and ends[turn - 1] > turn - 1 and ends[turn - 1] >= start:
                    break
                group = _unbeaten(order[start : ends[turn] + 1], beaten)
                if len(group) > 1:
                    pending.append((turn, start, group))
                    break
                _to_front(order, start, ends[turn], group[0], beaten)
                ends[turn] = start
        if not pending:
            return Ranked(order)
        winners = yield from _ask(match, [group for _, _, group in pending], order.copy())
        for (turn, start, _), winner in zip(pending, winners, strict=True):
            _to_front(order, start, ends[turn], winner, beaten)
            ends[turn] = start


def _ask(match: Match, groups: Sequence[Group], ranking: Sequence[int]) -> Generator[Round, Sequence[Answer], list[int]]:
    """One round of matches: the winner of each group."""
    asked = [match.ask(group) for group in groups]
    answers = yield Round([question for questions in asked for question in questions], ranking)
    left = iter(answers)
    return [match.winner(group, [next(left) for _ in questions]) for group, questions in zip(groups, asked, strict=True)]


class _Tree:
    """A complete tree in an array. Its leaves are the candidates; the first of them have the shortest way to the top."""

    def __init__(self, n: int, size: int) -> None:
        self.size = size
        self.leaf = -(-(n - 1) // (size - 1))
        """Where the leaves begin: the number of nodes with children."""
        self.best: list[int | None] = [None] * self.leaf + list(range(n))
        self.taken: list[int] = []
        self.lost_to: dict[int, int] = {}

    def children(self, node: int) -> range:
        return range(self.size * node + 1, min(self.size * (node + 1) + 1, len(self.best)))

    def players(self, node: int) -> Group:
        return tuple(sorted(best for child in self.children(node) if (best := self.best[child]) is not None))

    def take(self) -> list[int]:
        """Take the best candidate. The nodes above its leaf are open then."""
        winner = self.best[0]
        assert winner is not None  # at most n are taken
        self.taken.append(winner)
        node = self.leaf + winner
        self.best[node] = None
        above = []
        while node:
            node = (node - 1) // self.size
            above.append(node)
        return above

    def ranking(self) -> list[int]:
        """Those taken, then the previous order, in which everyone who has won moves up to right before the one who has lost."""
        ranking = dict.fromkeys(self.taken)
        for candidate in range(len(self.best) - self.leaf):
            ahead = []
            place: int | None = candidate
            while place is not None and place not in ranking:
                ahead.append(place)
                place = self.lost_to.get(place)
            ranking.update(dict.fromkeys(reversed(ahead)))
        return list(ranking)


def _play(tree: _Tree, match: Match, nodes: Iterable[int]) -> Generator[Round, Sequence[Answer], None]:
    """Fill the open nodes from the bottom up: in each round all those whose children are filled."""
    todo = set(nodes)
    while todo:
        ready = {node: tree.players(node) for node in sorted(todo) if todo.isdisjoint(tree.children(node))}
        todo.difference_update(ready)
        matches = {node: group for node, group in ready.items() if len(group) > 1}
        winners = (yield from _ask(match, list(matches.values()), tree.ranking())) if matches else []
        for node, group in ready.items():
            tree.best[node] = group[0] if group else None
        for (node, group), winner in zip(matches.items(), winners, strict=True):
            tree.best[node] = winner
            tree.lost_to.update((loser, winner) for loser in group if loser != winner)


def _unbeaten(group: Iterable[int], beaten: set[tuple[int, int]]) -> Group:
    """Who of a group can still be its best; where wins go in a circle, the last of the circle."""
    left = list(group)
    for candidate in tuple(left):
        if any((other, candidate) in beaten for other in left):
            left.remove(candidate)
    return tuple(left)


def _to_front(order: list[int], start: int, end: int, winner: int, beaten: set[tuple[int, int]]) -> None:
    group = order[start : end + 1]
    beaten.update((winner, loser) for loser in group if loser != winner and (loser, winner) not in beaten)
    group.remove(winner)
    order[start : end + 1] = [winner, *group]
