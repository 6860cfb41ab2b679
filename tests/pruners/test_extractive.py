"""The extractive pruner's scores against their definitions, written out one sentence at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from ragkit import ExtractivePruner, InputError, provenance
from ragkit.documents.sentences import units_of
from ragkit.encoders.lexical import Analyzer

TEXTS = [
    "The apple fell from the tree. Nobody saw it. Newton ate the apple, and another apple.",
    "Pears grow on trees as well.\n\nA tree has leaves.",
    "Nothing here matches.",
    "日本の林檎。",
]


class Unnormalised(Embeddings):
    """Counts of letters: vectors of very different lengths."""

    def embed_query(self, text: str) -> list[float]:
        return [float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def documents(texts: Sequence[str]) -> list[Document]:
    return [Document(id=str(n), page_content=text) for n, text in enumerate(texts)]


def sentences(found: Sequence[Document]) -> list[list[str]]:
    return [[document.page_content[unit.start : unit.end] for unit in units_of(document)] for document in found]


def cosine(a: Any, b: Any) -> float:
    lengths = math.hypot(*map(float, a)) * math.hypot(*map(float, b))
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def bm25(terms: list[str], pool: list[list[str]], query: list[str], k1: float = 1.2, b: float = 0.75) -> float:
    """Lucene's BM25 of one sentence among all sentences of the question."""
    mean = sum(map(len, pool)) / len(pool)
    score = 0.0
    for term in query:
        frequency = sum(term in other for other in pool)
        if count := Counter(terms)[term]:
            idf = math.log(1 + (len(pool) - frequency + 0.5) / (frequency + 0.5))
            score += idf * count / (count + k1 * (1 - b + b * len(terms) / mean))
    return score


def assert_scored(pruner: ExtractivePruner, texts: Sequence[str], query: str, raw: list[list[float]]) -> None:
    """Scores are shares of the best raw score, and what reaches the threshold is kept."""
    best = max(score for its_scores in raw for score in its_scores)
    found = pruner.compress_documents(documents(texts), query)
    assert len(found) == len(texts)
    for document, its_raw, its_sentences in zip(found, raw, sentences(documents(texts)), strict=True):
        record = provenance(document)
        shares = [max(score / best, 0.0) for score in its_raw]
        assert record.unit_scores == pytest.approx(shares, abs=1e-6)
        kept = [s for s, share in zip(its_sentences, shares, strict=True) if share > 0 and share >= pruner.threshold - 1e-6]
        assert document.page_content.split() == " ".join(kept).split()


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("query", ["apple", "the tree has an apple", "Newton ate the apple"])
def test_dense_scores_are_cosines(encoder: Any, threshold: float, query: str) -> None:
    vector = encoder.encode_queries([query])[0]
    raw = [[cosine(vector, encoder.encode_documents([text])[0]) for text in its] for its in sentences(documents(TEXTS))]
    assert_scored(ExtractivePruner(scorer="dense", encoder=encoder, threshold=threshold, drop_empty=False), TEXTS, query, raw)


def test_dense_scores_are_cosines_for_embeddings_of_any_length() -> None:
    embeddings, query = Unnormalised(), "an apple tree"
    texts = [text for text in TEXTS if text.isascii()]
    raw = [
        [cosine(embeddings.embed_query(query), embeddings.embed_query(text)) for text in its]
        for its in sentences(documents(texts))
    ]
    assert_scored(ExtractivePruner(scorer="dense", encoder=embeddings, threshold=0.8, drop_empty=False), texts, query, raw)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("query", ["apple", "trees and apples, apples", "林檎"])
def test_bm25_scores_are_the_formula(threshold: float, query: str) -> None:
    analyzer = Analyzer("english")
    terms = [[analyzer(text) for text in its] for its in sentences(documents(TEXTS))]
    pool = [its_terms for its in terms for its_terms in its]
    raw = [[bm25(its_terms, pool, analyzer(query)) for its_terms in its] for its in terms]
    assert_scored(ExtractivePruner(scorer="bm25", threshold=threshold, drop_empty=False), TEXTS, query, raw)


def test_the_best_sentence_of_all_documents_sets_the_measure(encoder: Any) -> None:
    found = ExtractivePruner(scorer="dense", encoder=encoder, threshold=1.0).compress_documents(
        documents(TEXTS), "A tree has leaves."
    )
    assert [(document.id, document.page_content) for document in found] == [("1", "A tree has leaves.")]
    assert max(provenance(found[0]).unit_scores or ()) == 1.0


