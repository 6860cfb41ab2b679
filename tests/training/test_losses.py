"""Losses against straight loops over windows, units and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.provence.marked import Batch, Output
from ragkit.training.losses import Targets, pruning_losses, ranking_loss

LOGIT = st.floats(-6, 6, width=32)


def sigmoid(logit: float) -> float:
    return 1 / (1 + exp(-logit))


def cross_entropy(probability: float, label: float) -> float:
    return -(label * log(probability) + (1 - label) * log(1 - probability))


def log_softmax(values: Sequence[float]) -> list[float]:
    most = max(values)
    total = most + log(sum(exp(value - most) for value in values))
    return [value - total for value in values]


class Case:
    """Windows with what each token's logit is, in which unit it lies, and each unit's gold, or None if not known."""

    def __init__(self, windows: Sequence[tuple[list[tuple[float, int]], list[int] | None, int]], units: int = 1) -> None:
        self.windows = windows
        n, t = len(windows), max(len(tokens) for tokens, _, _ in windows) + 2
        u = max([units, *(count for _, _, count in windows)])
        logits, owners, mask = torch.full((n, t), 9.0), torch.full((n, t), -1), torch.zeros(n, t, dtype=torch.long)
        gold, known = torch.zeros(n, u), torch.zeros(n, dtype=torch.bool)
        for i, (tokens, its_gold, _) in enumerate(windows):
            for j, (logit, owner) in enumerate(tokens):
                logits[i, j], owners[i, j], mask[i, j] = logit, owner, 1
            if its_gold is not None:
                known[i] = True
                gold[i, its_gold] = 1
        self.logits = logits.requires_grad_()
        self.batch = Batch(owners, owners, mask, owners, torch.zeros(n, u, 4), torch.zeros(n, 3))
        self.targets = Targets(gold, known)

    def found(self, smoothing: float, gold_weight: float) -> Any:
        return pruning_losses(
            Output(torch.zeros(len(self.windows)), self.logits), self.batch, self.targets, smoothing, gold_weight
        )

    def expected(self, smoothing: float, gold_weight: float) -> tuple[float, float, float]:
        sentences = by_token = listwise = 0.0
        for tokens, gold, _ in self.windows:
            if gold is None:
                continue
            shown = sorted({owner for _, owner in tokens if owner >= 0})
            if not shown:
                continue
            soft = {unit: 1 - smoothing if unit in gold else smoothing for unit in shown}
            logits = {unit: [logit for logit, owner in tokens if owner == unit] for unit in shown}
            kept = {unit: np.mean([sigmoid(logit) for logit in its]) for unit, its in logits.items()}
            weights = {unit: gold_weight if unit in gold else 1.0 for unit in shown}
            sentences += sum(weights[unit] * cross_entropy(float(kept[unit]), soft[unit]) for unit in shown) / len(shown)
            owned = [(logit, owner) for logit, owner in tokens if owner >= 0]
            by_token += sum(cross_entropy(sigmoid(logit), soft[owner]) for logit, owner in owned) / len(owned)
            chances = dict(zip(shown, log_softmax([float(np.mean(logits[unit])) for unit in shown]), strict=True))
            right = [chances[unit] for unit in shown if unit in gold]
            if right:
                listwise -= sum(right) / len(right)
        return sentences, by_token, listwise


@st.composite
def windows(draw: st.DrawFn) -> tuple[list[tuple[float, int]], list[int] | None, int]:
    count = draw(st.integers(0, 4))
    owner = st.integers(-1, count - 1)
    tokens = draw(st.lists(st.tuples(LOGIT, owner), max_size=8))
    gold = draw(st.none() | st.lists(st.integers(0, max(count - 1, 0)), unique=True, max_size=count))
    return tokens, gold, count


@given(st.lists(windows(), min_size=1, max_size=4), st.sampled_from([0.0, 0.02, 0.2]), st.sampled_from([1.0, 1.5, 4.0]))
@settings(max_examples=100, deadline=None)
def test_pruning_losses(batch: Any, smoothing: float, gold_weight: float) -> None:
    case = Case(batch)
    found = case.found(smoothing, gold_weight)
    np.testing.assert_allclose(
        [float(part.detach()) for part in found], case.expected(smoothing, gold_weight), rtol=1e-4, atol=1e-4
    )


def test_what_is_not_known_and_what_is_padding_teaches_nothing() -> None:
    owned = [(1.0, 0), (-2.0, 1), (0.5, -1)]
    case = Case([(owned, [1], 2), (owned, None, 2), ([(3.0, -1)], [], 2)], units=5)
    found = case.found(0.02, 1.5)
    sum(found).backward()
    gradient = case.logits.grad
    assert gradient is not None
    assert gradient[0, :2].abs().min() > 0
    assert gradient[0, 0] > 0 > gradient[0, 1]
    assert not gradient[0, 2:].any()
    assert not gradient[1:].any()


def test_losses_stay_finite_at_extremes() -> None:
    case = Case([([(900.0, 0), (-900.0, 1)], [1], 2), ([(-900.0, 0)], [0], 1)])
    found = case.found(0.0, 1.5)
    assert all(torch.isfinite(part) for part in found)
    sum(found).backward()
    assert case.logits.grad is not None
    assert torch.isfinite(case.logits.grad).all()


def straight_ranking(windows: Sequence[tuple[float, bool, float | None, int]], smoothing: float) -> float:
    total = 0.0
    for rank, relevant, teacher, _ in windows:
        soft = 1 - smoothing if relevant else smoothing
        total += cross_entropy(sigmoid(rank), soft) if teacher is None else (rank - teacher) ** 2
    for group in {group for *_, group in windows}:
        own = [(rank, relevant) for rank, relevant, _, its in windows if its == group]
        chances = log_softmax([rank for rank, _ in own])
        right = [chance for chance, (_, relevant) in zip(chances, own, strict=True) if relevant]
        if right and len(right) < len(own):
            total -= 0.5 * len(own) * sum(right) / len(right)
    return total


def ranking(windows: Sequence[tuple[float, bool, float | None, int]], smoothing: float) -> tuple[float, torch.Tensor]:
    """The loss and its gradient at the ranks."""
    columns = [*zip(*windows, strict=True)]
    ranks = torch.tensor(columns[0], dtype=torch.float32).requires_grad_()
    teacher = torch.tensor([float("nan") if score is None else score for score in columns[2]], dtype=torch.float32)
    loss = ranking_loss(ranks, torch.tensor(columns[1]).float(), teacher, torch.tensor(columns[3]), smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    assert ranks.grad is not None
    return float(loss.detach()), ranks.grad


RANKED = st.tuples(LOGIT, st.booleans(), st.none() | LOGIT, st.integers(0, 3))


@given(st.lists(RANKED, min_size=1, max_size=8), st.sampled_from([0.0, 0.02, 0.2]))
@settings(max_examples=100, deadline=None)
def test_ranking_loss(windows: list[tuple[float, bool, float | None, int]], smoothing: float) -> None:
    found, gradient = ranking(windows, smoothing)
    assert found == pytest.approx(straight_ranking(windows, smoothing), rel=1e-4, abs=1e-4)
    assert torch.isfinite(gradient).all()


def test_a_group_of_one_kind_has_no_order() -> None:
    alike = [(1.0, True, None, 0), (-1.0, True, None, 0), (0.5, False, None, 1), (2.0, False, None, 1)]
    apart = [(rank, relevant, None, at) for at, (rank, relevant, _, _) in enumerate(alike)]
    assert ranking(alike, 0.0)[0] == pytest.approx(ranking(apart, 0.0)[0])
    mixed = [(rank, relevant, None, 0) for rank, relevant, _, _ in alike]
    assert ranking(mixed, 0.0)[0] > ranking(apart, 0.0)[0]


def test_a_teacher_is_followed_and_draws_nothing_else() -> None:
    _, gradient = ranking([(1.0, True, 3.0, 0), (1.0, True, None, 1)], 0.0)
    assert gradient[0] == pytest.approx(-4.0)
    assert gradient[1] == pytest.approx(sigmoid(1.0) - 1, abs=1e-6)
