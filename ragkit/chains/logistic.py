"""Logistic regression over a few features, and how far its probabilities can be relied on; pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragkit.errors import InputError

_STEPS = 100


class Line(NamedTuple):
    """The log odds are `bias` plus the sum of `weights` times features."""

    weights: tuple[float, ...]
    bias: float


class Bin(NamedTuple):
    """Cases that were given about the same probability."""

    cases: int
    said: float
    """The mean of their probabilities."""
    true: float
    """The share of those that are true."""


class Reliability(NamedTuple):
    """What probabilities are worth on labelled cases."""

    cases: int
    ece: float
    """Expected calibration error: the mean distance, over cases, of their bin's `said` from its `true`."""
    brier: float
    """The mean squared distance of a probability from its label."""
    bins: tuple[Bin, ...]


def fit(features: ArrayLike, labels: ArrayLike, ridge: float = 1.0) -> Line:
    """The weights of features [cases, features] that explain the labels [cases] (0 or 1) best, by Newton's method.

    What is minimised is the log loss, summed over the cases, plus half of `ridge` times the squared weights of the standardised
    features; the bias is free. Raises `InputError` if the shapes differ, a number is not finite, or all labels are equal.
    """
    x, y = np.asarray(features, np.float64), np.asarray(labels, np.float64)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise InputError(f"labels: give one for each row of features, not {y.shape} for {x.shape}")
    if not np.isfinite(x).all() or not np.isin(y, (0, 1)).all():
        raise InputError("features and labels: features must be finite, labels 0 or 1")
    if not 0 < y.mean() < 1:
        raise InputError("labels: must be of both kinds, to tell them apart by")
    means, spreads = x.mean(0), x.std(0)
    spreads = np.where(spreads > 0, spreads, 1.0)
    z = np.column_stack([(x - means) / spreads, np.ones(len(x))])
    penalty = np.append(np.full(x.shape[1], ridge), 0.0)
    line = np.zeros(z.shape[1])
    for _ in range(_STEPS):
        p = _sigmoid(z @ line)
        slope = z.T @ (p - y) + penalty * line
        curve = (z.T * (p * (1 - p))) @ z + np.diag(penalty) + 1e-9 * np.eye(len(line))
        step = np.linalg.solve(curve, slope)
        line = line - step
        if np.abs(step).max() < 1e-9:
            break
    weights = line[:-1] / spreads
    return Line(tuple(weights.tolist()), float(line[-1] - weights @ means))


def probability(line: Line, features: Sequence[float]) -> float:
    """What the line says of one case."""
    return float(_sigmoid(np.array([line.bias + float(np.dot(line.weights, features))]))[0])


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = 10) -> Reliability:
    """Calibration on labelled cases, in `bins` of equal width from 0 to 1; empty ones are left out.

    Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning" (AAAI 2015); Brier (1950).
    Raises `InputError` if there are no cases, or not one label for each.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    if not len(p) or p.shape != y.shape:
        raise InputError(f"labels: give one for each probability, not {len(y)} for {len(p)}")
    at = np.minimum((p * bins).astype(int), bins - 1)
    found = tuple(
        Bin(int((at == n).sum()), float(p[at == n].mean()), float(y[at == n].mean())) for n in range(bins) if (at == n).any()
    )
    ece = sum(one.cases * abs(one.said - one.true) for one in found) / len(p)
    return Reliability(len(p), ece, float(((p - y) ** 2).mean()), found)


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    small = np.exp(-np.abs(values))
    found: NDArray[np.float64] = np.where(values >= 0, 1, small) / (1 + small)
    return found
