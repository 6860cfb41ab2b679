"""Listwise strategies: a judge orders many candidates at once."""

from __future__ import annotations

from ragkit.errors import InputError
from ragkit.rerankers.strategies.base import Order, Ranked, Strategy
from ragkit.rerankers.strategies.orders import ask, order_of


def sliding(n: int, k: int, window: int = 20, step: int = 10, passes: int | None = 1) -> Strategy:
    """Windows over the ranking from back to front, each put in order (RankGPT, Sun et al. 2023; FIRST with another judge).

    A window carries its best `window - step` into the next. So with a judge that does not err, the first
    `passes * (window - step)` of the top k are right and in the right order, and all k where n is no more than that plus `step`.
    The published algorithm is one pass; `passes=None` makes as many as k needs. A pass begins behind what the passes before
    have settled, and one that finds nothing to change is the last.

    A pass takes 1 + ceil((n - window) / step) calls, one after the other: 9 for n = 100, and 1 for n up to `window`. A later
    pass has the less to do the more are settled.
    """
    if not 1 <= step < window:
        raise InputError(f"step must be at least 1 and less than the window of {window}, not {step}")
    if passes is not None and passes < 1:
        raise InputError(f"passes must be at least 1, not {passes}")
    return _sliding(n, min(k, n), window, step, passes)


def _sliding(n: int, k: int, window: int, step: int, passes: int | None) -> Strategy:
    ranking = list(range(n))
    if n < 2:
        return Ranked(ranking)
    known: dict[Order, tuple[int, ...] | None] = {}
    carry = window - step
    for settled in range(0, k if passes is None else min(k, passes * carry), carry):
        before = ranking.copy()
        for start in reversed(range(settled, max(n - carry, settled + 1), step)):
            shown = ranking[start : start + window]
            top = k - settled if start == settled or k <= carry else window  # more than one pass can carry: any place may matter
            [order] = yield from ask([order_of(shown, top)], ranking.copy(), known)
            ranking[start : start + window] = order or shown
        if ranking == before or settled + window >= n:
            break
    return Ranked(ranking)


def full(n: int, k: int) -> Strategy:
    """All candidates in one window: 1 call, for models that can read so much. A judge that does not err gives the right order."""
    return sliding(n, k, window=max(n, 2), step=1)
