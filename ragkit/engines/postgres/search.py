"""The searches as SQL. Each comes with its parameters; `{index}` and such are names of tables, never what a user has said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragkit.corpus.filters import Condition
from ragkit.engines.base import Statistics
from ragkit.engines.postgres.tables import table
from ragkit.errors import InputError
from ragkit.indexes.base import Positions, Ranking, empty_ranking, top_k
from ragkit.indexes.bm25 import BM25Index
from ragkit.indexes.bm25_formulas import idf
from ragkit.sparse_vectors import SparseVectors

if TYPE_CHECKING:
    from psycopg import Connection

_TERMS = 16_000  # of a sparse vector of pgvector's
_LONGEST = 200  # characters of a term; longer ones are known by their digest
_EF_SEARCH = 1_000
_SPARE = 32  # more than are asked for, so that rounding errors at the cut are set right

# The worth of a term, and the sum over the terms of a question: see `Saturation`, whose fields come as parameters.
_BM25 = """
SELECT position, score FROM (
  SELECT i.position, (
    SELECT sum(f.weight * (%(offset)s + %(scale)s * (f.v + %(c)s * n.n) / (%(slope)s * f.v + %(e)s * n.n)))
    FROM {frequencies} AS f
    CROSS JOIN (SELECT 1 - %(b)s::float8 + %(b)s::float8 * i.length / %(mean)s::float8 AS n) AS n
    WHERE f.v IS NOT NULL) AS score
  FROM {index} AS i {join}
  WHERE i.terms ?| %(terms)s::text[] {filter}) AS scored
ORDER BY score DESC, position LIMIT %(k)s
"""
_LOOKED_UP = """(
      SELECT q.weight, (i.terms -> q.term)::float8 AS v
      FROM unnest(%(terms)s::text[], %(weights)s::float8[]) AS q (term, weight))"""
# looking up a term reads all of a passage's, so with many in the question those of the passage are gone through once
_GONE_THROUGH = """(
      SELECT (%(question)s::jsonb -> key)::float8 AS weight, value::float8 AS v FROM jsonb_each(i.terms)
      WHERE %(question)s::jsonb ? key)"""
_FEW = 32


def stored_term(term: str) -> str:
    """The term as the index knows it."""
    return term if len(term) <= _LONGEST else "\1" + hashlib.blake2b(term.encode(), digest_size=16).hexdigest()


def vector_text(vector: NDArray[np.float32]) -> str:
    """A vector [dimension] as pgvector reads it; no digit is lost."""
    return f"[{','.join(map(repr, vector.tolist()))}]"


def sparse_text(terms: NDArray[np.int32], weights: NDArray[np.float32], dimension: int) -> str:
    """Weighted terms as pgvector reads them, without those that it does not have or whose weight is 0."""
    pairs = [
        f"{term + 1}:{weight!r}"
        for term, weight in zip(terms.tolist(), weights.tolist(), strict=True)
        if weight and term < dimension
    ]
    if len(pairs) > _TERMS:
        raise InputError(f"sparse vector: has {len(pairs)} terms, pgvector takes {_TERMS}; prune the encoder's weights")
    return f"{{{','.join(pairs)}}}/{dimension}"


def statistics(connection: Connection[Any], number: int, variant: str) -> Statistics:
    """Those of a lexical index."""
    from psycopg.sql import SQL

    documents, length = connection.execute(
        "SELECT documents, length FROM ragkit_indexes WHERE number = %s", [number]
    ).fetchone() or (0, 0.0)
    if variant != "okapi" or not documents:
        return Statistics(documents, length)
    query = SQL(
        "SELECT avg(ln((%(n)s - documents + 0.5::float8) / (documents + 0.5::float8))) FROM {} WHERE documents > 0"
    ).format(table("terms", number))
    (mean,) = connection.execute(query, {"n": documents}).fetchone() or (None,)
    return Statistics(documents, length, mean or 0.0)


def search_words(
    connection: Connection[Any],
    number: int,
    bm25: BM25Index,
    questions: Sequence[Mapping[str, int]],
    k: int,
    condition: Condition | None,
) -> list[Ranking]:
    """BM25 by the formula of `bm25`; candidates are the passages with a term of the question."""
    from psycopg.sql import SQL

    collection = statistics(connection, number, bm25.variant)
    distinct = list({stored_term(term) for question in questions for term in question})
    counted = SQL("SELECT term, documents FROM {} WHERE term = ANY(%s)").format(table("terms", number))
    frequencies = dict(connection.execute(counted, [distinct]).fetchall())
    floor = bm25.epsilon * collection.mean_idf
    rankings = []
    for question in questions:
        known = {stored_term(term): count for term, count in question.items() if frequencies.get(stored_term(term))}
        if not known:
            rankings.append(empty_ranking())
            continue
        found = np.array([frequencies[term] for term in known], np.int64)
        weights = np.array(list(known.values()), np.float64) * idf(bm25.variant, found, collection.documents, floor)
        parameters = {
            **{field: float(value) for field, value in bm25.formula._asdict().items()},
            "terms": list(known),
            "weights": weights.tolist(),
            "question": json.dumps(dict(zip(known, weights.tolist(), strict=True)), ensure_ascii=False),
            "mean": collection.mean_length,
            "k": k,
        }
        query = _BM25.replace("{frequencies}", _LOOKED_UP if len(known) <= _FEW else _GONE_THROUGH)
        rows = _rows(connection, number, query, parameters, condition)
        rankings.append(Ranking(_positions(rows), np.array([score for _, score in rows], np.float64)))
    return rankings


def search_vectors(
    connection: Connection[Any], number: int, kind: str, vectors: NDArray[np.float32], k: int, condition: Condition | None
) -> list[Ranking]:
    """Highest inner products, by reading every vector."""
    # the sum with nothing keeps the planner from an approximate index
    order = f"(i.vector <#> %(vector)s::{kind}) + 0"
    return [_nearest(connection, number, order, vector, k, condition) for vector in vectors]


def search_graph(
    connection: Connection[Any], number: int, kind: str, vectors: NDArray[np.float32], k: int, condition: Condition | None
) -> list[Ranking]:
    """Highest inner products by an HNSW graph; exactly for those for which it finds fewer than `k`."""
    wide = min(max(4 * k, 64), _EF_SEARCH)
    connection.execute(
        "SELECT set_config('hnsw.ef_search', %s, true), set_config('hnsw.iterative_scan', 'strict_order', true)", [str(wide)]
    )
    rankings = []
    for vector in vectors:
        ranking = _nearest(connection, number, f"i.vector <#> %(vector)s::{kind}", vector, k, condition)
        if len(ranking.positions) < k:
            [ranking] = search_vectors(connection, number, kind, vector[np.newaxis], k, condition)
        rankings.append(ranking)
    return rankings


def search_sparse(
    connection: Connection[Any], number: int, dimension: int, vectors: SparseVectors, k: int, condition: Condition | None
) -> list[Ranking]:
    """Highest inner products of those that share a term, by reading every vector."""
    query = """
    SELECT position, sparsevec_send(vector) FROM (
      SELECT i.position, i.vector, i.vector <#> %(vector)s::sparsevec AS distance FROM {index} AS i {join} WHERE true {filter}
    ) AS scored WHERE distance <> 0 ORDER BY distance, position LIMIT %(k)s"""
    rankings = []
    for row in range(len(vectors)):
        terms, weights = vectors.row(row)
        parameters = {"vector": sparse_text(terms, weights, dimension), "k": k + _SPARE}
        found = _rows(connection, number, query, parameters, condition)
        scores = [_product(terms, weights, *_sparse(sent)) for _, sent in found]
        rankings.append(top_k(_positions(found), np.array(scores, np.float64), k))
    return rankings


def sent_vector(sent: bytes) -> NDArray[np.float32]:
    """A vector [dimension] as `vector_send` sends it: two numbers of 16 bits, and its elements."""
    return np.frombuffer(sent, ">f4", offset=4).astype(np.float32)


def _sparse(sent: bytes) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Terms and weights as `sparsevec_send` sends them: dimension, number of terms, a zero, terms, weights."""
    count = int(np.frombuffer(sent, ">i4", 1, 4)[0])
    return (
        np.frombuffer(sent, ">i4", count, 12).astype(np.int32),
        np.frombuffer(sent, ">f4", count, 12 + 4 * count).astype(np.float32),
    )


