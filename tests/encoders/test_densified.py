"""Densified sparse vectors against a straight-line reference, and what the approximation promises."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit.documents.tokens import RegexTokenizer
from ragkit.encoders.densified import DensifiedEncoder, densify, gated_inner_product
from ragkit.errors import InputError
from ragkit.sparse_vectors import SparseVectors

VOCABULARY = 30
Row = dict[int, float]
rows = st.dictionaries(st.integers(0, VOCABULARY - 1), st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.25]), max_size=20)


def vectors_of(rows: Sequence[Row]) -> SparseVectors:
    return SparseVectors.of([(list(row), list(row.values())) for row in rows])


def reference(row: Row, slices: int) -> list[tuple[float, int]]:
    """Of each slice the largest weight and its term's place, by looking at every term of the slice."""
    found = []
    for m in range(slices):
        best, place = 0.0, -1
        for term in range(m, VOCABULARY, slices):
            if row.get(term, 0.0) > best:
                best, place = row[term], (term - m) // slices
        found.append((best, place))
    return found


@given(st.lists(rows, max_size=6), st.integers(1, VOCABULARY))
def test_densify_keeps_the_largest_weight_of_each_slice(texts: list[Row], slices: int) -> None:
    values, indices = densify(vectors_of(texts), VOCABULARY, slices)
    assert values.shape == indices.shape == (len(texts), slices)
    assert (values.dtype, indices.dtype) == (np.float32, np.int32)
    for i, row in enumerate(texts):
        assert list(zip(values[i].tolist(), indices[i].tolist(), strict=True)) == reference(row, slices)


@given(rows, st.lists(rows, min_size=1, max_size=6), st.integers(1, VOCABULARY))
def test_gated_inner_product_counts_slices_that_kept_the_same_term(query: Row, texts: list[Row], slices: int) -> None:
    q_values, q_indices = densify(vectors_of([query]), VOCABULARY, slices)
    values, indices = densify(vectors_of(texts), VOCABULARY, slices)
    scores = gated_inner_product(q_values[0], q_indices[0], values, indices)
    for score, row in zip(scores, texts, strict=True):
        pairs = zip(reference(query, slices), reference(row, slices), strict=True)
        assert score == pytest.approx(sum(q * d for (q, q_at), (d, d_at) in pairs if q_at == d_at))
    assert (values.astype(float) @ q_values[0] >= scores - 1e-6).all()
    assert all(score <= sum(w * row.get(t, 0) for t, w in query.items()) + 1e-6 for score, row in zip(scores, texts, strict=True))


@given(rows, rows)
def test_as_many_slices_as_terms_lose_nothing(query: Row, text: Row) -> None:
    (q_values, q_indices), (values, indices) = (densify(vectors_of([row]), VOCABULARY, VOCABULARY) for row in (query, text))
    exact = sum(weight * text.get(term, 0.0) for term, weight in query.items())
    assert gated_inner_product(q_values[0], q_indices[0], values, indices)[0] == pytest.approx(exact)


def test_wrong_input_is_named() -> None:
    for row, slices, field in [
        ({1: 1.0}, 0, "slices"),
        ({1: 1.0}, 31, "slices"),
        ({30: 1.0}, 5, "vectors"),
        ({1: -1.0}, 5, "vectors"),
    ]:
        with pytest.raises(InputError, match=f"^{field}: "):
            densify(vectors_of([row]), VOCABULARY, slices)


class LetterEncoder:
    """Weighs letters by how often they occur, and vowels of queries twice."""

    vocabulary = 26
    tokenizer = RegexTokenizer()
    fingerprint: Mapping[str, Any] = {"kind": "letters", "model": "letters"}

    def encode_queries(self, texts: Sequence[str]) -> SparseVectors:
        return self.encode([text + "".join(c for c in text if c in "aeiou") for text in texts])

    async def aencode_queries(self, texts: Sequence[str]) -> SparseVectors:
        return self.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str], progress: Any = None) -> SparseVectors:
        if progress:
            progress(len(texts))
        return self.encode(texts)

    @staticmethod
    def encode(texts: Sequence[str]) -> SparseVectors:
        return SparseVectors.count([[ord(c) - 97 for c in text if c.isalpha()] for text in texts])

    def terms(self, ids: Sequence[int]) -> list[str]:
        return [chr(97 + i) for i in ids]


