"""The BM25 family as pure functions: what a term is worth (idf), and what its frequency in a document is worth.

lucene, robertson and atire follow the table in Kamphuis et al., "Which BM25 do you mean?" (ECIR 2020); bm25l follows Lv and
Zhai, "When documents are very long, BM25 fails!" (SIGIR 2011); bm25+ follows Lv and Zhai, "Lower-bounding term frequency
normalization" (CIKM 2011); okapi is what the package rank_bm25 computes as BM25Okapi.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Variant = Literal["lucene", "robertson", "atire", "bm25l", "bm25+", "okapi"]
DELTAS = {"bm25l": 0.5, "bm25+": 1.0}
"""The usual `delta` of the variants that have one."""


def lucene_idf(frequencies: NDArray[Any], documents: int) -> Floats:
    """That of Lucene's BM25, from document frequencies: never negative, and highest for a term that no document contains."""
    values: Floats = np.log1p((documents - frequencies + 0.5) / (frequencies + 0.5))
    return values


def idf(variant: Variant, frequencies: NDArray[Any], documents: int, floor: float = 0.0) -> Floats:
    """Inverse document frequency of every term, from its document frequency; 0 for terms that no document contains.

    `floor` is used by okapi alone: what a term is worth whose idf is negative.
    """
    df = np.maximum(frequencies, 1).astype(np.float64)
    match variant:
        case "lucene":
            values = lucene_idf(df, documents)
        case "robertson" | "okapi":
            values = np.log((documents - df + 0.5) / (df + 0.5))
        case "atire":
            values = np.log(documents / df)
        case "bm25l":
            values = np.log((documents + 1) / (df + 0.5))
        case "bm25+":
            values = np.log((documents + 1) / df)
    if variant == "okapi":
        values = np.where(values < 0, floor, values)
    return np.where(frequencies > 0, values, 0.0)


class Saturation(NamedTuple):
    """What a weight v in a document is worth: offset + scale * (v + c * n) / (slope * v + e * n).

    n = 1 - b + b * (length of the document / mean length) grows with the length; the worth falls with n and is never
    negative. All of BM25 has this shape, and so has the weight itself (`PLAIN`).
    """

    offset: float
    scale: float
    c: float
    slope: float
    e: float
    b: float

    def __call__(self, weights: NDArray[Any], relative_lengths: NDArray[Any]) -> Floats:
        """Of weights above 0, in documents of these lengths in units of the mean."""
        n = 1 - self.b + self.b * np.asarray(relative_lengths, np.float64)
        v = np.asarray(weights, np.float64)
        return self.offset + self.scale * (v + self.c * n) / (self.slope * v + self.e * n)


PLAIN = Saturation(offset=0, scale=1, c=0, slope=0, e=1, b=0)
"""The weight as it is."""


def saturation(variant: Variant, k1: float, b: float, delta: float) -> Saturation:
    """How the variant sees a term that occurs v times."""
    match variant:
        case "lucene" | "robertson":
            return Saturation(0, 1, 0, 1, k1, b)
        case "atire" | "okapi":
            return Saturation(0, k1 + 1, 0, 1, k1, b)
        case "bm25l":
            return Saturation(0, k1 + 1, delta, 1, k1 + delta, b)
        case "bm25+":
            return Saturation(delta, k1 + 1, 0, 1, k1, b)
