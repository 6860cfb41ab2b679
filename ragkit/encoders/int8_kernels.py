"""Compiled: what lies between the integer products of a transformer, each in one pass over rows that stay in the cache.

The products `y` of such a layer are those of 8-bit rows, whose least value and step are in `lows` and `steps`: the layer's
outputs are y * step + low * sums + bias, with the sums of the weight's rows. Each kernel begins with that and ends in the 8-bit
rows that the next layer multiplies, whose least values and steps it writes over the old ones. Nothing here holds the GIL.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

# sums in any order, and no care for NaN: what makes loops run eight numbers at a time
_FAST = {"contract", "reassoc", "nsz", "arcp", "nnan"}
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_STEPS = np.float32(127)  # see `int8`
_LEAST = np.float32(1e-12)
_ROOT = np.float32(np.sqrt(0.5))
# 1 - erf(z) for z >= 0 is the 16th power of 1 / (1 + c1 z + ... + c6 z^6), off by 3e-7 at most: Abramowitz and Stegun, 7.1.28
_C1, _C2, _C3 = np.float32(0.0705230784), np.float32(0.0422820123), np.float32(0.0092705272)
_C4, _C5, _C6 = np.float32(0.0001520143), np.float32(0.0002765672), np.float32(0.0000430638)


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _quantize_row(row: Any, out: Any) -> tuple[Any, Any]:
    """Write a row as integers from 0 to 127; its least value and the step between two of them."""
    low = high = row[0]
    for j in range(row.size):
        low = min(low, row[j])
        high = max(high, row[j])
    step = max((high - low) / _STEPS, _LEAST)
    scale = _ONE / step
    # half a step more, for the conversion cuts off
    shift = _HALF - low * scale
    for j in range(row.size):
        out[j] = np.uint8(np.int32(row[j] * scale + shift))
    return low, step


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def quantize(rows: Any, out: Any, lows: Any, steps: Any) -> None:
    """Float32 rows [n, d] to 8-bit rows `out` with least values and steps [n]."""
    for i in range(len(rows)):
        lows[i], steps[i] = _quantize_row(rows[i], out[i])


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def outputs(y: Any, lows: Any, steps: Any, sums: Any, bias: Any) -> None:
    """Products to the layer's outputs, in place."""
    for i in range(len(y)):
        row, low, step = y[i], lows[i], steps[i]
        for j in range(row.size):
            row[j] = row[j] * step + (low * sums[j] + bias[j])


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def gelu(y: Any, lows: Any, steps: Any, sums: Any, bias: Any, out: Any) -> None:
    """Outputs through GELU, to 8-bit rows; `y` is overwritten."""
    for i in range(len(y)):
        row, low, step = y[i], lows[i], steps[i]
        for j in range(row.size):
            x = row[j] * step + (low * sums[j] + bias[j])
            size = abs(x)
            z = size * _ROOT
            power = _ONE + z * (_C1 + z * (_C2 + z * (_C3 + z * (_C4 + z * (_C5 + z * _C6)))))
            power *= power
            power *= power
            power *= power
            power *= power
            row[j] = _HALF * (x + size * (_ONE - _ONE / power))
        lows[i], steps[i] = _quantize_row(row, out[i])


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def add_and_norm(
    y: Any, lows: Any, steps: Any, sums: Any, bias: Any, states: Any, weight: Any, shift: Any, eps: Any, out: Any
) -> None:
    """Outputs added to `states` [n, d] and normalised there, and as 8-bit rows; `y` is overwritten."""
    size = np.float32(states.shape[1])
    for i in range(len(y)):
        row, state, low, step = y[i], states[i], lows[i], steps[i]
        total = _ZERO
        for j in range(row.size):
            row[j] = row[j] * step + (low * sums[j] + bias[j]) + state[j]
            total += row[j]
        mean = total / size
        total = _ZERO
        for j in range(row.size):
            total += (row[j] - mean) * (row[j] - mean)
        scale = _ONE / np.sqrt(total / size + eps)
        for j in range(row.size):
            state[j] = (row[j] - mean) * scale * weight[j] + shift[j]
        lows[i], steps[i] = _quantize_row(state, out[i])
