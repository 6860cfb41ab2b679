"""One ranking from many partial ones: the Plackett-Luce model (Luce 1959, Plackett 1975) with a prior."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def plackett_luce(
    orders: Sequence[Sequence[int]],
    prior: Sequence[float] | Floats,
    weight: float = 1.0,
    top: int | None = None,
    *,
    tolerance: float = 1e-4,
    iterations: int = 10_000,
) -> Floats:
    """The most probable logarithm of each candidate's strength, [candidates], given that `orders` were observed.

    Plackett-Luce says that an order is drawn by taking, again and again, one of the candidates that are left, each with a
    probability in proportion to its strength g: P(i1, ..., im) = prod over r of g(ir) / (g(ir) + ... + g(im)). With two
    candidates this is the model of Bradley and Terry 1952. Where only the first `top` places mean something, r ends there.

    `prior` has the logarithm of each candidate's strength m before anything was seen, and `weight` says how much that counts: as
    much as so many choices in which the candidate was taken. It is a Gamma prior on g with shape 1 + weight and rate weight / m,
    whose mode is m (Caron and Doucet 2012), and it makes the solution unique and finite. It is found by the MM algorithm of
    Hunter 2004, which in each step sets g(i) to (weight + times taken) / (weight / m(i) + sum over its choices of 1 / strength of
    those left), until no logarithm changes by more than `tolerance`. The last of an order is not taken from anything, so it
    does not count.
    """
    n = len(prior)
    start = np.asarray(prior, dtype=np.float64)
    padded = np.full((len(orders), max(map(len, orders), default=0) + 1), n, dtype=np.intp)  # one more candidate, of strength 0
    for row, order in zip(padded, orders, strict=True):
        row[: len(order)] = order
    choice = padded[:, 1:] < n  # places at which one of several was taken
    if top is not None:
        choice[:, top:] = False
    padded = padded[:, :-1]
    taken = np.bincount(padded[choice], minlength=n)
    rate = weight * np.exp(-start)
    strength = np.append(np.exp(start), 0.0)
    for _ in range(iterations):
        left = np.cumsum(strength[padded][:, ::-1], axis=1)[:, ::-1]
        chances = np.cumsum(np.divide(1.0, left, out=np.zeros_like(left), where=choice), axis=1)
        offered = np.bincount(padded.ravel(), chances.ravel(), minlength=n + 1)[:n]
        new = (weight + taken) / (rate + offered)
        change = np.abs(np.log(new / strength[:n])).max(initial=0)
        strength[:n] = new
        if change <= tolerance:
            break
    fitted: Floats = np.log(strength[:n])
    return fitted
