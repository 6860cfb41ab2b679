"""Whether one system is better than another, or was only lucky with the questions: paired tests on values per question."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragkit.errors import InputError

_BLOCK = 500  # rounds at a time: bounds memory


def randomisation_test(differences: ArrayLike, *, rounds: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of the mean of paired differences, [questions], by Fisher's randomisation test.

    If the two systems were alike, each difference could as well have the other sign: p is the share of all such choices of signs
    whose mean is at least as far from 0 (Smucker et al., "A comparison of statistical significance tests for information
    retrieval evaluation", CIKM 2007). It is exact where there are no more choices than `rounds`; otherwise so many are drawn,
    and p is (b + 1) / (rounds + 1) with b of them as far out, so that it is never 0. Raises `InputError` for differences that
    are not finite, or less than 1 round.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InputError("differences: must be one finite number for each question")
    if rounds < 1:
        raise InputError(f"rounds: must be at least 1, not {rounds}")
    # a difference of 0 has no sign to choose
    values = values[values != 0]
    if len(values) == 0:
        return 1.0
    # sums that are equal must count as equal, in whatever order they were added
    observed = abs(values.sum()) * (1 - 1e-12) - 1e-12 * np.abs(values).sum()
    if len(values) < 60 and 2 ** len(values) <= rounds:
        choices = (np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1
        return float(np.mean(_sums(choices, values) >= observed))
    random, beyond = np.random.default_rng(seed), 0
    for start in range(0, rounds, _BLOCK):
        choices = random.integers(0, 2, (min(_BLOCK, rounds - start), len(values)), dtype=np.int8)
        beyond += int(np.sum(_sums(choices, values) >= observed))
    return (beyond + 1) / (rounds + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several comparisons, corrected so that all of them together err as rarely as one would (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none becomes smaller than one before it, or more than 1.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        corrected[at] = largest
    return corrected


def _sums(choices: NDArray[np.integer], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far from 0 the sum is for each choice of signs, [choices]."""
    distances: NDArray[np.float64] = np.abs(values.sum() - 2 * (choices @ values))
    return distances
