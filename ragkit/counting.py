"""Compiled: how often each term occurs in each text."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def count(starts: Any, tokens: Any) -> tuple[Any, Any, Any]:
    """Starts, terms and weights of `SparseVectors` from each text's tokens: every term once, with how often it occurs."""
    ends = np.zeros(len(starts), np.int64)
    terms = np.empty(len(tokens), np.int32)
    weights = np.empty(len(tokens), np.float32)
    end = 0
    for text in range(len(starts) - 1):
        ordered = np.sort(tokens[starts[text] : starts[text + 1]])
        for i in range(len(ordered)):
            if i > 0 and ordered[i] == ordered[i - 1]:
                weights[end - 1] += np.float32(1)
            else:
                terms[end], weights[end] = ordered[i], np.float32(1)
                end += 1
        ends[text + 1] = end
    return ends, terms[:end].copy(), weights[:end].copy()
