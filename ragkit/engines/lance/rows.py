"""Passages as rows of the table, in Arrow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ragkit.corpus.rows import Row
from ragkit.engines.base import Seen
from ragkit.engines.lance.fields import fields_of
from ragkit.engines.lance.tables import key_of, token_of
from ragkit.sparse_vectors import SparseVectors


def passages_of(positions: Sequence[int], rows: Mapping[int, Row], columns: Mapping[str, Any], schema: Any) -> Any:
    """The rows at these positions as an Arrow table of the schema; `columns` are those of the indexes, in the same order."""
    import pyarrow as pa

    chosen = [rows[position] for position in positions]
    fields = [fields_of(row.metadata) for row in chosen]
    values: dict[str, Any] = {
        "position": list(positions),
        "key": [key_of(row.id) for row in chosen],
        **{name: [getattr(row, name) for row in chosen] for name in Row._fields},
        "source_key": [None if row.source is None else key_of(row.source) for row in chosen],
        "start": [json.loads(row.provenance).get("start") if row.provenance else None for row in chosen],
        "keys": [keys for keys, _ in fields],
        "held": [held for _, held in fields],
        **columns,
    }
    arrays = []
    for field in schema:
        its = values[field.name]
        arrays.append(its.cast(field.type) if hasattr(its, "cast") else pa.array(its, field.type))
    return pa.table(arrays, schema=schema)


def columns_of(number: int, seen: Seen) -> dict[str, Any]:
    """The columns of an index, by name, for passages as it sees them."""
    import pyarrow as pa

    if isinstance(seen, np.ndarray):
        return {f"vector_{number}": pa.FixedSizeListArray.from_arrays(pa.array(seen.ravel()), seen.shape[1])}
    if isinstance(seen, SparseVectors):
        kept = seen.without_zeros()
        starts, terms, weights = kept.starts, kept.terms.astype(np.int64), kept.weights
        return _weighted(number, starts, terms, weights)
    starts = np.cumsum([0, *map(len, seen)])
    weights = np.array([weight for terms in seen for weight in terms.values()], np.float32)
    keys = [[key_of(term) for term in terms] for terms in seen]
    words = [_words(its, terms.values()) for its, terms in zip(keys, seen, strict=True)]
    return {
        **_weighted(number, starts, np.array([key for its in keys for key in its], np.int64), weights),
        f"length_{number}": [float(sum(terms.values())) for terms in seen],
        f"words_{number}": words,
    }


def _weighted(number: int, starts: Any, terms: Any, weights: Any) -> dict[str, Any]:
    import pyarrow as pa

    offsets = pa.array(starts, pa.int32())
    return {
        f"terms_{number}": pa.ListArray.from_arrays(offsets, pa.array(terms)),
        f"weights_{number}": pa.ListArray.from_arrays(offsets, pa.array(weights)),
    }


def _words(keys: Iterable[int], weights: Iterable[float]) -> str:
    """Terms as LanceDB's full-text index counts them."""
    return " ".join(token for key, weight in zip(keys, weights, strict=True) for token in [token_of(key)] * max(round(weight), 1))
