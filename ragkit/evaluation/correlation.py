"""How well one figure per question goes with another."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragkit.errors import InputError


def pearson(first: ArrayLike, second: ArrayLike) -> float:
    """The linear correlation of two series [n], from -1 to 1; nan if one of them does not vary."""
    x, y = _pair(first, second)
    if not (np.ptp(x) and np.ptp(y)):
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y) / float(np.sqrt((x @ x) * (y @ y)))


def kendall(first: ArrayLike, second: ArrayLike) -> float:
    """Kendall's tau-b of two series [n], which allows for ties (Kendall, Biometrika 1945); nan if one of them does not vary.

    Takes memory and time quadratic in n.
    """
    x, y = _pair(first, second)
    above = np.triu_indices(len(x), 1)
    dx, dy = np.sign(x[:, None] - x)[above], np.sign(y[:, None] - y)[above]
    norm = float(np.sqrt(np.count_nonzero(dx) * np.count_nonzero(dy)))
    return float(dx @ dy) / norm if norm > 0 else float("nan")


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise InputError(f"series: must be two of one length, at least 2, not of shapes {x.shape} and {y.shape}")
    return x, y
