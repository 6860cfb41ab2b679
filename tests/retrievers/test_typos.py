"""Similar terms against brute force over all terms, and what they do to a search."""

import string
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit import BM25Retriever, DenseRetriever, HybridRetriever, InputError
from ragkit.retrievers.similar_terms import SimilarTerms, edits_allowed
from ragkit.retrievers.typos import TypoTolerantRetriever
from ragkit.store.store import Store, bm25_and_dense

TEXTS = ["diabetes is treated with insulin", "insulin lowers glucose", "the kidney filters glucose", "gene p53 and gene brca1"]


def distance(a: str, b: str) -> int:
    """Optimal string alignment, by the recurrence as it stands in textbooks."""
    table = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            cost = [table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a[i - 1] != b[j - 1])]
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                cost.append(table[i - 2, j - 2] + 1)
            table[i, j] = min(cost)
    return table[len(a), len(b)]


def trigrams(term: str) -> set[str]:
    padded = f"\x01\x01{term}\x01\x01"
    return {padded[i : i + 3] for i in range(len(padded) - 2)}


TERMS = st.text("abcé🙂1", min_size=1, max_size=9)


@settings(max_examples=80)
@given(st.lists(TERMS, unique=True, max_size=30), TERMS)
def test_near_terms_are_those_of_brute_force(terms: list[str], term: str) -> None:
    found, distances = SimilarTerms(terms).near(term)
    assert {terms[at]: d for at, d in zip(found.tolist(), distances.tolist(), strict=True)} == {
        other: distance(term, other)
        for other in terms
        if distance(term, other) <= edits_allowed(term) and trigrams(term) & trigrams(other)
    }


@settings(max_examples=50)
@given(st.text(string.ascii_lowercase, min_size=3, max_size=12), st.data())
def test_one_typo_is_always_found(term: str, data: Any) -> None:
    at = data.draw(st.integers(0, len(term) - 1))
    char = data.draw(st.sampled_from(string.ascii_lowercase))
    typos = [term[:at] + term[at + 1 :], term[:at] + char + term[at:], term[:at] + char + term[at + 1 :]]
    typos.append(term[:at] + term[at : at + 2][::-1] + term[at + 2 :])
    for typo in typos:
        if typo != term and len(typo) >= 3:
            assert SimilarTerms(["123456", term, "12"]).near(typo)[0].tolist() == [1]


def test_short_terms_and_numbers_stay() -> None:
    assert [edits_allowed(term) for term in ("ab", "abc", "abcde", "abcdef", "p53", "x" * 65)] == [0, 1, 1, 2, 0, 0]
    assert SimilarTerms([]).near("abc")[0].tolist() == []


def make(**options: Any) -> TypoTolerantRetriever:
    return TypoTolerantRetriever.from_texts(TEXTS, ids=list("abcd"), **options)


async def test_an_unknown_term_counts_as_the_nearest_known_one() -> None:
    retriever = make()
    for typo, right in (
        ("diabtes", "diabetes"),
        ("isnulin glucsoe", "insulin glucose"),
        ("kidny", "kidney"),
        ("p54 gene", "gene"),
    ):
        expected = BM25Retriever(store=retriever.store).invoke(right)
        assert expected
        assert retriever.invoke(typo) == expected
        assert await retriever.ainvoke(typo) == expected
    assert retriever.invoke("zebra") == []
    assert retriever.batch(["glucose", "", "kidny"]) == [retriever.invoke(query) for query in ("glucose", "", "kidny")]
    assert retriever.corrections("Isnulin and kidny, p54 and glucose") == {"isnulin": "insulin", "kidny": "kidney"}


def test_known_terms_stay_though_frequent_ones_are_near() -> None:
    texts = ["form", "from from", "farm", "farm too", "firm"]
    retriever = TypoTolerantRetriever.from_texts(texts, stemming=False, stopwords=False)
    assert retriever.corrections("form firm") == {}
    assert retriever.corrections("furm") == {"furm": "farm"}  # of the nearest, the one in most passages
    assert retriever.corrections("fomr") == {"fomr": "form"}
    assert [d.page_content for d in retriever.invoke("form")] == ["form"]


def test_terms_follow_the_corpus() -> None:
    retriever = make()
    assert retriever.corrections("zebar") == {}
    retriever.upsert([Document(id="z", page_content="zebra")])
    assert [d.id for d in retriever.invoke("zebar")] == ["z"]
    retriever.delete(["z"])
    assert retriever.corrections("zebar") == {}
    assert retriever.invoke("zebra") == []


def test_a_deleted_term_counts_as_unknown() -> None:
    retriever = TypoTolerantRetriever.from_texts(["colour", "colours of color"], ids=["a", "b"], stemming=False)
    retriever.delete(["a"])
    assert retriever.corrections("colour") == {"colour": "color"} or retriever.corrections("colour") == {"colour": "colours"}


def test_on_disk_with_filters_and_in_a_hybrid(tmp_path: Any, make_encoder: Any) -> None:
    make(path=tmp_path / "index")
    retriever = TypoTolerantRetriever.load(tmp_path / "index")
    assert [d.id for d in retriever.invoke("kidny")] == ["c"]
    store = Store.memory(bm25_and_dense(make_encoder()))
    store.upsert([Document(id=str(n), page_content=text, metadata={"n": n}) for n, text in enumerate(TEXTS)])
    tolerant = TypoTolerantRetriever(store=store)
    assert {d.id for d in tolerant.invoke("glucsoe", filter={"n": 2})} == {"2"}
    hybrid = HybridRetriever(retrievers=[tolerant, DenseRetriever(store=store)])
    assert "2" in {d.id for d in hybrid.invoke("kidny")}
    with pytest.raises(InputError, match=r"^index_name: "):
        TypoTolerantRetriever(store=store, index_name="dense").invoke("a")


def test_many_terms_at_once() -> None:
    rng = np.random.default_rng(0)
    terms = sorted({"".join(rng.choice(list("abcdefgh"), size=rng.integers(1, 12))) for _ in range(1500)})
    similar = SimilarTerms(terms)
    for term in ("abcdef", "hgfedcba", "aaa", "bcdbcd"):
        found, _ = similar.near(term)
        expected = [n for n, other in enumerate(terms) if abs(len(other) - len(term)) <= 2]
        assert found.tolist() == [
            n for n in expected if distance(term, terms[n]) <= edits_allowed(term) and trigrams(term) & trigrams(terms[n])
        ]
