"""In what order a reader sees passages: pure functions from ranks, 0 the best, to the ranks in the order shown."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

from ragkit.errors import InputError

Order = Literal["best-first", "best-last", "best-at-ends", "source"]
"""Names of the orders, for YAML and constructors; see `shown_order`."""


def best_first(passages: int) -> list[int]:
    """0, 1, 2, ..."""
    return list(range(passages))


def best_last(passages: int) -> list[int]:
    """..., 2, 1, 0: the best stands next to the question, which follows the passages."""
    return list(range(passages))[::-1]


def best_at_ends(passages: int) -> list[int]:
    """0, 2, 4, ..., 5, 3, 1: the worst stand in the middle, of which language models make the least use.

    Liu et al., Lost in the Middle: How Language Models Use Long Contexts, https://arxiv.org/abs/2307.03172.
    """
    return [*range(0, passages, 2), *range(1, passages, 2)[::-1]]


def by_source(places: Sequence[tuple[Hashable, int]]) -> list[int]:
    """Passages of one source beside each other and in the order of its text; the source of the best passage comes first.

    `places` has each passage's source and its offset there, best passage first.
    """
    first: dict[Hashable, int] = {}
    for rank, (source, _) in enumerate(places):
        first.setdefault(source, rank)
    return sorted(range(len(places)), key=lambda rank: (first[places[rank][0]], places[rank][1]))


def shown_order(order: Order, places: Sequence[tuple[Hashable, int]]) -> list[int]:
    """The ranks of the passages in the order shown; `places` as for `by_source`. Raises `InputError` for an unknown order."""
    match order:
        case "best-first":
            return best_first(len(places))
        case "best-last":
            return best_last(len(places))
        case "best-at-ends":
            return best_at_ends(len(places))
        case "source":
            return by_source(places)
    raise InputError(f"order: {order!r} is not known; use best-first, best-last, best-at-ends or source")
