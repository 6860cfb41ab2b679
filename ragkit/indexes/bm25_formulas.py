"""The BM25 family as pure functions: what a term is worth (idf), and what its frequency in a document is worth.

lucene, robertson and atire follow the table in Kamphuis et al., "Which BM25 do you mean?" (ECIR 2020); bm25l follows Lv and
Zhai, "When documents are very long, BM25 fails!" (SIGIR 2011); bm25+ follows Lv and Zhai, "Lower-bounding term frequency
normalization" (CIKM 2011); okapi is what the package rank_bm25 computes as BM25Okapi.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Variant = Literal["lucene", "robertson", "atire", "bm25l", "bm25+", "okapi"]
DELTAS = {"bm25l": 0.5, "bm25+": 1.0}
"""The usual `delta` of the variants that have one."""


def idf(variant: Variant, frequencies: NDArray[Any], documents: int, epsilon: float = 0.25) -> Floats:
    """Inverse document frequency of every term, from its document frequency; 0 for terms that no document contains.

    `epsilon` is used by okapi alone: a negative idf becomes `epsilon` times the mean idf over all terms, as in rank_bm25.
    """
    df = np.maximum(frequencies, 1).astype(np.float64)
    match variant:
        case "lucene":
            values = np.log1p((documents - df + 0.5) / (df + 0.5))
        case "robertson" | "okapi":
            values = np.log((documents - df + 0.5) / (df + 0.5))
        case "atire":
            values = np.log(documents / df)
        case "bm25l":
            values = np.log((documents + 1) / (df + 0.5))
        case "bm25+":
            values = np.log((documents + 1) / df)
    present = frequencies > 0
    if variant == "okapi" and present.any():
        values = np.where(values < 0, epsilon * values[present].mean(), values)
    return np.where(present, values, 0.0)


def saturate(variant: Variant, tf: NDArray[Any], length: Floats, k1: float, b: float, delta: float) -> Floats:
    """Weight of a term that occurs `tf` > 0 times in a document of `length` times the average length."""
    norm = 1 - b + b * length
    match variant:
        case "lucene" | "robertson":
            return tf / (tf + k1 * norm)
        case "atire" | "okapi":
            return tf * (k1 + 1) / (tf + k1 * norm)
        case "bm25l":
            normed = tf / norm + delta
            return (k1 + 1) * normed / (k1 + normed)
        case "bm25+":
            return delta + tf * (k1 + 1) / (tf + k1 * norm)
