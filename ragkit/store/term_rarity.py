"""How rare the terms of vectors are, for those who have their ids and not their words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError
from ragkit.store.snapshot import Snapshot
from ragkit.store.text_index import LexicalIndex


def rarity_of(snapshot: Snapshot, name: str, terms: NDArray[np.int32]) -> NDArray[np.float64]:
    """The inverse document frequency of each term id [terms] in the BM25 index of that name, by that of a term of one passage.

    So it lies between 0 and 1 for terms that some passage has. Raises `InputError` for an index that is not BM25.
    """
    index = snapshot.index(name)
    if not isinstance(index, LexicalIndex):
        raise InputError(f"index_name: {name!r} has no words; name a BM25 index")
    frequencies = np.append(index.index.frequencies(terms), 1)
    values = np.log1p((len(snapshot) - frequencies + 0.5) / (frequencies + 0.5))
    shares: NDArray[np.float64] = values[:-1] / values[-1]
    return shares
