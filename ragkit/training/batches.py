"""Labelled windows to batches: a question's windows together, neighbours of similar length, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ragkit.training.rows import Labelled

Group = list[Labelled]
_POOL = 1200  # groups sorted by length at a time


def groups_of(windows: Sequence[Labelled]) -> list[Group]:
    """The windows of each question, in the order in which the questions come."""
    groups: dict[str, Group] = {}
    for window in windows:
        groups.setdefault(window.group, []).append(window)
    return list(groups.values())


def batches(groups: Sequence[Group], group_size: int, batch_tokens: int, seed: int) -> list[list[Group]]:
    """Batches of about `batch_tokens` tokens, in random order; of a large group `group_size` windows are drawn."""
    chance = random.Random(seed)
    drawn = [_drawn(group, group_size, chance) for group in groups]
    chance.shuffle(drawn)
    found = []
    for start in range(0, len(drawn), _POOL):
        pool = sorted(drawn[start : start + _POOL], key=lambda group: max(len(window.row.ids) for window in group))
        found += _packed(pool, batch_tokens)
    chance.shuffle(found)
    return found


def similar(windows: Sequence[Labelled]) -> list[list[int]]:
    """Positions of windows in lots of similar length, so that little of each lot is padding."""
    order = sorted(range(len(windows)), key=lambda at: len(windows[at].row.ids))
    lots: list[list[int]] = []
    for at in order:
        length = len(windows[at].row.ids)
        if not lots or length > 8 + 1.15 * len(windows[lots[-1][0]].row.ids):
            lots.append([])
        lots[-1].append(at)
    return lots


def _drawn(group: Group, size: int, chance: random.Random) -> Group:
    if len(group) <= size:
        return group
    shuffled = chance.sample(group, len(group))
    relevant = [window for window in shuffled if window.relevant]
    others = [window for window in shuffled if not window.relevant]
    most = max(size // 2, 1) if others else size
    chosen = relevant[:most]
    return chosen + others[: size - len(chosen)]


def _packed(pool: Sequence[Group], batch_tokens: int) -> list[list[Group]]:
    packed: list[list[Group]] = []
    room = 0
    for group in pool:
        tokens = sum(len(window.row.ids) for window in group)
        if tokens > room:
            packed.append([])
            room = batch_tokens
        packed[-1].append(group)
        room -= tokens
    return packed
