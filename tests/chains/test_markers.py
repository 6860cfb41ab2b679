"""Citation markers: what stays, what leaves, and that chunks make no difference."""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragkit.chains.markers import MarkerStream

PIECES = [
    "[1]",
    "[9]",
    "[2, 3]",
    "[1-3]",
    "【2】",
    "[^1]",
    "[passage 2]",
    "[",
    "]",
    "`",
    "```",
    "\n",
    " ",
    "  ",
    ".",
    "a",
    "Bern",
    ", ",
]
PIECES += ["<think>", "</think>", "<", "[a]", "[0]", "(1)", "[1990-2020]", "，", "[1][1]", "[ 3 ;1]", "[1", "2]"]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join)


def run(chunks: list[str], passages: int = 3) -> tuple[str, list[int], list[tuple[int, int, int]]]:
    stream = MarkerStream(passages)
    text = "".join(stream.feed(chunk) for chunk in chunks) + stream.finish()
    return text, stream.unknown, [tuple(marker) for marker in stream.markers]


@pytest.mark.parametrize(
    ("said", "clean", "unknown"),
    [
        ("Big [1]. Also old [9].", "Big [1]. Also old.", [9]),
        ("A [1, 2] b [1-3] c 【2】 d [^1] e [Passage 2].", "A [1][2] b [1][2][3] c [2] d [1] e [2].", []),
        ("A [1][1] [2] [1]. B [1]", "A [1] [2]. B [1]", []),
        ("A [9] b [8] [7] c", "A b c", [9, 8, 7]),
        ("A\n\n[9] B", "A\n\nB", [9]),
        ("[7] A [2, 9]", "A [2]", [7, 9]),
        ("`x[1]` and\n```\ny[2]\n```\nso [2]", "`x[1]` and\n```\ny[2]\n```\nso [2]", []),
        ("a ` b\nc [9] d", "a ` b\nc d", [9]),
        ("[note] [1990-2020] [see](u) [1", "[note] [1990-2020] [see](u) [1", []),
        ("<think>perhaps [2]</think>\n\nYes [1].", "Yes [1].", []),
        ("<think>for ever [2]", "", []),
        ("Between `<think>` and `</think>` [1]. Not said [2].", "Between `<think>` and `</think>` [1]. Not said [2].", []),
        ("[٣] ist drei [１]", "[3] ist drei [1]", []),
        ("", "", []),
    ],
)
def test_markers_are_cleaned(said: str, clean: str, unknown: list[int]) -> None:
    assert run([said])[:2] == (clean, unknown)


@given(texts, st.lists(st.integers(0, 40), max_size=6))
@example("a [1", [3])
@example("x [9]  \n[9] y", [3, 6, 7])
@example("x [\n1]", [4])
def test_where_chunks_are_cut_makes_no_difference(text: str, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    chunks = [text[start:end] for start, end in pairwise(places)]
    assert run(chunks) == run([text]) == run(list(text))


@given(texts, st.integers(0, 4))
def test_markers_lie_where_they_say_and_name_known_passages(text: str, passages: int) -> None:
    clean, unknown, markers = run([text], passages)
    assert all(clean[start:end] == f"[{n}]" and 1 <= n <= passages for start, end, n in markers)
    assert all(not 1 <= n <= passages for n in unknown)
    if "`" not in text:
        assert len(markers) == len(re.findall(r"\[\d{1,6}\]", clean))


@given(st.text(st.characters(exclude_characters="[]［］【】〔〕⟦⟧<`"), max_size=50))
def test_text_without_markers_passes(text: str) -> None:
    assert run([text])[0] == text.strip()
