"""The late-interaction retriever and its index: a fake encoder against brute force, in memory and from a directory."""

from __future__ import annotations

import re
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
from ragkit.retrievers.late_interaction import LateInteractionRetriever
from ragkit.store.multi_vector_index import LateInteractionIndex
from ragkit.store.store import Store

TEXTS = [
    "the cat sat on the mat",
    "dogs bark at the cat",
    "a fish swims",
    "cat and dog and fish",
    "nothing here",
    "cat and dog and fish",
]


class WordVectors:
    """A vector for each word, whatever stands beside it, and one for the text. Counts what it encodes."""

    dimension = 8
    tokenizer = RegexTokenizer()

    def __init__(self, name: str = "words") -> None:
        self.name, self.encoded = name, 0

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {"kind": "words", "model": self.name, "salt": len(self.name)}

    @staticmethod
    def vector(word: str) -> np.ndarray:
        vector = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(8)
        # what float16 keeps, so that brute force needs none
        return (vector / np.linalg.norm(vector)).astype(np.float16).astype(np.float32)

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.stack([self.vector(word) for word in ["[start]", *text.split()]]) for text in texts]

    async def aencode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        return self.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str], progress: Any = None) -> list[np.ndarray]:
        self.encoded += len(texts)
        if progress:
            progress(len(texts))
        return self.encode_queries(texts)

    def encode_spans(self, texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]]) -> list[list[np.ndarray]]:
        return [
            [
                np.array([self.vector(m[0]) for m in re.finditer(r"\S+", text) if start <= m.end() - 1 < stop]).reshape(-1, 8)
                for start, stop in its_spans
            ]
            for text, its_spans in zip(texts, spans, strict=True)
        ]


def documents(texts: Sequence[str] = TEXTS) -> list[Document]:
    return [Document(id=str(n), page_content=text, metadata={"n": n}) for n, text in enumerate(texts)]


def brute_force(query: str, texts: Mapping[str, str], k: int) -> list[tuple[str, float]]:
    """Ids and scores of the best texts; equal scores in the order of the texts."""
    scores = {}
    for id_, text in texts.items():
        there = [WordVectors.vector(word) for word in ["[start]", *text.split()]]
        asked = [WordVectors.vector(word) for word in ["[start]", *query.split()]]
        scores[id_] = sum(max(float(a @ b) for b in there) for a in asked)
    return sorted(scores.items(), key=lambda hit: -round(hit[1], 4))[:k]


def agree(found: Sequence[Document], expected: Sequence[tuple[str, float]]) -> None:
    assert [document.id for document in found] == [id_ for id_, _ in expected]
    np.testing.assert_allclose([document.metadata["relevance_score"] for document in found], [s for _, s in expected], atol=1e-5)


@pytest.mark.parametrize("query", ["cat", "a dog", "fish swims here", "mat"])
def test_it_ranks_by_maxsim(query: str) -> None:
    retriever = LateInteractionRetriever.from_documents(documents(), encoder=WordVectors(), k=4)
    agree(retriever.invoke(query), brute_force(query, {str(n): text for n, text in enumerate(TEXTS)}, 4))


async def test_async_filters_and_blank_questions() -> None:
    retriever = LateInteractionRetriever.from_documents(documents(), encoder=WordVectors(), candidates=1, k=1)
    assert [document.id for document in await retriever.ainvoke("fish swims", filter={"n": {"$ne": 2}})] == ["3"]
    assert retriever.invoke("  ") == []


def test_an_index_in_a_directory_is_kept_up_to_date(tmp_path: Path) -> None:
    encoder, texts = WordVectors(), {str(n): text for n, text in enumerate(TEXTS)}
    LateInteractionRetriever.from_documents(documents(), path=tmp_path / "index", encoder=encoder, repetitions=4)
    retriever = LateInteractionRetriever.load(tmp_path / "index", encoder=encoder, k=10)
    agree(retriever.invoke("dog fish"), brute_force("dog fish", texts, 10))
    encoder.encoded = 0
    retriever.upsert([Document(id="new", page_content=TEXTS[0]), Document(id="0", page_content="dog fish")])
    assert encoder.encoded == 1  # the other text is known
    retriever.delete(["2"])
    texts = {id_: text for id_, text in texts.items() if id_ not in ("0", "2")} | {"new": TEXTS[0], "0": "dog fish"}
    for reader in (retriever, LateInteractionRetriever.load(tmp_path / "index", encoder=encoder, k=10)):
        agree(reader.invoke("dog fish"), brute_force("dog fish", texts, 10))
    with pytest.raises(StoreError, match=r"another|encoder"):
        LateInteractionRetriever.load(tmp_path / "index", encoder=WordVectors("other")).invoke("cat")


def test_beside_an_index_of_another_kind(tmp_path: Path) -> None:
    from ragkit.store.text_index import LexicalIndex

    store = Store.create(tmp_path / "index", {"bm25": LexicalIndex(), "late-interaction": LateInteractionIndex(WordVectors())})
    store.upsert(documents())
    opened = Store.open(tmp_path / "index", encoder={"late-interaction": WordVectors()})
    assert LateInteractionRetriever(store=opened, k=1).invoke("fish swims")[0].id == "2"


class Broken(WordVectors):
    """Gives something else than an encoder must."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def encode_documents(self, texts: Sequence[str], progress: Any = None) -> list[np.ndarray]:
        return self.answer(len(texts))


@pytest.mark.parametrize(
    "answer",
    [
        lambda n: [np.ones((1, 8))] * (n - 1),
        lambda n: [np.ones((2, 7))] * n,
        lambda n: [np.empty((0, 8))] * n,
        lambda n: [np.full((1, 8), np.nan)] * n,
    ],
)
def test_an_encoder_that_gives_something_else_is_named(answer: Any) -> None:
    index = LateInteractionIndex(Broken(answer))
    with pytest.raises(InputError, match="encoder 'words'"):
        index.prepare([IndexedText("a"), IndexedText("b")], [None, None])


def test_options_are_those_of_the_index() -> None:
    index = LateInteractionRetriever.indexes(encoder=WordVectors(), candidates=7, precision="float32", final=64)[
        "late-interaction"
    ]
    assert index.settings["vectors"] | {"candidates": 7, "precision": "float32", "final": 64} == index.settings["vectors"]
    with pytest.raises(InputError, match="'language'"):
        LateInteractionRetriever.indexes(encoder=WordVectors(), language="english")
    with pytest.raises(InputError, match=r"^encoder: "):
        LateInteractionRetriever.indexes(encoder=3)  # type: ignore[arg-type]
