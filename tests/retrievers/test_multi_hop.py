"""Retrieval in hops against straight-line code over dictionaries, and what it finds that one search does not."""

import math
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from pydantic import ValidationError

from ragkit import BM25Retriever, HybridRetriever, InputError, Store, bm25_and_dense
from ragkit.documents.provenance import provenance
from ragkit.encoders.lexical import Analyzer
from ragkit.indexes.base import Ranking
from ragkit.retrievers.links import Bridge, follow, merge
from ragkit.retrievers.multi_hop import MultiHopRetriever

QUESTION = "Where was the director of the film Blue Harbour born?"
PASSAGES = {
    "Blue Harbour": "Blue Harbour is a film by the director Ada Kessler.",
    "Ada Kessler": "Ada Kessler grew up in Lund.",
    "Green Harbour": "Green Harbour is a film that was made at sea.",
    "Lund": "Lund is a town in Sweden.",
    "Red Harbour": "Red Harbour is where many ships were born.",
    "Film": "A film is made of many pictures.",
}


@pytest.fixture
def store(encoder: Any) -> Store:
    store = Store.memory(bm25_and_dense(encoder))
    store.upsert([Document(id=name, page_content=text, metadata={"title": name}) for name, text in PASSAGES.items()])
    return store


def ids(documents: list[Document]) -> list[Any]:
    return [document.id for document in documents]


async def test_the_passage_that_the_first_one_names_is_found(store: Store) -> None:
    once = BM25Retriever(store=store, k=2)
    twice = MultiHopRetriever(retriever=once, k=3)
    assert "Ada Kessler" not in ids(once.invoke(QUESTION, k=6))
    found = twice.invoke(QUESTION)
    assert ids(found) == ["Blue Harbour", "Red Harbour", "Ada Kessler"]
    assert ids(await twice.ainvoke(QUESTION)) == ids(found)
    assert [list(map(provenance, its)) for its in twice.batch([QUESTION, " ", QUESTION])] == [
        list(map(provenance, found)),
        [],
        list(map(provenance, found)),
    ]
    stages = [[result.stage for result in provenance(document).stages] for document in found]
    assert stages == [["bm25", "multi-hop"], ["bm25", "multi-hop"], ["links", "multi-hop"]]


def test_scores_are_those_of_straight_line_code(store: Store) -> None:
    bm25, terms, bridges = BM25Retriever(store=store), 2, 3
    retriever = MultiHopRetriever(retriever=bm25, k=6, bridges=bridges, terms=terms, words=0.3, names=0.8)
    analyzer = Analyzer()
    words = {name: set(analyzer(f"{name} {text}")) for name, text in PASSAGES.items()}
    names = {name: set(analyzer(name)) for name in PASSAGES}
    asked = set(analyzer(QUESTION))
    known = set().union(*words.values())

    def idf(term: str) -> float:
        count = sum(term in its for its in words.values())
        return math.log1p((len(PASSAGES) - count + 0.5) / (count + 0.5))

    first = {d.id: d.metadata["relevance_score"] for d in bm25.invoke(QUESTION, k=100)}
    low, high = min(first.values()), max(first.values())
    scaled = {name: (score - low) / (high - low) for name, score in first.items()}
    expected = dict(scaled)
    led: dict[str, float] = {}
    vectors = store.snapshot
    order = [d.id for d in vectors.documents(range(len(PASSAGES)))]
    vocabulary = {term: vectors.query_vectors("bm25", [term]).row(0)[0] for its in words.values() for term in its}
    for bridge in list(first)[:bridges]:
        ranked = sorted(words[str(bridge)] - asked, key=lambda term: (-idf(term), int(vocabulary[term][0])))[:terms]
        counts = {
            name: sum(idf(term) * _weight(term, name, analyzer, idf) for term in ranked) for name in PASSAGES if name != bridge
        }
        most = max(counts.values(), default=0)
        for name in PASSAGES:
            if name == bridge:
                continue
            gain = 0.3 * counts[name] / most if most else 0.0
            if names[name] <= words[str(bridge)] and names[name] - asked and (name in first or counts[name] > 0):
                gain += 0.8 * max(map(idf, names[name] - asked)) / math.log1p((len(PASSAGES) - 0.5) / 1.5)
            lacking = sum(map(idf, asked & known - words[str(bridge)])) / sum(map(idf, asked & known))
            led[name] = max(led.get(name, 0.0), scaled[bridge] * min(1, lacking / 0.5) * gain)
    for name, gain in led.items():
        if gain:
            expected[name] = expected.get(name, 0.0) + gain
    found = {d.id: d.metadata["relevance_score"] for d in retriever.invoke(QUESTION) if d.metadata["relevance_score"] > 0}
    assert found == pytest.approx({name: score for name, score in expected.items() if score > 0}, rel=1e-4)
    assert set(order) == set(PASSAGES)