@pytest.mark.parametrize("scorer", ["dense", "bm25"])
@pytest.mark.parametrize("query", ["", " ", "?!", "zzz qqq"])
def test_a_question_like_nothing_keeps_nothing(encoder: Any, scorer: Any, query: str) -> None:
    texts = ["The apple fell. It is red.", ""]
    pruner = ExtractivePruner(scorer=scorer, encoder=encoder, threshold=0)
    assert pruner.compress_documents(documents(texts), query) == []
    (first, second) = pruner.model_copy(update={"drop_empty": False}).compress_documents(documents(texts), query)
    assert (first.page_content, second.page_content) == ("", "")
    assert provenance(first).unit_scores == (0.0, 0.0)
    (least,) = pruner.model_copy(update={"min_sentences": 1}).compress_documents(documents(texts), query)
    assert least.page_content == "The apple fell."


@pytest.mark.parametrize("scorer", ["dense", "bm25"])
def test_questions_do_not_mix(encoder: Any, scorer: Any) -> None:
    """Each question is measured by its own best sentence, whatever else is in the batch."""
    pruner = ExtractivePruner(scorer=scorer, encoder=encoder, threshold=0.6)
    inputs: list[Any] = [
        {"documents": documents(texts), "query": query}
        for texts, query in ((TEXTS, "apple"), ([], "tree"), ([""], "tree"), (TEXTS[:1], "Nobody"), (TEXTS[1:], "leaves"))
    ]
    batch = pruner.batch(inputs)
    assert batch == [pruner.invoke(value) for value in inputs]
    assert [bool(found) for found in batch] == [True, False, False, True, True]


@pytest.mark.parametrize("scorer", ["dense", "bm25"])
def test_hundreds_of_passages(encoder: Any, scorer: Any) -> None:
    texts = [f"Passage number {n} is about plums. Its key is key{n} . The rest of {n} is silence." for n in range(200)]
    found = ExtractivePruner(scorer=scorer, encoder=encoder, threshold=1.0).compress_documents(documents(texts), "key123")
    kept = {document.id: document.page_content for document in found}
    assert kept["123"] == "Its key is key123 ."
    if scorer == "bm25":
        assert len(kept) == 1


def test_bm25_knows_other_languages() -> None:
    texts = ["Die Häuser sind alt. Die Katze schläft."]
    (found,) = ExtractivePruner(scorer="bm25", language="german", threshold=1.0).compress_documents(documents(texts), "ein Haus")
    assert found.page_content == "Die Häuser sind alt."
    with pytest.raises(InputError, match="klingon"):
        ExtractivePruner(scorer="bm25", language="klingon").compress_documents(documents(texts), "Haus")


def test_what_is_no_encoder_is_named() -> None:
    with pytest.raises(InputError, match="encoder: int is neither"):
        ExtractivePruner(scorer="dense", encoder=3).compress_documents(documents(TEXTS), "apple")


def test_sentences_and_questions_are_each_encoded_their_own_way(make_encoder: Any) -> None:
    class Asymmetric(make_encoder):  # type: ignore[misc]
        def encode_queries(self, texts: Sequence[str]) -> Any:
            return super().encode_queries([text.removeprefix("query: ") for text in texts])

        def encode_documents(self, texts: Sequence[str], progress: Any = None) -> Any:
            assert not any(text.startswith("query: ") for text in texts)
            return make_encoder.encode_queries(self, texts)

    pruner = ExtractivePruner(scorer="dense", encoder=Asymmetric(), threshold=0.9)
    found = pruner.compress_documents(documents(TEXTS), "query: nothing here matches.")
    assert [document.page_content for document in found] == ["Nothing here matches."]


def test_nothing_is_encoded_for_no_documents(encoder: Any) -> None:
    assert ExtractivePruner(scorer="dense", encoder=encoder).batch([{"documents": [], "query": "q"}]) == [[]]
    assert encoder.encoded == 0


def test_what_an_encoder_fails_on_is_kept_whole(make_encoder: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(make_encoder):  # type: ignore[misc]
        def encode_documents(self, texts: Sequence[str], progress: Any = None) -> Any:
            return np.full((len(texts), self.dimension), np.nan, np.float32)

    kept = ExtractivePruner(encoder=Broken()).compress_documents(documents(TEXTS), "apple")
    assert [document.page_content for document in kept] == TEXTS
    assert "kept" in caplog.text


def test_lone_surrogates_stay_where_they_are() -> None:
    text = "The apple \udce9 fell. Nothing else."
    [kept] = ExtractivePruner(scorer="bm25").compress_documents(documents([text]), "apple \ud800")
    assert kept.page_content == "The apple \udce9 fell."


def test_hybrid_is_the_mean_of_the_other_two(make_encoder: Any) -> None:
    def scores(scorer: Any) -> Any:
        pruner = ExtractivePruner(scorer=scorer, encoder=make_encoder(), drop_empty=False)
        return [provenance(document).unit_scores for document in pruner.compress_documents(documents(TEXTS), "apple tree")]

    for mean, dense, bm25 in zip(scores("hybrid"), scores("dense"), scores("bm25"), strict=True):
        np.testing.assert_allclose(mean, (np.array(dense) + np.array(bm25)) / 2)
