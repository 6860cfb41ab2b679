"""Tournaments: groups of candidates are played in parallel, and the best of each go on to the next stage."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ragkit.errors import InputError
from ragkit.rerankers.strategies.base import Order, Ranked, Strategy
from ragkit.rerankers.strategies.orders import ask, order_of


def tourrank(n: int, k: int, rounds: int = 2, seed: int = 0, group: int = 20) -> Strategy:
    """Points from several tournaments, one for every stage that a candidate survives (TourRank, Chen et al. 2024).

    The stages leave 50, 20, 10, 5 and 2 of 100, and accordingly for other n. The candidates of a stage are dealt to groups of at
    most `group` by their previous order, as seeded players are, and shown in a random order. The score is the mean number of
    points. Equal points are decided by the places reached in the last group that was won, which the paper leaves open.

    With n = 100: 13 calls per tournament in 5 rounds of calls, however many tournaments, as they are played side by side.
    With a judge that does not err, as many are right, and in the right order, as survive even if they all meet in one group: 4 of
    100. A better candidate can drop out behind these, whatever k is; that is the price of parallel groups.
    """
    if rounds < 1 or group < 10:  # the last stages, 10 -> 5 -> 2, compare all who are left
        raise InputError(f"TourRank needs at least 1 round and groups of at least 10, not {rounds} and {group}")
    return _tourrank(n, k, rounds, random.Random(seed), group)


def _tourrank(n: int, k: int, rounds: int, chance: random.Random, group: int) -> Strategy:
    known: dict[Order, tuple[int, ...] | None] = {}
    points = [0] * n
    places = [[1.0] * n for _ in range(rounds)]  # in the last group that a candidate won: 0 is the first
    left = [list(range(n)) for _ in range(rounds)]

    def ranking() -> list[int]:
        return sorted(range(n), key=lambda candidate: (-points[candidate], sum(place[candidate] for place in places), candidate))

    for groups, keep in _stages(n, group) if k > 0 else ():
        played = [(which, sorted(left[which])[at::groups]) for which in range(rounds) for at in range(groups)]
        questions = [order_of(chance.sample(members, len(members)), keep) for _, members in played if len(members) > keep]
        answers = iter((yield from ask(questions, ranking(), known)))
        left = [[] for _ in range(rounds)]
        for which, members in played:
            order = next(answers) if len(members) > keep else None
            for place, winner in enumerate((order or members)[:keep]):
                left[which].append(winner)
                points[winner] += 1
                places[which][winner] = place / keep
    learnt = any(order is not None for order in known.values())
    return Ranked(ranking(), [total / rounds for total in points] if learnt else None)


def _stages(n: int, group: int) -> Iterator[tuple[int, int]]:
    """How many groups each stage has, and how many of a group go on. A stage leaves the largest of ..., 5, 2, 1 up to 2n / 3."""
    while n > 1:
        scale = 10 ** (len(str(n)) - 1)
        leave = max(size for unit in (scale // 10, scale) for size in (unit, 2 * unit, 5 * unit) if 3 * size <= 2 * n)
        fewest = -(-n // group)
        fitting = [groups for groups in range(fewest, leave + 1) if leave % groups == 0]
        equal = [groups for groups in fitting if n % groups == 0 and groups < 2 * fewest]
        groups = (equal or fitting)[0]
        yield groups, leave // groups
        if leave <= 2:
            return
        n = leave


def listt5(n: int, k: int, m: int = 5, keep: int = 2) -> Strategy:
    """A tree of groups of m, each of which passes its best `keep` up, until the root names the best (ListT5, Yoon et al. 2024).

    Then these leave the tree, and only the groups that they went through are played again: a group whose members have not changed
    keeps its result, and of one that only lost members no more is asked than is unknown. As no group holds back one of
    the best `keep`, the root's first `keep` are all right, and are taken at once, where the paper takes one at a time.

    n = 100, m = 5, keep = 2: 33 calls for the best, at most 69 for the best 10 (the paper's: 35 and 94), in 5 rounds of calls for
    every `keep` candidates. A judge that does not err gives the right top k.
    """
    if not 1 <= keep < m:
        raise InputError(f"groups of {m} cannot pass on {keep}: it must be at least 1 and less than the group")
    return _listt5(n, min(k, n), m, keep)


class _Group:
    """What is known about the members of one group: their order, as far as it is sure."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.sure = 0
        """So many at the front of the order are known to stand there."""

    def enter(self, members: list[int]) -> None:
        """Keep what is known, if members have only left."""
        if set(members) <= set(self.order):
            self.sure = sum(member in members for member in self.order[: self.sure])
            self.order = [member for member in self.order if member in members]
        else:
            self.order, self.sure = sorted(members), 0

    def unknown(self) -> list[int]:
        return sorted(self.order[self.sure :])

    def learn(self, rest: tuple[int, ...] | None, top: int) -> None:
        """Take the order of those unknown; a judge that failed leaves the previous order."""
        self.order[self.sure :] = rest or self.unknown()
        self.sure = len(self.order) if rest is None or len(rest) <= top + 1 else self.sure + top


def _listt5(n: int, k: int, m: int, keep: int) -> Strategy:
    levels, outputs = _tree(n, m, keep)
    groups = [[_Group() for _ in range(0, len(level), m)] for level in levels]
    known: dict[Order, tuple[int, ...] | None] = {}
    best: list[int] = []
    reached = [0] * n  # the level to which a candidate was judged good enough

    def ranking() -> list[int]:
        rest = sorted(set(range(n)).difference(best), key=lambda candidate: (-reached[candidate], candidate))
        return [*best, *rest]

    while len(best) < k:
        for height, level in enumerate(levels):
            root = height == len(outputs)
            asked = []
            for at, group in enumerate(groups[height]):
                group.enter([member for member in level[at * m : at * m + m] if member is not None])
                want = min(keep, k - len(best)) if root else len(outputs[height][at])
                pass_all = not root and len(group.order) <= want
                if not pass_all and group.sure < want and len(group.unknown()) > 1:
                    asked.append(group)
            orders = yield from ask([order_of(group.unknown(), keep) for group in asked], ranking(), known)
            for group, order in zip(asked, orders, strict=True):
                group.learn(order, keep)
                for member in group.order[:keep] if order else ():
                    reached[member] = max(reached[member], height + 1)
            if not root:
                for group, places in zip(groups[height], outputs[height], strict=True):
                    _pass_up(group.order[: len(places)], levels[height + 1], places)
        taken = groups[-1][0].order[: min(keep, k - len(best))]
        best += taken
        levels = [[None if member in taken else member for member in level] for level in levels]
    return Ranked(ranking())


def _tree(n: int, m: int, keep: int) -> tuple[list[list[int | None]], list[list[range]]]:
    """The members of each level, m to a group, the root's last; and the places of each group's output in the level above."""
    levels: list[list[int | None]] = [list(range(n))]
    outputs: list[list[range]] = []
    while (size := len(levels[-1])) > m:
        ends = [min(at // m * keep + min(keep, size - at), size) for at in range(0, size, m)]
        outputs.append([range(at * keep, end) for at, end in enumerate(ends)])
        levels.append([None] * ends[-1])
    return levels, outputs


def _pass_up(output: list[int], above: list[int | None], places: range) -> None:
    """Those who were up there keep their places, so that as few groups as possible see a change."""
    staying = {above[place] for place in places}.intersection(output)
    new = iter([member for member in output if member not in staying])
    for place in places:
        if above[place] not in staying:
            above[place] = next(new, None)