def _weight(term: str, name: str, analyzer: Analyzer, idf: Any) -> float:
    """BM25 as Lucene has it, with a title that counts once."""
    lengths = {n: len(analyzer(t)) + len(analyzer(n)) * (not t.startswith(n)) for n, t in PASSAGES.items()}
    count = analyzer(PASSAGES[name]).count(term) + analyzer(name).count(term) * (not PASSAGES[name].startswith(name))
    norm = 1.2 * (0.25 + 0.75 * lengths[name] * len(lengths) / sum(lengths.values()))
    return float(idf(term) * count / (count + norm))


def test_following_and_merging() -> None:
    first = Ranking(np.array([4, 2, 9]), np.array([3.0, 2.0, 1.0]))
    bridges = [
        Bridge(4, 1.0, Ranking(np.array([4, 7, 9]), np.array([9.0, 4.0, 1.0])), {7: 0.5, 4: 1.0}),
        Bridge(2, 0.5, Ranking(np.array([7]), np.array([2.0])), {8: 1.0}),
    ]
    led = follow(first, bridges, words=0.4, names=1.0)
    assert dict(zip(led.positions.tolist(), led.scores.tolist(), strict=True)) == pytest.approx({7: 0.9, 9: 0.1, 8: 0.25})
    merged = merge(first, led, 3)
    assert merged.positions.tolist() == [4, 7, 2]
    assert merged.scores.tolist() == pytest.approx([1.0, 0.9, 0.5])
    nothing = Ranking(np.empty(0, np.int64), np.empty(0))
    assert follow(nothing, [], 1, 1).positions.size == merge(nothing, nothing, 5).positions.size == 0


def test_parts_of_one_document_do_not_lead_to_each_other(encoder: Any) -> None:
    texts = [
        "Kites fly in the wind over Yule.",
        "Strings hold up wooden frames.",
        "Yule is an island.",
        "A mean is a sum divided.",
    ]
    titles = ["Kites", "Kites", "Yule", "Sums"]
    store = Store.memory(bm25_and_dense(encoder))
    store.upsert(
        [
            Document(id=str(n), page_content=t, metadata={"title": title})
            for n, (t, title) in enumerate(zip(texts, titles, strict=True))
        ]
    )
    retriever = MultiHopRetriever(retriever=BM25Retriever(store=store), words=0)
    assert set(ids(retriever.invoke("What do wind and fly mean?"))) == {"0", "2", "3"}


def test_filters_hold_in_every_hop(store: Store) -> None:
    retriever = MultiHopRetriever(retriever=BM25Retriever(store=store), k=6)
    assert "Ada Kessler" not in ids(retriever.invoke(QUESTION, filter={"title": {"$ne": "Ada Kessler"}}))
    own = MultiHopRetriever(retriever=BM25Retriever(store=store, filter={"title": {"$ne": "Ada Kessler"}}), k=6)
    assert "Ada Kessler" not in ids(own.invoke(QUESTION))


def test_defaults_and_mistakes(store: Store, encoder: Any) -> None:
    retriever = MultiHopRetriever(store=store)
    assert isinstance(retriever.retriever, HybridRetriever)
    assert {"Blue Harbour", "Ada Kessler"} <= set(ids(retriever.invoke(QUESTION, k=4)))
    with pytest.raises(InputError, match="dense"):
        MultiHopRetriever(store=store, index_name="dense").invoke(QUESTION)
    other = BM25Retriever.from_texts(["something else"])
    with pytest.raises(ValidationError, match="same store"):
        MultiHopRetriever(store=store, retriever=other)
    assert MultiHopRetriever.from_texts(["one text"], encoder=encoder).invoke("text")[0].page_content == "one text"
    assert MultiHopRetriever.from_texts(["one text"], encoder=encoder).invoke("???") is not None
