"""The kinds of vector index, and which one a collection of some size gets."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["flat", "hnsw", "ivf", "sq8", "ivfpq", "binary"]
"""What a search reads first: every vector ("flat"), or compact codes of them."""
IndexKind = Literal["auto"] | Kind

FLAT_UP_TO = 100_000
LISTS_UP_TO = 1_000_000


class Depth(NamedTuple):
    """How deep the codes of a kind are searched: `factor` * k candidates, and at least `least`."""

    factor: int
    least: int


# The coarser a code, the further down the true best may lie.
DEPTHS: dict[Kind, Depth] = {
    "hnsw": Depth(4, 64),
    "ivf": Depth(4, 40),
    "sq8": Depth(4, 40),
    "ivfpq": Depth(10, 100),
    "binary": Depth(10, 100),
}


def choose(count: int) -> Kind:
    """The kind for `count` vectors: "flat" up to 100,000, then "ivf", and "binary" above a million.

    An exact search of 100,000 vectors takes some milliseconds. One byte per dimension then takes a quarter of the memory, and
    above a million vectors one bit per dimension a fifteenth or less.
    """
    if count <= FLAT_UP_TO:
        return "flat"
    return "ivf" if count <= LISTS_UP_TO else "binary"
