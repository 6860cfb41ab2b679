"""Embeddings as an encoder, an encoder as embeddings, and what may be passed as an encoder."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from ragkit.encoders.dense import DenseEncoder
from ragkit.encoders.factory import as_encoder
from ragkit.encoders.langchain import EmbeddingsEncoder, EncoderEmbeddings
from ragkit.errors import InputError

FAKE = DeterministicFakeEmbedding(size=6)
TEXTS = [f"text {i}" for i in range(7)]


class Answers(Embeddings):
    """Returns what it is told to."""

    def __init__(self, vectors: list[list[float]]) -> None:
        self.vectors = vectors
        self.waiting = self.most_waiting = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.vectors

    def embed_query(self, text: str) -> list[float]:
        return self.vectors[0]

    async def aembed_query(self, text: str) -> list[float]:
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        await asyncio.sleep(0.01)
        self.waiting -= 1
        return [float(text), 1.0]


def test_vectors_are_those_of_the_embeddings() -> None:
    encoder, done = EmbeddingsEncoder(FAKE, batch_size=3), list[int]()
    vectors = encoder.encode_documents(TEXTS, done.append)
    np.testing.assert_allclose(vectors, FAKE.embed_documents(TEXTS), rtol=1e-6)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), [FAKE.embed_query(t) for t in TEXTS], rtol=1e-6)
    assert (vectors.dtype, done) == (np.float32, [3, 3, 1])


async def test_async_is_the_embeddings_own_and_concurrent() -> None:
    answers = Answers([])
    vectors = await EmbeddingsEncoder(answers).aencode_queries([str(i) for i in range(20)])
    assert vectors[:, 0].tolist() == list(range(20))
    assert answers.most_waiting == 20


def test_dimension_is_found_or_given() -> None:
    assert EmbeddingsEncoder(FAKE).dimension == 6
    assert EmbeddingsEncoder(FAKE).encode_documents([]).shape == (0, 6)
    with pytest.raises(InputError, match=r"^embeddings: .* length 6, not all of length 5"):
        EmbeddingsEncoder(FAKE, dimension=5).encode_queries(["a"])


@pytest.mark.parametrize(
    ("vectors", "text"),
    [
        ([[1.0]], "1 vectors for 2 texts"),
        ([[1.0], [1.0, 2.0]], "length 1, 2"),
        ([[], []], "length 0"),
        ([[1.0], [math.nan]], "NaN"),
        ([[1.0], [math.inf]], "infinity"),
    ],
)
def test_wrong_answers_are_named(vectors: list[list[float]], text: str) -> None:
    with pytest.raises(InputError, match=f"^embeddings: Answers returned .*{text}"):
        EmbeddingsEncoder(Answers(vectors)).encode_documents(["a", "b"])


def test_fingerprint() -> None:
    answers = Answers([])
    assert EmbeddingsEncoder(answers).fingerprint == {"kind": "langchain", "class": "Answers", "model": None}
    answers.model_name = "small"  # type: ignore[attr-defined]
    assert EmbeddingsEncoder(answers).fingerprint["model"] == "small"
    assert json.dumps(EmbeddingsEncoder(answers, name="mine").fingerprint)
    assert EmbeddingsEncoder(answers, name="a").fingerprint != EmbeddingsEncoder(answers, name="b").fingerprint


async def test_an_encoder_serves_langchain_stores() -> None:
    store = InMemoryVectorStore(EncoderEmbeddings(EmbeddingsEncoder(FAKE)))
    store.add_texts(TEXTS)
    assert store.similarity_search("text 3", k=1)[0].page_content == "text 3"
    assert (await store.asimilarity_search("text 4", k=1))[0].page_content == "text 4"


def test_as_encoder(tmp_path: Path) -> None:
    assert isinstance(as_encoder(), DenseEncoder)
    assert isinstance(as_encoder("some/hub-name"), DenseEncoder)  # not looked up before it is used
    encoder = as_encoder(FAKE)
    assert isinstance(encoder, EmbeddingsEncoder)
    assert as_encoder(encoder) is encoder
    for wrong in (3, object(), ["a"]):
        with pytest.raises(InputError, match=r"^encoder: "):
            as_encoder(wrong)  # type: ignore[arg-type]
    for wrong_name in (tmp_path, tmp_path / "nowhere", "/no/such/folder", "not a name"):
        with pytest.raises(InputError, match=r"^model: "):
            as_encoder(wrong_name)
