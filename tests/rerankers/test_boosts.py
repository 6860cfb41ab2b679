"""Boosts against the same written out with plain string operations, and what they must never do to a ranking."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest
import Stemmer
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from pydantic import ValidationError

from ragkit import BM25Retriever, provenance
from ragkit.documents.provenance import KEY, Provenance, StageResult
from ragkit.rerankers.boosts import BoostReranker

WEIGHTS = {"phrase": 0.5, "exact": 0.1, "title": 0.05, "headings": 0.05, "host": 0.1}
OFF = dict.fromkeys(WEIGHTS, 0.0)
STOPPED = {"the", "of", "is", "in"}
WORDS = ["the", "of", "is", "in", "billing", "Billings", "refund", "refunds", "Portal", "portals", "api", "2024", "photoshop"]
HOSTS = ["billing.example.com", "www.portal.org", "photoshop.com", "example.org"]

sentences = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
questions = st.lists(sentences | sentences.map('"{}"'.format), max_size=4).map(" ".join)
urls = st.builds("https://{}/{}/{}.html".format, st.sampled_from(HOSTS), st.sampled_from(WORDS[4:]), st.sampled_from(WORDS[4:]))


@st.composite
def passages(draw: Any) -> Document:
    metadata = {
        "title": draw(st.none() | sentences),
        "url": draw(st.none() | urls),
        "source": draw(st.none() | urls | sentences),
        "relevance_score": draw(st.none() | st.sampled_from([0.25, 0.5, 3.0, -1.0])),
        KEY: Provenance(headings=tuple(draw(st.lists(sentences, max_size=2)))).to_json(),
    }
    return Document(
        id=draw(st.sampled_from("abcdef")),
        page_content=draw(sentences),
        metadata={key: value for key, value in metadata.items() if value is not None and draw(st.booleans())},
    )


def plain(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def bonus(question: str, document: Document) -> float:
    """The default bonus of a document, one comparison at a time; English words in ASCII only."""
    stem = Stemmer.Stemmer("english").stemWord
    content = {word for word in plain(question) if word not in STOPPED}
    stems = {stem(word) for word in content}

    def share(wanted: set[str], found: set[str]) -> float:
        return sum(word in found for word in wanted) / len(wanted) if wanted else 0.0

    def stems_of(text: str) -> set[str]:
        return {stem(word) for word in plain(text) if word not in STOPPED}

    def within(phrase: list[str], text: list[str]) -> bool:
        return any(text[at : at + len(phrase)] == phrase for at in range(len(text)))

    phrases = {tuple(plain(quoted)) for quoted in re.findall('"([^"]+)"', question)} - {()}
    total = 0.5 * sum(within(list(phrase), plain(document.page_content)) for phrase in phrases)
    total += 0.1 * share(content, set(plain(document.page_content)))
    total += 0.05 * share(stems, stems_of(document.metadata.get("title", "")))
    total += 0.05 * share(stems, stems_of(" ".join(document.metadata.get(KEY, {}).get("headings", []))))
    names = set()
    for field in ("url", "source"):
        match = re.fullmatch(r"https://([^/]+)/(.*)\.html", document.metadata.get(field, ""))
        if match:
            labels = match[1].split(".")
            names |= {match[1], *labels[:-1], *match[2].split("/")} - {"www"}
    return total + 0.1 * any(within(plain(name), plain(question)) for name in names)


def reference(question: str, documents: list[Document]) -> list[tuple[float, Document]]:
    given_scores = [document.metadata.get("relevance_score") for document in documents]
    numbers = [score for score in given_scores if score is not None]
    ranked = len(numbers) == len(documents) and numbers == sorted(numbers, reverse=True)
    base = numbers if ranked else [0.0] * len(documents)
    spread = max(base, default=0.0) - min(base, default=0.0) or 1.0
    scored = [(score + spread * bonus(question, document), document) for score, document in zip(base, documents, strict=True)]
    return sorted(scored, key=lambda pair: -round(pair[0], 9))


def ranked(found: list[Document]) -> list[Document]:
    """With scores that descend."""
    return [
        Document(id=d.id, page_content=d.page_content, metadata={**d.metadata, "relevance_score": (len(found) - at) / 3})
        for at, d in enumerate(found)
    ]


@given(questions, st.lists(passages(), max_size=6), st.booleans())
def test_scores_are_what_was_given_and_the_bonuses(question: str, documents: list[Document], in_order: bool) -> None:
    documents = ranked(documents) if in_order else documents
    before = copy.deepcopy(documents)
    found = BoostReranker().compress_documents(documents, question)
    expected = reference(question, documents)
    assert documents == before
    assert sorted(str(d.id) for d in found) == sorted(str(d.id) for d in documents)
    assert [d.metadata["relevance_score"] for d in found] == pytest.approx([score for score, _ in expected])
    assert {provenance(d).stages[-1].stage for d in found} <= {"boost"}
    gaps = np.diff([score for score, _ in expected])
    if (gaps < -1e-9).all():  # scores that differ by rounding alone may come in either order
        assert [d.page_content for d in found] == [d.page_content for _, d in expected]


@given(questions, st.lists(passages(), min_size=2, max_size=6), st.floats(0.01, 100), st.floats(-50, 50))
@settings(max_examples=40)
def test_the_scale_of_the_scores_is_no_matter(question: str, documents: list[Document], scale: float, shift: float) -> None:
    first = [Document(id=str(at), page_content=d.page_content, metadata=d.metadata) for at, d in enumerate(ranked(documents))]
    other = [
        Document(
            id=d.id,
            page_content=d.page_content,
            metadata=d.metadata | {"relevance_score": d.metadata["relevance_score"] * scale + shift},
        )
        for d in first
    ]
    one, two = (BoostReranker().compress_documents(given_documents, question) for given_documents in (first, other))
    moved = [d.metadata["relevance_score"] * scale + shift for d in one]
    assert [d.metadata["relevance_score"] for d in two] == pytest.approx(moved, abs=1e-6)


@given(questions, st.lists(passages(), max_size=8), st.none() | st.integers(1, 4))
@settings(max_examples=40)
def test_without_weights_the_order_stays(question: str, documents: list[Document], top_k: int | None) -> None:
    found = BoostReranker(**OFF, top_k=top_k).compress_documents(documents, question)
    assert [d.page_content for d in found] == [d.page_content for d in documents][:top_k]


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=4))
@settings(max_examples=40)
def test_without_anything_in_common_the_order_stays(question: str, texts: list[str]) -> None:
    documents = [
        Document(page_content=f"𝟘{n}", metadata={"title": 3, "url": text, "source": None}) for n, text in enumerate(texts)
    ]
    found = BoostReranker().compress_documents(documents, "w" + "w" * 30 + re.sub(r"[\W\d]", "", question))
    assert [d.page_content for d in found] == [d.page_content for d in documents]


def order(question: str, *documents: Document, **options: Any) -> list[Any]:
    return [d.metadata["n"] for d in BoostReranker(**options).compress_documents(documents, question)]


def text(n: int, content: str, **metadata: Any) -> Document:
    return Document(page_content=content, metadata={"n": n, **metadata})


@pytest.mark.parametrize(
    ("question", "content", "found"),
    [
        ('what is "Error 0x80"?', "it says ERROR, 0X80.", True),
        ('what is "Error 0x80"?', "it says error 0x801", False),
        ('what is "Error 0x80"?', "0x80 error", False),
        ("was heißt „Straße des 17. Juni“?", "STRASSE DES 17. JUNI", True),
        ("«ＦＵＬＬ width»", "full width", True),
        ("「検索」とは", "全文検索の話", True),
        ("「索」とは", "全文検索の話", True),
        ("「検文」とは", "全文検索の話", False),
        ('""', "anything", False),
        ('"?!"', "anything ?!", False),
        ('an "unclosed phrase', "unclosed phrase", False),
    ],
)
def test_phrases(question: str, content: str, found: bool) -> None:
    only_phrases = {**OFF, "phrase": 1.0}
    assert order(question, text(0, "nothing"), text(1, content), **only_phrases) == ([1, 0] if found else [0, 1])


def test_every_phrase_counts_once() -> None:
    documents = [text(0, "red fox"), text(1, "red fox, old dog"), text(2, "red fox red fox red fox")]
    assert order('"red fox" "old dog" "Red Fox"', *documents, **{**OFF, "phrase": 1.0}) == [1, 0, 2]


def test_exact_words_are_told_from_their_kin() -> None:
    assert order("running", text(0, "he runs"), text(1, "he is running"), **{**OFF, "exact": 1.0}) == [1, 0]


def test_headings_above_the_passage() -> None:
    headed = text(1, "press the button", ragkit=Provenance(headings=("Printers", "Installing")).to_json())
    assert order("install a printer", text(0, "install"), headed, **{**OFF, "headings": 1.0}) == [1, 0]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://photoshop.example.com/x", True),
        ("https://www.example.com/en/Photo-Shop/layer", False),
        ("https://www.example.com/en/color%20layers.html", True),
        ("https://helpx.adobe.com/x?q=photoshop", False),
        ("http://localhost:80/photoshop/", True),
        ("https://example.photoshop", False),
        ("/home/photoshop/layers.md", False),
        ("http://[broken/photoshop", False),
        ("photoshop", False),
        ("https://www.www.com/in/the", False),
    ],
)
@pytest.mark.parametrize("field", ["url", "source"])
def test_hosts(url: str, found: bool, field: str) -> None:
    documents = text(0, "color layers"), text(1, "other", **{field: url})
    question = "Where are the color layers in Photoshop www"
    assert order(question, *documents, **{**OFF, "host": 1.0}) == ([1, 0] if found else [0, 1])


def test_strange_metadata_is_no_bonus() -> None:
    documents = [
        text(0, "a", title=["fox"], url=3, source=None, relevance_score="high"),
        text(1, "b", title={"fox": 1}, relevance_score=float("nan")),
        text(2, "fox", title="Fox"),
    ]
    assert order("fox", *documents) == [2, 0, 1]


def test_scores_of_another_order_do_not_count() -> None:
    documents = [text(0, "a", relevance_score=0.1), text(1, "b fox", relevance_score=0.2), text(2, "c", relevance_score=0.9)]
    assert order("fox", *documents) == [1, 0, 2]


def test_behind_a_retriever() -> None:
    texts = ["the fox and the dog", "a dog, an old dog", "an old dog and a fox"]
    retriever = BM25Retriever.from_documents([Document(id=str(n), page_content=t) for n, t in enumerate(texts)], k=3)
    plain_order = [d.id for d in retriever.invoke('dog "old dog and"')]
    found = (retriever >> BoostReranker(top_k=2)).invoke('dog "old dog and"')
    assert plain_order[0] == "1"
    assert [d.id for d in found] == ["2", "1"]
    assert [stage.stage for stage in provenance(found[0]).stages] == ["bm25", "boost"]
    assert provenance(found[0]).stages[-1] == StageResult("boost", found[0].metadata["relevance_score"], 1)


def test_wrong_fields_are_refused() -> None:
    for wrong in ({"phrase": -1}, {"exact": float("inf")}, {"host": float("nan")}, {"hosts": 1}):
        with pytest.raises(ValidationError):
            BoostReranker(**wrong)
    with pytest.raises(ValidationError, match="language: 'klingon'"):
        BoostReranker(language="klingon")
    assert BoostReranker(language="de").language == "german"
