"""Batches: every question once per epoch, whole, within the budget, and the same for the same seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.provence.inputs import Row
from ragkit.training import batches as batches_module
from ragkit.training.batches import Group, batches, groups_of, similar
from ragkit.training.rows import Labelled


def window(group: str, tokens: int = 5, relevant: bool = False) -> Labelled:
    zeros = np.zeros(tokens, np.int64)
    row = Row(zeros, zeros, zeros, np.zeros((1, 4), np.float32), np.zeros(3, np.float32))
    return Labelled(row, group, None, relevant, None, "")


def length(one: Labelled) -> int:
    return len(one.row.ids)


WINDOWS = st.lists(
    st.builds(window, st.integers(0, 12).map(str), st.integers(1, 60), st.booleans()),
    max_size=50,
)


def groups(sizes: Sequence[int], tokens: int = 5) -> list[Group]:
    return [[window(str(at), tokens) for _ in range(size)] for at, size in enumerate(sizes)]


@given(WINDOWS)
def test_groups_are_the_windows_of_each_question_in_order(windows: list[Labelled]) -> None:
    found = groups_of(windows)
    names = list(dict.fromkeys(one.group for one in windows))
    assert [[id(one) for one in group] for group in found] == [
        [id(one) for one in windows if one.group == name] for name in names
    ]


@given(WINDOWS, st.integers(1, 6), st.sampled_from([1, 40, 100, 10_000]), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_every_group_comes_once_and_batches_keep_to_their_budget(
    windows: list[Labelled], group_size: int, budget: int, seed: int
) -> None:
    whole = {group[0].group: group for group in groups_of(windows)}
    found = batches(list(whole.values()), group_size, budget, seed)
    assert sorted(group[0].group for lots in found for group in lots) == sorted(whole)
    for lots in found:
        assert lots
        assert len(lots) == 1 or sum(length(one) for group in lots for one in group) <= budget
        for group in lots:
            before = whole[group[0].group]
            assert {id(one) for one in group} <= {id(one) for one in before}
            assert len({id(one) for one in group}) == len(group) <= max(group_size, 1)
            if len(before) <= group_size:
                assert group == before
            # what helps is never left out for what does not
            assert any(one.relevant for one in group) == any(one.relevant for one in before)
            assert group_size == 1 or {one.relevant for one in group} == {one.relevant for one in before}


@given(WINDOWS, st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_the_same_seed_gives_the_same_batches(windows: list[Labelled], seed: int) -> None:
    whole = groups_of(windows)
    first, second = (batches(whole, 2, 50, seed) for _ in range(2))
    assert [[[id(one) for one in group] for group in lots] for lots in first] == [
        [[id(one) for one in group] for group in lots] for lots in second
    ]


def order(found: list[list[Group]]) -> list[str]:
    return [group[0].group for lots in found for group in lots]


def test_seeds_give_other_orders_and_other_draws() -> None:
    whole = groups([20] * 30)
    found = [batches(whole, 3, 60, seed) for seed in range(5)]
    assert len({tuple(order(one)) for one in found}) == 5
    drawn = {tuple(id(one) for lots in one for group in lots if group[0].group == "7" for one in group) for one in found}
    assert len(drawn) == 5


def test_all_windows_of_a_large_group_are_drawn_alike_often() -> None:
    [group] = groups([10])
    drawn = [id(one) for seed in range(400) for [group_drawn] in batches([group], 3, 99, seed) for one in group_drawn]
    counts = Counter(drawn)
    assert len(counts) == 10
    assert max(counts.values()) < 3 * min(counts.values())


@pytest.mark.parametrize(
    ("relevant", "others", "size", "drawn"),
    [(1, 9, 5, (1, 4)), (6, 9, 5, (2, 3)), (9, 0, 5, (5, 0)), (0, 9, 5, (0, 5)), (3, 9, 1, (1, 0)), (3, 2, 5, (3, 2))],
)
def test_relevant_windows_come_first_and_leave_room_for_others(
    relevant: int, others: int, size: int, drawn: tuple[int, int]
) -> None:
    group = [window("q") for _ in range(others)] + [window("q", relevant=True) for _ in range(relevant)]
    for seed in range(10):
        [[found]] = batches([group], size, 1000, seed)
        assert (sum(one.relevant for one in found), sum(not one.relevant for one in found)) == drawn


def test_neighbours_are_of_similar_length() -> None:
    random = np.random.default_rng(1)
    whole = [[window(str(at), int(random.integers(5, 100)))] for at in range(400)]
    spreads = [np.ptp([length(group[0]) for group in lots]) for lots in batches(whole, 5, 400, 0)]
    assert max(spreads) < 30
    assert np.mean(spreads) < 4


def test_a_long_epoch_is_sorted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "_POOL", 10)
    whole = groups([1] * 95)
    found = batches(whole, 5, 30, 3)
    assert sorted(order(found)) == sorted(str(at) for at in range(95))
    assert Counter(len(lots) for lots in found) == {6: 9, 4: 9, 5: 1}


@given(WINDOWS)
@settings(max_examples=100, deadline=None)
def test_lots_of_similar_length_are_a_partition(windows: list[Labelled]) -> None:
    lots = similar(windows)
    assert sorted(at for lot in lots for at in lot) == list(range(len(windows)))
    for lot in lots:
        lengths: Any = [length(windows[at]) for at in lot]
        assert max(lengths) <= 8 + 1.15 * min(lengths)