def _product(
    terms: NDArray[np.int32], weights: NDArray[np.float32], others: NDArray[np.int32], theirs: NDArray[np.float32]
) -> float:
    _, ours, at = np.intersect1d(terms, others, assume_unique=True, return_indices=True)
    # one after the other, as the inverted index adds them up
    return float(np.add.accumulate(weights[ours].astype(np.float64) * theirs[at])[-1]) if len(ours) else 0.0


def _nearest(
    connection: Connection[Any], number: int, order: str, vector: NDArray[np.float32], k: int, condition: Condition | None
) -> Ranking:
    """The server's products are sums in 32 bits; those of the passages that it finds are summed up again in 64."""
    query = f"""
    SELECT i.position, vector_send(i.vector::vector) FROM {{index}} AS i {{join}} WHERE true {{filter}}
    ORDER BY {order}, i.position LIMIT %(k)s"""
    found = _rows(connection, number, query, {"vector": vector_text(vector), "k": k + _SPARE}, condition)
    matrix = np.array([sent_vector(sent) for _, sent in found], np.float32).reshape(-1, len(vector))
    return top_k(_positions(found), np.einsum("nd,d->n", matrix, vector, dtype=np.float64), k)


def _rows(
    connection: Connection[Any], number: int, query: str, parameters: dict[str, Any], condition: Condition | None
) -> list[Any]:
    from psycopg.sql import SQL

    join, filter = SQL(""), SQL("")
    if condition is not None:
        join = SQL("JOIN ragkit_passages AS p ON p.position = i.position")
        # all parameters of a query have names
        named = {f"filter{n}": value for n, value in enumerate(condition.parameters)}
        places = iter(named)
        pieces = condition.sql.split("%s")
        filter = SQL("AND " + pieces[0] + "".join(f"%({next(places)})s{piece}" for piece in pieces[1:]))
        parameters = {**parameters, **named}
    statement = SQL(query).format(index=table("index", number), join=join, filter=filter)
    return connection.execute(statement, parameters, binary=True).fetchall()


def _positions(rows: Sequence[Any]) -> Positions:
    return np.fromiter((row[0] for row in rows), np.int64, len(rows))
