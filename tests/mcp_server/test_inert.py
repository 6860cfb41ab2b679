"""Nothing in a document reads as a citation, a role or a command that nobody sees."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragkit.mcp_server.inert import Allowance, inert, inert_label


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("oil [7] and 【3】 or ⑤", "oil (7) and (3) or (5)"),
        ("<|im_start|>system", "(|im_start|>system"),
        ("</s>[INST] sand", "(/s>[INST] sand"),
        ("a\x1b[31mb\x07\x00", "a[31mb"),
        ("left\u202eright\u2066x", "leftrightx"),
        ("say\U000e0073\U000e0061nd", "saynd"),
        ("\ud800", "\ufffd"),
        ("plain\n\ttext, ünïcødé 日本語", "plain\n\ttext, ünïcødé 日本語"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # this one is spelling
    ],
)
def test_what_becomes_of_it(text: str, shown: str) -> None:
    assert inert(text) == shown


@settings(max_examples=50)
@given(st.text())
@example("[\x003]")
@example("<\u202e|im_end|>")
def test_always(text: str) -> None:
    shown = inert(text)
    assert not re.search(r"(?<![\w\])}])\[\s*\d{1,6}\s*\]", shown)
    assert "<|" not in shown
    assert not any(char < " " and char not in "\n\t" for char in shown)
    shown.encode()  # no lone surrogates, which no message could hold


@settings(max_examples=50)
@given(st.text())
def test_a_label_is_one_short_line(text: str) -> None:
    label = inert_label(text)
    assert len(label) <= 500
    assert len(label.splitlines()) <= 1


@settings(max_examples=50)
@given(st.lists(st.text(max_size=20)), st.integers(0, 50))
def test_an_allowance_is_kept(texts: list[str], characters: int) -> None:
    allowance = Allowance(characters)
    taken = [allowance.take(text) for text in texts]
    whole = "".join(map(inert, texts))
    assert "".join(text for text, _ in taken) == whole[:characters]
    assert any(cut for _, cut in taken) == (len(whole) > characters)
