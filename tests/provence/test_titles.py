"""Which title a model reads before a passage, and which units are only titles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit.documents.blocks import markdown_blocks, rst_blocks
from ragkit.documents.model import Source, Unit
from ragkit.documents.provenance import Provenance, with_provenance
from ragkit.documents.sentences import units_of
from ragkit.documents.split import split
from ragkit.documents.tokens import RegexTokenizer
from ragkit.provence.stage import pair_of
from ragkit.provence.titles import above_kept, title_of, title_units


def title(text: str, headings: tuple[str, ...] = (), **metadata: Any) -> str:
    document = with_provenance(Document(id="a", page_content=text, metadata=metadata), Provenance(headings=headings))
    return title_of(document, units_of(document))


@pytest.mark.parametrize(
    ("text", "own", "expected"),
    [
        ("It is red.", "Apple", "Apple"),
        ("Apples are red.", "Apple", "Apple"),
        ("Apple: it is red.", "Apple", ""),
        ("Apple It is red.", "apple", ""),
        ("  **Apple**\nIt is red.", "Apple", ""),
        ("It is red. Apple.", "Apple", "Apple"),
        ("# Apple\n\nIt is red.", "Apple", ""),
        ("日本語の文。", "日本", "日本"),
        ("日本 の文。", "日本", ""),
        ("ÄPFEL sind rot.", "Äpfel", ""),
        ("It is red.", "???", "???"),
        ("??? It is red.", "???", "???"),
        ("It is red.", "", ""),
        ("It is red.", " \n", ""),
        ("It is red.", None, ""),
        ("It is red.", 7, ""),
        ("", "Apple", "Apple"),
    ],
)
def test_the_own_title_unless_the_passage_begins_with_it(text: str, own: Any, expected: str) -> None:
    assert title(text, title=own) == expected


def test_headings_where_there_is_no_title() -> None:
    assert title("It is red.", ("Fruit", "Apple")) == "Fruit > Apple"
    assert title("It is red.", ("Fruit", "Apple"), title="") == "Fruit > Apple"
    assert title("It is red.", ("Fruit", "Apple"), title="Cook book") == "Cook book"
    assert title("Apple\n=====\n\nIt is red.", ("Fruit", "Apple")) == "Fruit"


@pytest.mark.parametrize(
    ("blocks", "text", "expected"),
    [
        (markdown_blocks, "# Fruit\n\n{}\n\n## Apple {{#a}}\n\n{}", ["", "Fruit"]),
        (markdown_blocks, "# Fruit\n\n## Apple\n\n{}", [""]),
        (markdown_blocks, "# Fruit\n\nAll.\n\n## Apple\n\n{}\n\n## Pear\n\n{}", ["", "Fruit"]),
        (rst_blocks, "=====\nFruit\n=====\n\n{}\n\nApple\n-----\n\n{}", ["", "Fruit"]),
    ],
)
def test_headings_that_a_passage_shows_are_not_repeated(blocks: Any, text: str, expected: list[str]) -> None:
    text = text.format(*["It is really very red. " * 4] * 2)
    documents = split(Source("/a", "/a", text, blocks(text)), RegexTokenizer(), size=40)
    assert [pair_of("q", document, "en").title for document in documents] == expected


def test_a_pair_holds_the_whole_passage() -> None:
    text = "One is red. Two is blue."
    document = with_provenance(Document(id="a", page_content="One is red."), Provenance(), passage=text, spans=((0, 11),))
    pair = pair_of("which", document, "en")
    assert (pair.question, pair.passage, pair.title) == ("which", text, "")
    assert pair.units == (Unit(0, 11), Unit(12, 24))
    assert hash(pair) == hash(pair_of("which", document, "en"))


@pytest.mark.parametrize(
    ("text", "own", "expected"),
    [
        ("Apple.\n\nIt is red.", "Apple", [True, False]),
        ("Apple\n\nIt is red.", "APPLE!", [False, False]),
        ("Apple!\n\nIt is red.", "apple", [True, False]),
        ("Apple pie.\n\nIt is red.", "Apple", [False, False]),
        ("It is red.\n\nApple", "Apple", [False, False]),
        ("", "Apple", []),
    ],
)
def test_a_first_unit_that_is_the_title(text: str, own: str, expected: list[bool]) -> None:
    document = Document(id="a", page_content=text, metadata={"title": own})
    assert title_units(document, units_of(document)).tolist() == expected


def test_headings_are_titles() -> None:
    text = "# Fruit\n\nRed. Blue.\n\n## Pear\n\nGreen."
    [document] = split(Source("/a", "/a", text, markdown_blocks(text)), RegexTokenizer(), size=100)
    assert title_units(document, units_of(document)).tolist() == [True, False, False, True, False]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12))
def test_a_title_stays_for_what_is_kept_below_it(units: list[tuple[bool, bool]]) -> None:
    titles, keep = np.array(units, bool).reshape(-1, 2).T
    expected = []
    for at, is_title in enumerate(titles):
        opening = all(titles[: at + 1])
        below = False
        met = False
        for is_other_title, is_kept in zip(titles[at:], keep[at:], strict=True):
            if is_other_title and met and not opening:
                break
            met |= not is_other_title
            below |= is_kept and not is_other_title
        expected.append(bool(is_title and below))
    assert above_kept(titles, keep).tolist() == expected
