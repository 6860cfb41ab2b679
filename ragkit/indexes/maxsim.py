"""Exact MaxSim: how well a set of query vectors finds itself among the vectors of a document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragkit.indexes.base import Scores

Matrix = NDArray[np.floating[Any]]
"""[vectors, dimension], float32 or float16."""


def maxsim(query: Matrix, documents: Sequence[Matrix]) -> Scores:
    """For each document the sum, over the query's vectors, of the largest inner product with one of its own: [documents] float64.

    The scoring of ColBERT (Khattab and Zaharia 2020, arXiv:2004.12832). A document without vectors has the score minus infinity,
    a query without vectors gives all others 0. Products are computed in float32, document by document, so that a score depends on
    nothing but query and document.
    """
    columns = np.ascontiguousarray(query, np.float32).T
    return np.array([_best(np.asarray(each, np.float32), columns) for each in documents], np.float64)


def maxsim_flat(query: Matrix, tokens: Matrix, starts: NDArray[np.int64], rows: NDArray[np.int64] | None = None) -> Scores:
    """`maxsim` over documents that lie one after another: document i is `tokens[starts[i] : starts[i + 1]]`.

    `tokens` [vectors, dimension] may be memory-mapped; of it only what belongs to `rows` (document numbers; all, if not given) is
    read. `starts` has one entry more than there are documents.
    """
    if rows is None:
        rows = np.arange(len(starts) - 1)
    return maxsim(query, [tokens[starts[row] : starts[row + 1]] for row in rows])


def _best(document: NDArray[np.float32], columns: NDArray[np.float32]) -> float:
    if not len(document):
        return -np.inf
    return float((document @ columns).max(0).sum(dtype=np.float64))
