"""Pooling against one row at a time, without padding."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.encoders.dense_folder import Pooling
from ragkit.encoders.pooling import pool

MODES: dict[str, Any] = {
    "mean": lambda x, places: x.mean(0),
    "cls": lambda x, places: x[0],
    "last": lambda x, places: x[-1],
    "max": lambda x, places: x.max(0),
    "weighted_mean": lambda x, places: (x * places[:, None]).sum(0) / places.sum(),
    "mean_sqrt_len": lambda x, places: x.sum(0) / np.sqrt(len(x)),
}


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4),
    modes=st.lists(st.sampled_from(get_args(Pooling)), min_size=1, max_size=3),
    seed=st.integers(0, 100),
)
def test_each_pooling_with_padding_on_either_side(rows: list[tuple[int, int, int, int]], modes: list[Pooling], seed: int) -> None:
    generator = np.random.default_rng(seed)
    width = max(sum(row[0::2]) + row[3] for row in rows)
    states = generator.normal(size=(len(rows), width, 3)).astype(np.float32)
    attention, kept = np.zeros((2, len(rows), width), np.int64)
    expected = []
    for i, (length, skipped, left, _) in enumerate(rows):
        skipped = min(skipped, length - 1)
        attention[i, left : left + length] = 1
        kept[i, left + skipped : left + length] = 1
        tokens = states[i, left : left + length].astype(np.float64)
        expected.append(np.concatenate([MODES[mode](tokens[skipped:], np.arange(skipped + 1, length + 1)) for mode in modes]))
    found = pool(torch.from_numpy(states), torch.from_numpy(attention), torch.from_numpy(kept), modes)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_half_precision_is_pooled_in_full() -> None:
    states = torch.full((1, 300, 1), 1.01, dtype=torch.bfloat16)
    ones = torch.ones(1, 300, dtype=torch.int64)
    assert pool(states, ones, ones, ["mean"]).item() == pytest.approx(float(states[0, 0, 0]), abs=1e-6)
