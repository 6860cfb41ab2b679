"""The sparse retriever and its index: a fake encoder against brute force, and a tiny model from its folder."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document

from ragkit.corpus.rows import IndexedText
from ragkit.documents.tokens import RegexTokenizer
from ragkit.errors import InputError, StoreError
from ragkit.retrievers.sparse import SparseRetriever
from ragkit.sparse_vectors import SparseVectors
from ragkit.store.sparse_index import SparseIndex
from ragkit.store.store import Store

TEXTS = [
    "the cat sat on the mat",
    "dogs bark at the cat",
    "a fish swims",
    "cat and dog and fish",
    "nothing here",
    "cat and dog and fish",
    "",
]


class WordEncoder:
    """Weighs hashed words by their length; queries also expand a word to its plural. Counts what it encodes."""

    vocabulary = 1000
    tokenizer = RegexTokenizer()

    def __init__(self, name: str = "words") -> None:
        self.name, self.encoded = name, 0

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {"kind": "words", "model": self.name, "salt": len(self.name)}

    @staticmethod
    def weights(text: str, expand: bool) -> dict[int, float]:
        found: dict[int, float] = {}
        for word in text.split():
            for term, factor in ((word, 1.0), (word + "s", 0.5 * expand)):
                place = zlib.crc32(term.encode()) % WordEncoder.vocabulary
                found[place] = max(found.get(place, 0.0), factor * (0.3 + len(word) / 7))
        return {term: weight for term, weight in found.items() if weight}

    def encode(self, texts: Sequence[str], expand: bool) -> SparseVectors:
        rows = [self.weights(text, expand) for text in texts]
        return SparseVectors.of([(list(row), list(row.values())) for row in rows])

    def encode_queries(self, texts: Sequence[str]) -> SparseVectors:
        return self.encode(texts, expand=True)

    async def aencode_queries(self, texts: Sequence[str]) -> SparseVectors:
        return self.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str], progress: Any = None) -> SparseVectors:
        self.encoded += len(texts)
        if progress:
            progress(len(texts))
        return self.encode(texts, expand=False)

    def terms(self, ids: Sequence[int]) -> list[str]:
        return [str(id_) for id_ in ids]


def documents(texts: Sequence[str] = TEXTS) -> list[Document]:
    return [Document(id=str(n), page_content=text, metadata={"n": n}) for n, text in enumerate(texts)]


def brute_force(query: str, texts: Mapping[str, str], k: int) -> list[tuple[str, float]]:
    """Ids and scores of the best texts that share a term with the query; equal scores in the order of the texts."""
    asked, scored = WordEncoder.weights(query, True), []
    for id_, text in texts.items():
        has = WordEncoder.weights(text, False)
        if asked.keys() & has.keys():
            scored.append((id_, sum(weight * has.get(term, 0.0) for term, weight in asked.items())))
    return sorted(scored, key=lambda hit: -hit[1])[:k]


def hits(found: Sequence[Document]) -> list[tuple[str | None, float]]:
    return [(document.id, document.metadata["relevance_score"]) for document in found]


def same(found: Sequence[Document], expected: list[tuple[str, float]]) -> None:
    assert [id_ for id_, _ in hits(found)] == [id_ for id_, _ in expected]
    assert [score for _, score in hits(found)] == pytest.approx([score for _, score in expected], rel=1e-6)


QUERIES = ["cat", "dog fish", "the mat", "mat dog swims nothing", "unheard", "fish fish cat"]


async def test_rankings_equal_brute_force() -> None:
    retriever = SparseRetriever.from_documents(documents(), encoder=WordEncoder(), k=3)
    texts = {str(n): text for n, text in enumerate(TEXTS)}
    for query, found in zip(QUERIES, retriever.batch(QUERIES), strict=True):
        same(found, brute_force(query, texts, 3))
        same(await retriever.ainvoke(query, k=100), brute_force(query, texts, 100))
        kept = {id_: text for id_, text in texts.items() if int(id_) >= 3}
        same(retriever.invoke(query, filter={"n": {"$gte": 3}}), brute_force(query, kept, 3))
    assert retriever.invoke("") == []
    assert retriever.invoke("unheard") == []
    assert retriever.score_floor == 0.0


def test_changes_are_seen() -> None:
    retriever = SparseRetriever.from_documents(documents(), encoder=WordEncoder(), k=10)
    texts = {str(n): text for n, text in enumerate(TEXTS)}
    retriever.delete(["3"])
    del texts["3"]
    retriever.upsert([Document(id="9", page_content="a dog and a cat")])
    texts["9"] = "a dog and a cat"
    for query in QUERIES:
        same(retriever.invoke(query), brute_force(query, texts, 10))


def test_a_text_is_encoded_once_and_progress_counts_them_all() -> None:
    encoder, done = WordEncoder(), list[int]()
    index = SparseIndex(encoder)
    prepared = index.prepare([IndexedText(text) for text in TEXTS], [None] * len(TEXTS), done.append)
    assert encoder.encoded == len(set(TEXTS)) == len(TEXTS) - 1
    assert sum(done) == len(TEXTS)
    expected = encoder.encode(TEXTS, expand=False)
    for i in range(len(TEXTS)):
        for found, known in zip(prepared.row(i), expected.row(i), strict=True):
            np.testing.assert_array_equal(found, known)


def test_wrong_vectors_are_refused_before_anything_changes() -> None:
    class Wrong(WordEncoder):
        def encode_documents(self, texts: Sequence[str], progress: Any = None) -> SparseVectors:
            return SparseVectors.of([([1], [-1.0])] * len(texts))

    with pytest.raises(InputError, match=r"^encoder 'words': .*negative"):
        SparseRetriever.from_documents(documents(), encoder=Wrong())


def test_options(make_encoder: Any) -> None:
    for encoder in (None, make_encoder()):
        with pytest.raises(InputError, match=r"^encoder: "):
            SparseRetriever.from_texts(["a"], encoder=encoder)
    with pytest.raises(InputError, match="'language'"):
        SparseRetriever.from_texts(["a"], encoder=WordEncoder(), language="english")
    with pytest.raises(InputError, match=r"^ceiling: "):
        SparseRetriever.from_texts(["a"], encoder=WordEncoder(), ceiling=0.0)


@pytest.mark.parametrize("ceiling", [None, 2.0])
def test_a_directory_is_found_again(tmp_path: Path, ceiling: float | None) -> None:
    written = SparseRetriever.from_documents(documents(), path=tmp_path / "index", encoder=WordEncoder(), ceiling=ceiling)
    opened = SparseRetriever.load(tmp_path / "index", encoder=WordEncoder())
    for query in QUERIES:
        assert hits(opened.invoke(query)) == hits(written.invoke(query))
    opened.upsert([Document(id="new", page_content="unheard of")])
    assert [document.id for document in opened.invoke("unheard")] == ["new"]
    with Store.open(tmp_path / "index", encoder=WordEncoder()) as store:
        store.verify()
        assert store.snapshot.settings["sparse"]["impact"]["ceiling"] == ceiling
    with pytest.raises(StoreError, match="built with encoder 'words', not 'longer name'"):
        SparseRetriever.load(tmp_path / "index", encoder=WordEncoder("longer name")).invoke("cat")
    with pytest.raises(InputError, match=r"^encoder: "):
        SparseRetriever.load(tmp_path / "index").invoke("cat")


def test_a_model_by_its_folder(tmp_path: Path, one_thread: None) -> None:
    import tokenizers
    import torch
    from transformers import BertConfig, BertForMaskedLM

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted({word for text in TEXTS for word in text.split()})]
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    model = tmp_path / "model"
    BertForMaskedLM(BertConfig(vocab_size=len(words), initializer_range=0.4, **sizes)).save_pretrained(model)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(model / "tokenizer.json"))

    written = SparseRetriever.from_documents(documents(), path=tmp_path / "index", encoder=model, k=10)
    opened = SparseRetriever.load(tmp_path / "index", encoder=str(model), k=10)
    index = opened.store.snapshot.index("sparse")
    encoder = index.encoder  # type: ignore[attr-defined]
    weights = np.zeros((len(TEXTS) + 1, encoder.vocabulary))
    for i, vectors in enumerate([*(encoder.encode_documents([text]) for text in TEXTS), encoder.encode_queries(["the fish"])]):
        terms, values = vectors.row(0)
        weights[i, terms] = values
    scores = weights[:-1] @ weights[-1]
    found = hits(opened.invoke("the fish"))
    assert found == hits(written.invoke("the fish"))
    assert dict(found) == pytest.approx({str(n): score for n, score in enumerate(scores) if score}, rel=1e-4)
