"""What a better passage says already stands behind all others; nothing is lost, and nothing else moves."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit.rerankers.duplicates import DuplicateReranker, Said, repeats

OIL = "The pump needs oil of grade forty, which must be changed every three hundred hours of operation by trained staff."
SAND = "The mixer needs sand of the finest grain, which must be sieved twice before it is weighed and poured in slowly."

texts = st.lists(st.lists(st.sampled_from("abc"), max_size=7).map(" ".join), max_size=8)


def reference(texts: list[str], threshold: float) -> dict[int, tuple[int, float]]:
    """The definition, word by word."""
    kept: list[int] = []
    found = {}
    for at, text in enumerate(texts):

        def shingles(text: str) -> set[str]:
            said = re.findall(r"\w+", text.lower())
            if not said:
                return {f"nothing but {text}"}
            return {" ".join(said[n : n + 4]) for n in range(max(len(said) - 3, 1))}

        shares = [(len(shingles(text) & shingles(texts[by])) / len(shingles(text)), -by) for by in kept]
        share, by = max(shares, default=(0.0, 0))
        if share >= threshold:
            found[at] = (-by, share)
        else:
            kept.append(at)
    return found


@given(texts, st.sampled_from([0.3, 0.5, 0.75, 1.0]))
def test_as_defined(texts: list[str], threshold: float) -> None:
    assert repeats(texts, threshold) == {at: Said(*said) for at, said in reference(texts, threshold).items()}


@given(st.lists(st.text(max_size=30), max_size=6))
def test_any_text_is_permuted_and_a_copy_moved(texts: list[str]) -> None:
    documents = [Document(id=str(at), page_content=text) for at, text in enumerate([*texts, *texts])]
    found = DuplicateReranker(threshold=1).compress_documents(documents, "q")
    assert sorted(str(document.id) for document in found) == sorted(str(document.id) for document in documents)
    front = [document.page_content for document in found[: len(set(texts))]]
    assert len(front) == len(set(texts)) or not texts
    moved = repeats([*texts, *texts], 1)
    assert {*range(len(texts), 2 * len(texts))} <= {*moved}


@pytest.mark.parametrize(
    ("later", "share"),
    [
        (OIL, 1.0),
        (OIL.upper().replace(",", " -"), 1.0),
        (OIL.replace("pump", "pu\u00admp").replace("oil", "o\u200bil\u2060"), 1.0),
        (OIL.replace("grade", "\uff47\uff52\uff41\uff44\uff45"), 1.0),  # full width
        (" ".join(OIL.split()[3:12]), 1.0),
        (f"Note: {OIL}", 17 / 18),
        (OIL.replace("forty", "fifty"), 13 / 17),
    ],
)
def test_copies_in_disguise(later: str, share: float) -> None:
    assert repeats([OIL, SAND, later], 0.75) == {2: Said(0, pytest.approx(share))}


@pytest.mark.parametrize(
    "later",
    [
        f"{OIL} {SAND}",  # goes on
        OIL.replace("pump", "valve").replace("forty", "ten").replace("hundred", "thousand").replace("staff", "people"),
        "oil",
        "",
    ],
)
def test_what_says_something_else(later: str) -> None:
    assert repeats([OIL, later], 0.75) == {}


def test_scripts_without_spaces() -> None:
    text = "ポンプには四十番の油が必要であり三百時間ごとに交換しなければならない"
    assert repeats([text, text.replace("四十番", "五十番")], 0.75) == {1: Said(0, pytest.approx(29 / 33, abs=0.03))}
    assert repeats([text, "混合機には最も細かい砂が必要であり二度ふるいにかけてから量る"], 0.75) == {}


def test_only_what_stays_makes_others_repeats() -> None:
    first, second = "a b c d e f g h", "c d e f g h i"  # 3 of 4 shingles
    third = "e f g h i j"  # 2 of 3 of the second, 1 of 3 of the first
    assert repeats([first, second, third], 0.6) == {1: Said(0, 0.75)}


def test_it_says_what_was_moved_and_why() -> None:
    documents = [Document(id=id_, page_content=text) for id_, text in (("a", OIL), ("b", f"Note: {OIL}"), ("c", SAND))]
    [outcome] = DuplicateReranker().outcomes([{"documents": documents, "query": "q"}])
    assert [document.id for document in outcome.documents] == ["a", "c", "b"]
    assert outcome.usage == {"moved": 1, "why": {"b": "94% of it is in a"}}
    [outcome] = DuplicateReranker().outcomes([{"documents": documents[::2], "query": "q"}])
    assert [document.id for document in outcome.documents] == ["a", "c"]
    assert outcome.usage == {"moved": 0}
