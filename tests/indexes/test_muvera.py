"""Fixed dimensional encodings against the paper's definition in loops, and what they promise about MaxSim (seeded statistics)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.errors import InputError
from ragkit.indexes.maxsim import maxsim
from ragkit.indexes.muvera import Muvera


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def straight(muvera: Muvera, matrix: np.ndarray, document: bool) -> np.ndarray:
    """The definition, cell by cell, from the same random numbers; without the final projection."""
    blocks = []
    planes = muvera._planes.reshape(muvera.dimension, muvera.repetitions, muvera.bits)
    for repetition in range(muvera.repetitions):
        hashes = [[float(vector @ plane) > 0 for plane in planes[:, repetition].T] for vector in matrix]
        if muvera._signs is None:
            projected = list(matrix)
        else:
            width = muvera.projected or 0
            projected = [vector @ muvera._signs[:, repetition * width : (repetition + 1) * width] for vector in matrix]
        for cell in range(2**muvera.bits):
            bits = [bool(cell >> bit & 1) for bit in range(muvera.bits)]
            inside = [vector for vector, its_hash in zip(projected, hashes, strict=True) if its_hash == bits]
            if not document:
                blocks.append(np.sum(inside, axis=0) if inside else np.zeros_like(projected[0]))
            elif inside:
                blocks.append(np.mean(inside, axis=0))
            else:
                distances = [sum(a != b for a, b in zip(its_hash, bits, strict=True)) for its_hash in hashes]
                blocks.append(projected[int(np.argmin(distances))])
    return np.concatenate(blocks) / np.sqrt(muvera.repetitions)


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 12),
    bits=st.integers(0, 4),
    projected=st.sampled_from([None, 1, 3]),
    repetitions=st.integers(1, 3),
)
@settings(max_examples=60)
def test_encodings_are_those_of_the_definition(seed: int, count: int, **options: Any) -> None:
    muvera = Muvera(5, seed=seed, **options)
    matrix = unit(np.random.default_rng(seed), count, 5)
    for document, encoded in ((False, muvera.queries([matrix])), (True, muvera.documents([matrix]))):
        assert encoded.shape == (1, muvera.size)
        assert encoded.dtype == np.float32
        np.testing.assert_allclose(encoded[0], straight(muvera, matrix, document), atol=1e-5)


def estimates(queries: np.ndarray, documents: np.ndarray, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Inner products of encodings, and MaxSim, for each pair."""
    muvera = Muvera(queries.shape[-1], **options)
    exact = np.array([maxsim(query, list(documents)) for query in queries])
    return muvera.queries(list(queries)) @ muvera.documents(list(documents)).T, exact


def test_estimates_approach_maxsim_as_repetitions_grow() -> None:
    rng = np.random.default_rng(5)
    topics = unit(rng, 12, 32)
    documents = unit(rng, 60, 12, 32) * 0.1 + topics[rng.integers(12, size=(60, 12))]
    queries = unit(rng, 15, 6, 32) * 0.1 + topics[rng.integers(12, size=(15, 6))]
    documents, queries = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (documents, queries))
    documents, queries = documents.astype(np.float32), queries.astype(np.float32)
    errors, correlations = [], []
    for repetitions in (1, 4, 16, 64, 256):
        found, exact = estimates(queries, documents, repetitions=repetitions, bits=5, projected=16, seed=7)
        # what is left when repetitions grow is the bias of the cells; it is much the same for all pairs
        errors.append(float(np.std(found - exact)))
        correlations.append(float(np.corrcoef(found.ravel(), exact.ravel())[0, 1]))
    assert errors == sorted(errors, reverse=True)
    assert correlations == sorted(correlations)
    assert errors[-1] < errors[0] / 3
    assert correlations[-1] > 0.95


def test_estimates_reach_maxsim_where_cells_hold_one_topic() -> None:
    rng = np.random.default_rng(8)
    topics = unit(rng, 4, 48)
    # each document has every topic once or not at all: nothing is averaged over topics that share no cell
    documents = np.stack([topics[[a, b]] for a in range(4) for b in range(4)])
    queries = topics[:, None, :]
    found, exact = estimates(queries, documents, repetitions=300, bits=6, projected=None, seed=1)
    # a query's own topic lies in its own cell alone, up to the topics that meet it by chance
    own = exact > 0.99
    assert np.abs(found - exact)[own].max() < 0.05
    assert (found <= exact + 1e-5).all()  # cells can only miss the best vector, without projections


def test_the_final_projection_keeps_inner_products_on_average() -> None:
    rng = np.random.default_rng(9)
    query, document = unit(rng, 4, 16), unit(rng, 9, 16)
    options: dict[str, Any] = {"repetitions": 4, "bits": 3, "projected": None}
    errors, bounds = [], []
    for seed in range(200):
        sketched, whole = Muvera(16, **options, final=128, seed=seed), Muvera(16, **options, seed=seed)
        assert sketched.size == 128
        asked, there = whole.queries([query])[0], whole.documents([document])[0]
        errors.append(float(sketched.queries([query])[0] @ sketched.documents([document])[0] - asked @ there))
        # the variance of a count sketch's inner product (Charikar, Chen, Farach-Colton 2002)
        bounds.append((asked @ asked * (there @ there) + (asked @ there) ** 2) / 128)
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(len(errors))
    assert np.std(errors) < 1.2 * np.sqrt(np.mean(bounds))


def test_the_seed_decides() -> None:
    matrix = unit(np.random.default_rng(0), 3, 6)
    first, same, other = (Muvera(6, final=50, seed=seed).documents([matrix]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    rebuilt = Muvera(**Muvera(6, final=50, seed=1).settings)
    np.testing.assert_array_equal(rebuilt.documents([matrix]), first)
    assert rebuilt.documents([]).shape == (0, 50)


def test_wrong_numbers_are_named() -> None:
    for options, field in [
        ({"dimension": 0}, "dimension"),
        ({"repetitions": 0}, "repetitions"),
        ({"bits": -1}, "bits"),
        ({"bits": 9}, "bits"),
        ({"projected": 0}, "projected"),
        ({"final": 0}, "final"),
    ]:
        with pytest.raises(InputError, match=f"^{field}: "):
            Muvera(**({"dimension": 4} | options))