TEXTS = ["the cat sat on the mat", "dogs bark at cats", "a fish swims", "", "mathematics", "tactics"]


async def test_vectors_join_the_sparse_and_the_dense_encoder(make_encoder: Any) -> None:
    sparse, dense, done = LetterEncoder(), make_encoder(), list[int]()
    encoder = DensifiedEncoder(sparse, 8, dense=dense, weight=0.25)
    assert encoder.dimension == 8 + dense.dimension
    documents, queries = encoder.encode_documents(TEXTS, done.append), encoder.encode_queries(TEXTS)
    assert documents.dtype == queries.dtype == np.float32
    assert sum(done) == len(TEXTS)
    values, indices = encoder.densify_documents(TEXTS)
    q_values, q_indices = encoder.densify_queries(TEXTS)
    np.testing.assert_allclose(values, densify(sparse.encode_documents(TEXTS), 26, 8)[0])
    expected = q_values @ values.T + 0.25 * dense.encode_queries(TEXTS) @ dense.encode_documents(TEXTS).T
    np.testing.assert_allclose(queries @ documents.T, expected, rtol=1e-5)
    np.testing.assert_allclose(await encoder.aencode_queries(TEXTS), queries)
    plain = DensifiedEncoder(sparse, 8)
    np.testing.assert_allclose(await plain.aencode_queries(TEXTS), q_values)
    np.testing.assert_allclose(plain.encode_documents(TEXTS), values)
    assert (indices[3] == -1).all()
    assert not values[3].any()
    assert q_indices.shape == (len(TEXTS), 8)


def test_fingerprint_follows_what_matters(make_encoder: Any) -> None:
    sparse = LetterEncoder()
    encoders = [
        DensifiedEncoder(sparse, 8),
        DensifiedEncoder(sparse, 9),
        DensifiedEncoder(sparse, 8, dense=make_encoder()),
        DensifiedEncoder(sparse, 8, dense=make_encoder(name="other")),
        DensifiedEncoder(sparse, 8, dense=make_encoder(), weight=2.0),
    ]
    assert len({json.dumps(encoder.fingerprint) for encoder in encoders}) == len(encoders)
    assert DensifiedEncoder(sparse, 8, weight=3.0).fingerprint == encoders[0].fingerprint
    for options, field in [({"slices": 0}, "slices"), ({"weight": -1.0}, "weight")]:
        with pytest.raises(InputError, match=f"^{field}: "):
            DensifiedEncoder(sparse, **options)


def test_one_faiss_index_holds_it_and_rescored_candidates_are_exact(tmp_path: Path) -> None:
    from ragkit.retrievers.dense import DenseRetriever

    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 12)) for _ in range(200)]
    encoder = DensifiedEncoder(LetterEncoder(), 20)
    retriever = DenseRetriever.from_texts(texts, encoder=encoder, path=tmp_path / "index")
    retriever = DenseRetriever.load(tmp_path / "index", encoder=encoder)
    values, indices = encoder.densify_documents(texts)
    proven = 0
    for query in texts[:20]:
        (q_values,), (q_indices,) = encoder.densify_queries([query])
        found = retriever.invoke(query, k=60)
        rows = [texts.index(document.page_content) for document in found]
        upper = [document.metadata["relevance_score"] for document in found]
        np.testing.assert_allclose(upper, values[rows] @ q_values, rtol=1e-5)
        rescored = np.sort(gated_inner_product(q_values, q_indices, values[rows], indices[rows]))[::-1]
        if rescored[4] >= upper[-1]:
            everything = np.sort(gated_inner_product(q_values, q_indices, values, indices))[::-1]
            np.testing.assert_allclose(rescored[:5], everything[:5])
            proven += 1
    assert proven > 0
