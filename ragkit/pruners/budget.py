"""Spending a token budget on the best first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def spend(costs: Sequence[int], order: Iterable[int], budget: int) -> list[int]:
    """What of `order`, indices into `costs`, fits into the budget; one that does not is passed over, since a later one may."""
    taken = []
    for at in order:
        if costs[at] <= budget:
            budget -= costs[at]
            taken.append(at)
    return taken
